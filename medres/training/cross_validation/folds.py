"""Cross-validation and repeated seeds: each run in a process of its own, one table of out-of-fold
scores, one ensemble.

    OUT/settings.yaml            what every run is told
    OUT/fold-0/work/             the work folder with the splits of that fold (its held-out patients
                                 are its test split)
    OUT/fold-0/seed-0/           a run, as `medres train` writes it; without folds OUT/seed-0/
    OUT/scores.csv               out-of-fold scores, with the columns fold and seed
    OUT/summary.json             AUC by seed, spread between seeds and sampling error
    OUT/model.keras              the ensemble

Patients of the work folder's own test split take no part; it stays for the ensemble.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from data_pipelines.ingestion.manifest import SPLITS, Manifest
from data_pipelines.runtime.atomic_files import write_atomic
from data_pipelines.splits.stratified import (
    connected_groups,
    group_folds,
    row_strata,
    sample_tune_split,
)
from medres.errors import TrainingError
from medres.evaluate.metrics.roc import influence, placements
from medres.evaluate.scores.table import load as load_scores
from medres.evaluate.scores.units import AnalysisUnits, to_units
from medres.inference.scoring import score_split
from medres.progress import Bars, ProgressReporter
from medres.training.config.options import read_config, resolve_settings
from medres.training.cross_validation.ensemble import save_ensemble
from medres.training.data import POOL
from medres.training.tuning_metrics import units_auc


@dataclass(frozen=True)
class FoldRun:
    """One run of the grid: its fold (None without folds), its seed, its work folder and its run
    folder.
    """

    fold: int | None
    seed: int
    work: Path
    out: Path


@dataclass(frozen=True)
class CrossValidation:
    """What was made: the folder, its runs, the out-of-fold scores (None without folds), the
    summary, the ensemble's file.
    """

    out: Path
    members: list[FoldRun]
    scores: pd.DataFrame | None
    summary: dict[str, Any]
    artefact: Path


def cross_validate(
    work: Path | str,
    *,
    out: Path | str,
    folds: int = 1,
    seeds: int = 1,
    config: Path | str | Mapping[str, Any] | None = None,
    progress: ProgressReporter | None = None,
    mlflow: str | None = None,
    **given: Any,
) -> CrossValidation:
    """Train `folds` x `seeds` nets in processes of their own and sum them up. folds=1: no folds,
    the work folder's own splits.

    given, mlflow: as for `train`; seeds count up from its seed. Folds are whole patients,
        stratified, the same for every seed. A call that was interrupted goes on. Raises
        TrainingError before the first run where the settings cannot be, or where a run fails.
    """
    if folds < 1 or seeds < 1 or folds * seeds < 2:
        raise TrainingError(
            f"{folds} folds and {seeds} seeds: give two or more of either; one run is medres train"
        )
    options, _ = resolve_settings(config, given)
    settings = read_config(config) | {
        key: value for key, value in given.items() if value is not None
    }
    work, out, reporter = Path(work), Path(out), progress or Bars()
    _claim(out, settings, folds, seeds)
    members = _grid(
        Manifest.load(work),
        work,
        out,
        folds,
        range(options.seed, options.seed + seeds),
        options.seed,
    )
    for number, member in enumerate(members, start=1):
        _run(member, out / "settings.yaml", mlflow, f"run {number} of {len(members)}", reporter)
    scores, summary = None, seed_summary(members)
    if folds > 1:
        scores = pd.concat(
            [
                score_split(m.out / "model.keras", m.work, "test")[0].assign(
                    fold=m.fold, seed=m.seed
                )
                for m in members
            ],
            ignore_index=True,
        )
        write_atomic(out / "scores.csv", scores.to_csv(index=False).encode())
        summary |= out_of_fold(scores, Manifest.load(work).summary["label_level"])
    save_ensemble(
        out / "model.keras", [(m.out / "model.keras", m.work) for m in members], folded=folds > 1
    )
    write_atomic(out / "summary.json", json.dumps(summary, indent=1, allow_nan=False).encode())
    return CrossValidation(out, members, scores, summary, out / "model.keras")


def fold_manifest(manifest: Manifest, folds: np.ndarray, fold: int, seed: int) -> Manifest:
    """The manifest without its test split, its rows of `fold` as the new one, and tune drawn from
    the rest by patient.
    """
    table = manifest.table[manifest.table["split"] != "test"].reset_index(drop=True)
    given = np.where(folds == fold, "test", "train")
    groups = connected_groups(list(table["patient"]), [list(table["pixel_sha256"])])
    table = table.assign(
        split=sample_tune_split(groups, row_strata(table), list(given), seed=seed).astype(str)
    )
    parts = {name: table[table["split"] == name] for name in SPLITS}
    splits = {
        name: {
            "patients": p["patient"].nunique(),
            "studies": p["study"].nunique(),
            "images": len(p),
            "classes": {},
        }
        for name, p in parts.items()
    }
    return Manifest(
        table, {**manifest.summary, "splits": splits, "fold": fold}, manifest.quarantine
    )


def out_of_fold(scores: pd.DataFrame, unit: str) -> dict[str, Any]:
    """AUC averaged over the folds (LeDell, Petersen & van der Laan 2015), by seed; its spread
    between seeds, and its sampling error.

    Scores of different folds are never compared: each fold has a model of its own. With several
    findings or classes the AUC is
    their mean. sampling_se: standard error from the patients' influence on it, mean over seeds;
    seed_sd: standard deviation between the seeds' AUCs, None for one seed.
    """
    by_seed = {
        str(seed): _units(rows.drop(columns="seed"), unit) for seed, rows in scores.groupby("seed")
    }
    found = {seed: units_auc(units).to_dict() for seed, units in by_seed.items()}
    values = [one["estimate"] for one in found.values() if one["estimate"] is not None]
    errors = [error for error in map(standard_error, by_seed.values()) if error is not None]
    return {
        "unit": unit,
        "auc": float(np.mean(values)) if values else None,
        "auc_by_seed": found,
        "seed_sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "sampling_se": float(np.mean(errors)) if errors else None,
    }


def standard_error(units: AnalysisUnits) -> float | None:
    """Of the (mean) AUC, from the joint influence of each patient; None where no finding has two
    patients of both kinds.
    """
    parts = []
    for name in units.names:
        sample = units.sample(name)
        if min(sample.patients_with(True), sample.patients_with(False)) >= 2:
            parts.append(influence(placements(sample, int(units.patient.max()) + 1)))
    total = np.mean(parts, axis=0) if parts else None
    return None if total is None else float(np.sqrt(total @ total))


def seed_summary(members: list[FoldRun]) -> dict[str, Any]:
    """The kept epoch's tuning AUC of every run. It chose the epoch, so it is too good a figure for
    a report.
    """
    rows = []
    for member in members:
        history = pd.read_csv(member.out / "history.csv")
        best = history.to_dict("records")[int(history["tune_loss"].argmin())]
        auc = best["tune_auc"]
        kept = {"epoch": int(best["epoch"]), "tune_loss": float(best["tune_loss"])}
        rows.append(
            {
                "fold": member.fold,
                "seed": member.seed,
                **kept,
                "tune_auc": None if pd.isna(auc) else float(auc),
            }
        )
    return {"runs": rows}


def _units(scores: pd.DataFrame, unit: str) -> AnalysisUnits:
    table = load_scores(scores)
    return to_units(table, unit, POOL[table.task], "any")


def _grid(
    manifest: Manifest, work: Path, out: Path, folds: int, seeds: range, split_seed: int
) -> list[FoldRun]:
    if folds == 1:
        return [FoldRun(None, seed, work, out / f"seed-{seed}") for seed in seeds]
    pool = manifest.table[manifest.table["split"] != "test"].reset_index(drop=True)
    of_row = group_folds(pool, folds, split_seed)
    members = []
    for fold in range(folds):
        place = out / f"fold-{fold}" / "work"
        if not (place / "ingest.json").exists():
            place.mkdir(parents=True, exist_ok=True)
            fold_manifest(manifest, of_row, fold, split_seed).save(place)
        members += [
            FoldRun(fold, seed, place, out / f"fold-{fold}" / f"seed-{seed}") for seed in seeds
        ]
    return members


def _claim(out: Path, settings: dict[str, Any], folds: int, seeds: int) -> None:
    """Make `out` ours: new, or an earlier call with the same settings."""
    told = {
        key: str(value) if isinstance(value, Path) else value for key, value in settings.items()
    }
    try:
        text = yaml.safe_dump({"folds": folds, "seeds": seeds, **told}, sort_keys=True)
    except yaml.YAMLError:
        raise TrainingError(
            "cross-validation hands its settings to other processes: give names and numbers, and "
            "a backbone as a .keras file"
        ) from None
    file = out / "grid.yaml"
    if file.exists():
        if file.read_text() != text:
            raise TrainingError(
                f"{out} holds a cross-validation with other settings: give a new folder"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out} exists and is no cross-validation of medres: give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    told.pop("seed", None)
    write_atomic(out / "settings.yaml", yaml.safe_dump(told).encode())
    write_atomic(file, text.encode())


def _run(
    member: FoldRun, settings: Path, mlflow: str | None, name: str, reporter: ProgressReporter
) -> None:
    """Train one member in a process of its own; what it says goes to the reporter."""
    if (member.out / "model.keras").exists():
        return
    where = (
        f"seed {member.seed}" if member.fold is None else f"fold {member.fold}, seed {member.seed}"
    )
    reporter.line(f"{name}: {where}")
    command = [sys.executable, "-m", "medres", "train", str(member.work), "--config", str(settings)]
    command += [
        "--seed",
        str(member.seed),
        "--out",
        str(member.out),
        *(["--mlflow", mlflow] if mlflow else []),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        last = ""
        for line in process.stderr or ():
            last = line.strip() or last
            if last.startswith(("epoch", "resuming")):
                reporter.line(f"  {last}")
    if process.returncode != 0:
        raise TrainingError(f"{where} failed: {last.removeprefix('medres: ')}")
