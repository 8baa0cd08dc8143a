"""Score one split of a work folder: the scores table that the report evaluates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.cache.store import ensure_cache
from data_pipelines.cache.tf_dataset import Targets, eval_batches, join_targets, rows_of
from data_pipelines.errors import SpecError
from data_pipelines.ingestion.manifest import SPLITS, Manifest
from data_pipelines.ingestion.test_access_log import log_test_access
from medres.artefact.archive import Artefact
from medres.artefact.archive import load as load_artefact
from medres.artefact.card import Card
from medres.errors import ArtefactError
from medres.evaluate.scores.scored import Scored
from medres.inference.predictor import BATCH, Predictor
from medres.inference.study_saliency import pictures
from medres.progress import ProgressReporter
from medres.tasks import task_named

SUBGROUPS = ("sex", "age", "view", "site", "manufacturer", "model")


def score_split(
    model: Path | str,
    work: Path | str,
    split: str = "test",
    *,
    progress: ProgressReporter | None = None,
    check: Callable[[Scored], object] | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The scores table (one row per image) of one split of a work folder, and the context for its
    report.

    The context holds: frozen (the operating points of the artefact, each with its unit), flow
    (ingest.json), provenance, unit, pool, subgroups, title, and pictures (draws the saliency map of
    a unit on request). Each access to the test split is logged in the work folder and counted in
    the provenance.
    check: called before anything is scored, with the same rows and equal scores. What it raises
        ends the call, and no access to the test split is logged.
    Raises SpecError (unknown_split, empty_split); ArtefactError: segmenter, detector; other_labels
    if the labels of the work folder are not those of the model.
    """
    if split not in SPLITS:
        raise SpecError(
            f"unknown split {split!r}: choose one of {', '.join(SPLITS)}", code="unknown_split"
        )
    manifest, artefact, reporter = (
        Manifest.load(work),
        load_artefact(model),
        progress or ProgressReporter(),
    )
    if task_named(artefact.card.task).is_annotated:
        is_segmenter = artefact.card.segmentation is not None
        function = (
            "masks.scoring.evaluate_segmenter"
            if is_segmenter
            else ("boxes.scoring.evaluate_detector")
        )
        raise ArtefactError(
            f"the model is for {artefact.card.task} and has no table of scores: use medres "
            f"evaluate MODEL WORK, or medres.inference.{function}",
            code="segmenter" if is_segmenter else "detector",
        )
    with reporter.task("cache") as update:
        cache = ensure_cache(work, artefact.card.preprocess, progress=update)
    manifest, targets = join_targets(manifest, cache)
    _check_names(targets, artefact.card)
    rows = rows_of(cache, split)
    if len(rows) == 0:
        raise SpecError(
            f"the {split} split holds no image of the model's kind: choose another --split",
            code="empty_split",
        )
    table = manifest.table.set_index("image").loc[cache.images["image"].iloc[rows]].reset_index()
    predictor, scores = Predictor(artefact), []
    context = _context(artefact, manifest, table, split) | {"pictures": pictures(predictor, work)}
    if check is not None:
        n_outputs = task_named(targets.task).outputs(len(targets.names))
        equal = np.full((len(rows), n_outputs), 1 / max(2, n_outputs))
        check(_scored(_scores_table(table, equal, targets), context))
    with reporter.task(f"score {split}") as update:
        for inputs, _, _ in eval_batches(cache, targets, BATCH, split):
            scores.append(predictor.forward(inputs["image"].numpy()))
            update(sum(map(len, scores)), len(rows))
    if split == "test":
        accesses = log_test_access(
            work,
            model_sha256=artefact.sha256,
            manifest_sha256=str(manifest.summary["manifest_sha256"]),
        )
        context["provenance"]["test_openings"] = accesses
    return _scores_table(table, np.concatenate(scores), targets), context


def is_subgroup(column: str) -> bool:
    """Whether a column of the manifest is one for subgroups."""
    return column in SUBGROUPS or column.startswith("meta:")


def _scores_table(table: pd.DataFrame, scores: np.ndarray, targets: Targets) -> pd.DataFrame:
    """One row per image: ids, subgroup columns, status, labels and scores (images, outputs)."""
    task = task_named(targets.task)
    metadata = [c for c in table.columns if is_subgroup(c)]
    out = table[["image", "series", "study", "patient", *metadata]].assign(status="scored")
    names = targets.names
    for column, source in zip(task.score_labels(names), task.manifest_labels(names), strict=True):
        out[column] = table[source] if task.exclusive else table[source].astype(float)
    columns = task.score_columns(names)
    return out.assign(**{column: scores[:, i].astype(float) for i, column in enumerate(columns)})


def _context(
    artefact: Artefact, manifest: Manifest, table: pd.DataFrame, split: str
) -> dict[str, Any]:
    card, single = artefact.card, task_named(artefact.card.task).single
    frozen = [point.model_dump() for point in card.operating_points]
    if single:
        frozen = [point | {"finding": "positive"} for point in frozen]
    provenance = {
        "model_sha256": artefact.sha256,
        "split": split,
        "preprocess": card.preprocess.name,
        "model_versions": card.versions,
        "kept_epoch": card.training.get("kept_epoch"),
        "calibration": card.calibration["method"],
        "finding": card.names[0] if single else None,
    }
    present = [c for c in SUBGROUPS if c != "age" and 1 < table[c].nunique() <= 8]
    return {
        "frozen": frozen,
        "flow": manifest.summary,
        "provenance": provenance,
        "unit": manifest.summary["label_level"],
        "pool": card.pooling,
        "subgroups": present,
        "title": f"{', '.join(card.names)}: {split} split",
    }


def _check_names(targets: Targets, card: Card) -> None:
    if (targets.task, list(targets.names)) != (card.task, list(card.names)):
        raise ArtefactError(
            f"the model predicts {', '.join(card.names)} ({card.task}), but the work folder is "
            f"labeled with {', '.join(targets.names)} ({targets.task}): ingest with --finding and "
            f"labels that have the names of the model",
            code="other_labels",
        )


def score(
    model: Path | str,
    work: Path | str,
    split: str = "test",
    *,
    progress: ProgressReporter | None = None,
    check: Callable[[Scored], object] | None = None,
) -> Scored:
    """Score one split of a work folder with a model file; `medres.evaluate.evaluate` takes the
    result as it is.

    split: "train", "tune" (validation) or "test"; each access to the test split is logged in the
    work folder. check: see `score_split`; it refuses a request before anything is scored. Raises
    ArtefactError if the labels of the work folder are not those of the model, and SpecError if the
    split is unknown or has no image for this model.
    """
    return _scored(*score_split(model, work, split, progress=progress, check=check))


def _scored(table: pd.DataFrame, context: dict[str, Any]) -> Scored:
    return Scored(
        table=table,
        thresholds=context["frozen"],
        unit=context["unit"],
        pool=context["pool"],
        title=context["title"],
        subgroups=tuple(context["subgroups"]),
        provenance=context["provenance"],
        flow=context["flow"],
        pictures=context["pictures"],
    )
