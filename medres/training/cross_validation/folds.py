"""Cross-validation and repeated seeds: each run in a separate process, one table of out-of-fold
scores, one ensemble.

    OUT/settings.yaml            the settings of every run
    OUT/grid.yaml                the same with the numbers of folds and seeds
    OUT/fold-0/work/             the work folder with the splits of this fold (the held-out patients
                                 are its test split)
    OUT/fold-0/seed-0/           a run, as `medres train` writes it; without folds OUT/seed-0/
    OUT/scores.csv               out-of-fold scores, with the columns fold and seed; of segmenters
                                 a row for each case and class
    OUT/summary.json             AUC (of segmenters Dice) by seed, its spread and sampling error
    OUT/model.keras              the ensemble; segmenters are not joined

Detectors have no ensemble and no table of scores; instead each run has its report on the held-out
patients, OUT/fold-0/seed-0/report/.

The test split of the original work folder is not used: it remains for the ensemble.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from data_pipelines.annotations.boxes.store import FOLDER as BOXES
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
from medres.tasks import annotated_task, task_named
from medres.training.config.options import existing_config, read_config, resolve_settings
from medres.training.cross_validation.detectors import (
    fold_report,
    require_folds,
    summary_of_folds,
)
from medres.training.cross_validation.ensemble import save_ensemble
from medres.training.cross_validation.mask_folds import (
    copy_masks,
    held_out_cases,
    out_of_fold_dice,
)
from medres.training.distributed.joining import refuse_workers
from medres.training.monitoring.best_epoch import HEADLINES, saved_monitor
from medres.training.tuning_metrics import units_auc


@dataclass(frozen=True)
class FoldRun:
    """One run: its fold (None without folds), its seed, its work folder and its run folder."""

    fold: int | None
    seed: int
    work: Path
    out: Path

    def __str__(self) -> str:
        return f"seed {self.seed}" if self.fold is None else f"fold {self.fold}, seed {self.seed}"


@dataclass(frozen=True)
class CrossValidation:
    """A finished cross-validation: its folder, its runs, the out-of-fold scores (None without
    folds, and of a detector), the content of summary.json, and the file of the ensemble (None of a
    detector and of a segmenter).
    """

    out: Path
    runs: list[FoldRun]
    scores: pd.DataFrame | None
    summary: dict[str, Any]
    artefact: Path | None


def cross_validate(
    work: Path | str,
    *,
    out: Path | str,
    folds: int = 1,
    seeds: int = 1,
    config: Path | str | Mapping[str, Any] | None = None,
    progress: ProgressReporter | None = None,
    mlflow: str | None = None,
    **overrides: Any,
) -> CrossValidation:
    """Train `folds` x `seeds` models in separate processes and summarize them. folds=1: no folds,
    with the work folder's own splits.

    overrides, mlflow: as for `train`; seeds count up from its seed. Folds are made of whole
        patients, stratified, and equal for all seeds. An interrupted call resumes. Raises
        TrainingError before the first run for settings that are not allowed, and where a run fails.
    """
    if folds < 1 or seeds < 1 or folds * seeds < 2:
        raise TrainingError(
            f"received {folds} folds and {seeds} seeds: give two or more of one of them; for a "
            f"single run use medres train",
            code="single_run",
        )
    refuse_workers("a cross-validation")
    options, _ = resolve_settings(config, overrides)
    task = annotated_task(options.task)
    if task is not None:
        require_folds(folds)
    settings = read_config(config) | {
        key: value for key, value in overrides.items() if value is not None
    }
    work, out, reporter = Path(work), Path(out), progress or Bars()
    _claim_folder(out, settings, folds, seeds)
    seed_range = range(options.seed, options.seed + seeds)
    runs = _fold_runs(Manifest.load(work), work, out, folds, seed_range)
    for number, fold_run in enumerate(runs, start=1):
        _run(fold_run, out / "settings.yaml", mlflow, f"run {number} of {len(runs)}", reporter)
    scores, summary, artefact = None, seed_summary(runs), None
    if task is None:
        artefact = out / "model.keras"
        if folds > 1:
            scores = _joined_scores(runs, _test_scores, out)
            summary |= out_of_fold(scores, Manifest.load(work).summary["label_level"])
        models = [(fold_run.out / "model.keras", fold_run.work) for fold_run in runs]
        save_ensemble(artefact, models, folded=folds > 1)
    elif task.finds_boxes:
        summary |= summary_of_folds([_fold_report(fold_run) for fold_run in runs])
    else:
        scores = _joined_scores(runs, _test_cases, out)
        summary |= out_of_fold_dice(scores)
    write_atomic(out / "summary.json", json.dumps(summary, indent=1, allow_nan=False).encode())
    return CrossValidation(out, runs, scores, summary, artefact)


def _joined_scores(
    runs: list[FoldRun], scores_of: Callable[[FoldRun], pd.DataFrame], out: Path
) -> pd.DataFrame:
    """The scores of all runs, also as scores.csv."""
    scores = pd.concat([scores_of(fold_run) for fold_run in runs], ignore_index=True)
    write_atomic(out / "scores.csv", scores.to_csv(index=False).encode())
    return scores


def fold_manifest(manifest: Manifest, folds: np.ndarray, fold: int, seed: int) -> Manifest:
    """The manifest without its test split, with the rows of `fold` as the new test split, and with
    a tuning split drawn from the rest by patient. folds: (n,) fold of each row outside test.
    """
    table = manifest.table[manifest.table["split"] != "test"].reset_index(drop=True)
    split = np.where(folds == fold, "test", "train")
    groups = connected_groups(list(table["patient"]), [list(table["pixel_sha256"])])
    table = table.assign(
        split=sample_tune_split(groups, row_strata(table), list(split), seed=seed).astype(str)
    )
    parts = {name: table[table["split"] == name] for name in SPLITS}
    splits = {
        name: {
            "patients": part["patient"].nunique(),
            "studies": part["study"].nunique(),
            "images": len(part),
            "classes": {},
        }
        for name, part in parts.items()
    }
    return Manifest(
        table, {**manifest.summary, "splits": splits, "fold": fold}, manifest.quarantine
    )


def out_of_fold(scores: pd.DataFrame, unit: str) -> dict[str, Any]:
    """The AUC averaged over the folds (LeDell, Petersen & van der Laan 2015) by seed, its spread
    between seeds, and its sampling error: a part of summary.json.

    Scores of different folds are never compared, since each fold has its own model. With several
    findings or classes the AUC is their mean. sampling_se: the standard error from the influence of
    the patients, averaged over seeds. seed_sd: the standard deviation of the AUC between seeds,
    None for one seed.
    """
    by_seed = {
        str(seed): _units(rows.drop(columns="seed"), unit) for seed, rows in scores.groupby("seed")
    }
    aucs = {seed: units_auc(units).to_dict() for seed, units in by_seed.items()}
    values = [auc["estimate"] for auc in aucs.values() if auc["estimate"] is not None]
    errors = [error for error in map(standard_error, by_seed.values()) if error is not None]
    return {
        "unit": unit,
        "auc": float(np.mean(values)) if values else None,
        "auc_by_seed": aucs,
        "seed_sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "sampling_se": float(np.mean(errors)) if errors else None,
    }


def standard_error(units: AnalysisUnits) -> float | None:
    """The standard error of the (mean) AUC, from the joint influence of each patient; None where no
    finding has two positive and two negative patients.
    """
    parts = []
    for name in units.names:
        sample = units.sample(name)
        if min(sample.patients_with(True), sample.patients_with(False)) >= 2:
            parts.append(influence(placements(sample, int(units.patient.max()) + 1)))
    total = np.mean(parts, axis=0) if parts else None
    return None if total is None else float(np.sqrt(total @ total))


def seed_summary(runs: list[FoldRun]) -> dict[str, Any]:
    """The tuning loss and the AUC (of a segmenter Dice, of a detector AP50 and FROC) of the saved
    epoch of every run: a part of summary.json. The epoch was selected by such values, so they are
    too optimistic for a report.
    """
    rows = []
    for fold_run in runs:
        rows_of_run = pd.read_csv(fold_run.out / "history.csv").to_dict("records")
        monitor = saved_monitor(existing_config(fold_run.out))
        best = rows_of_run[monitor.first_best(rows_of_run)]
        figures = [f"tune_{name}" for name in HEADLINES if f"tune_{name}" in best]
        rows.append(
            {
                "fold": fold_run.fold,
                "seed": fold_run.seed,
                "epoch": int(best["epoch"]),
                "tune_loss": float(best["tune_loss"]),
                **{name: None if pd.isna(best[name]) else float(best[name]) for name in figures},
            }
        )
    return {"runs": rows}


def _test_scores(fold_run: FoldRun) -> pd.DataFrame:
    scores, _ = score_split(fold_run.out / "model.keras", fold_run.work, "test")
    return scores.assign(fold=fold_run.fold, seed=fold_run.seed)


def _test_cases(fold_run: FoldRun) -> pd.DataFrame:
    cases = held_out_cases(fold_run.out / "model.keras", fold_run.work)
    return cases.assign(fold=fold_run.fold, seed=fold_run.seed)


def _fold_report(fold_run: FoldRun) -> dict[str, Any]:
    model = fold_run.out / "model.keras"
    report = fold_report(model, fold_run.work, fold_run.out / "report")
    return {"fold": fold_run.fold, "seed": fold_run.seed, **report}


def _units(scores: pd.DataFrame, unit: str) -> AnalysisUnits:
    table = load_scores(scores)
    return to_units(table, unit, task_named(table.task).pool, "any")


def _fold_runs(
    manifest: Manifest, work: Path, out: Path, folds: int, seeds: range
) -> list[FoldRun]:
    """All runs; the work folders of the folds are written where they are missing."""
    if folds == 1:
        return [FoldRun(None, seed, work, out / f"seed-{seed}") for seed in seeds]
    split_seed = seeds.start
    outside_test = manifest.table[manifest.table["split"] != "test"].reset_index(drop=True)
    fold_of_row = group_folds(outside_test, folds, split_seed)
    runs = []
    for fold in range(folds):
        fold_work = out / f"fold-{fold}" / "work"
        if not (fold_work / "ingest.json").exists():
            fold_work.mkdir(parents=True, exist_ok=True)
            if (work / BOXES).is_dir():
                shutil.copytree(work / BOXES, fold_work / BOXES, dirs_exist_ok=True)
            copy_masks(work, fold_work)
            fold_manifest(manifest, fold_of_row, fold, split_seed).save(fold_work)
        runs += [
            FoldRun(fold, seed, fold_work, out / f"fold-{fold}" / f"seed-{seed}") for seed in seeds
        ]
    return runs


def _claim_folder(out: Path, settings: dict[str, Any], folds: int, seeds: int) -> None:
    """Create `out` with its settings, or accept an earlier call with the same settings."""
    plain = {
        key: str(value) if isinstance(value, Path) else value for key, value in settings.items()
    }
    try:
        text = yaml.safe_dump({"folds": folds, "seeds": seeds, **plain}, sort_keys=True)
    except yaml.YAMLError:
        raise TrainingError(
            "cross-validation passes its settings to other processes: give names and numbers "
            "instead of objects, and a backbone as a .keras file",
            code="settings_not_plain",
        ) from None
    file = out / "grid.yaml"
    if file.exists():
        if file.read_text() != text:
            raise TrainingError(
                f"the existing cross-validation in {out} has different settings (see {file.name}): "
                f"choose a new folder, or repeat the original command to resume",
                code="other_run",
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(
            f"{out} exists and is not a cross-validation of medres: choose a new folder",
            code="not_a_run",
        )
    out.mkdir(parents=True, exist_ok=True)
    plain.pop("seed", None)
    write_atomic(out / "settings.yaml", yaml.safe_dump(plain).encode())
    write_atomic(file, text.encode())


def _run(
    fold_run: FoldRun, settings: Path, mlflow: str | None, name: str, reporter: ProgressReporter
) -> None:
    """Train one model in a separate process; the lines of its epochs go to the reporter."""
    if (fold_run.out / "model.keras").exists():
        return
    reporter.line(f"{name}: {fold_run}")
    command = [sys.executable, "-m", "medres", "train", str(fold_run.work)]
    command += ["--config", str(settings), "--seed", str(fold_run.seed), "--out", str(fold_run.out)]
    command += ["--mlflow", mlflow] if mlflow else []
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        last_line = ""
        for line in process.stderr or ():
            last_line = line.strip() or last_line
            if last_line.startswith(("epoch", "resuming")):
                reporter.line(f"  {last_line}")
    if process.returncode != 0:
        raise TrainingError(
            f"{fold_run} failed: {last_line.removeprefix('medres: ')}", code="run_failed"
        )
