"""Train several seeds, each in its own process, and print the results on the test split. The other
benchmark scripts use this module.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

import medres
from medres.evaluate import evaluate
from medres.evaluate.statistics.intervals import wilson

Z = 1.959964


def command(*arguments: object) -> None:
    """Run `medres` with these arguments, and stop if it fails."""
    subprocess.run([sys.executable, "-m", "medres", *map(str, arguments)], check=True)


def train_seeds(work: Path, out: Path, seeds: int, arguments: list[object], *, unit: str) -> None:
    """Train seeds 0, 1, ... and print one row per seed: the test AUC with its interval (patients as
    clusters) and the accuracy at 0.5 with Wilson's interval.

    A run that an earlier call finished or began is reused. The epoch, the calibration and the
    thresholds come from train and tune alone. With several seeds, the last row holds the mean, the
    standard deviation between the seeds, and the sampling error of the AUC of one seed.
    """
    rows, errors = [], []
    for seed in range(seeds):
        run = out / f"seed-{seed}"
        command("train", work, *arguments, "--seed", seed, "--out", run)
        scores = medres.score(run / "model.keras", work, "test").table
        report = json.loads(evaluate(scores, unit=unit).to_json())
        auc = next(iter(report["findings"].values()))["auc"]
        right = int(((scores["score"] >= 0.5) == (scores["label"] == 1)).sum())
        low, high = wilson(right, len(scores), Z)
        rows.append((auc["estimate"], right / len(scores)))
        errors.append((auc["ci_high"] - auc["ci_low"]) / (2 * Z))
        print(
            f"seed {seed}: AUC {auc['estimate']:.4f} ({auc['ci_low']:.4f} to "
            f"{auc['ci_high']:.4f}), accuracy "
            f"{right / len(scores):.4f} ({low:.4f} to {high:.4f})",
            flush=True,
        )
    if seeds == 1:
        print(
            f"one seed: sampling error of the AUC {errors[0]:.4f}; the spread between seeds is "
            f"unknown",
            flush=True,
        )
        return
    mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)
    print(
        f"{seeds} seeds: AUC {mean[0]:.4f} (SD between seeds {spread[0]:.4f}, sampling error "
        f"{np.mean(errors):.4f}), "
        f"accuracy {mean[1]:.4f} (SD {spread[1]:.4f})",
        flush=True,
    )
