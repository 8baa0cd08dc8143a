"""The folds of a segmenter: their masks, and Dice of every patient outside of the training of its
model.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.annotations.store import FOLDER
from medres.evaluate.statistics.patient_means import mean_over_patients
from medres.inference.masks.scoring import evaluate_segmenter

LEVEL = 0.95


def copy_masks(work: Path, fold_work: Path) -> None:
    """The label maps of a work folder, if it has any, into that of a fold, which has some of its
    images.
    """
    if (work / FOLDER).is_dir():
        shutil.copytree(work / FOLDER, fold_work / FOLDER, dirs_exist_ok=True)


def held_out_cases(model: Path, work: Path) -> pd.DataFrame:
    """A row for each case and class of the test split of a fold, as in tables/cases.csv."""
    return pd.DataFrame(evaluate_segmenter(model, work, "test").cases)


def out_of_fold_dice(cases: pd.DataFrame) -> dict[str, Any]:
    """Dice over all folds: a part of summary.json. Each patient has the mean over its cases, whose
    reference has the class, and then the mean over seeds.

    cases: rows of `held_out_cases` with the columns fold and seed. dice: the mean over classes;
    dice_by_class: with the 95 % interval over patients, None for fewer than five; seed_sd: the
    standard deviation of `dice` between seeds, None for one seed.
    """
    classes = list(dict.fromkeys(cases["class"]))
    by_class = {name: _mean(cases[cases["class"] == name]) for name in classes}
    by_seed = [
        np.mean([_mean(rows[rows["class"] == name])["estimate"] or 0.0 for name in classes])
        for _, rows in cases.groupby("seed")
    ]
    known = [row["estimate"] for row in by_class.values() if row["estimate"] is not None]
    return {
        "unit": "patient",
        "dice": float(np.mean(known)) if known else None,
        "dice_by_class": by_class,
        "seed_sd": float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None,
        "n_cases": int(cases["case"].nunique()),
    }


def fold_lines(summary: dict[str, Any]) -> list[str]:
    """For people: Dice of each class over all folds."""
    lines = []
    for name, row in summary["dice_by_class"].items():
        if row["estimate"] is None:
            lines.append(f"{name}: no patient has the class")
            continue
        interval = ""
        if row["ci_low"] is not None:
            interval = f" (95% CI {row['ci_low']:.3f} to {row['ci_high']:.3f})"
        lines.append(f"out-of-fold Dice of {name}: {row['estimate']:.3f}{interval}")
    if summary["seed_sd"] is not None:
        lines.append(f"standard deviation between seeds {summary['seed_sd']:.4f}")
    return lines


def _mean(rows: pd.DataFrame) -> dict[str, Any]:
    values = rows["dice"].to_numpy(np.float64)  # NaN where the reference lacks the class
    found = mean_over_patients(values, rows["patient"].astype(str).to_numpy(), LEVEL)
    return {
        "estimate": found.estimate,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "n_patients": found.n_clusters,
    }
