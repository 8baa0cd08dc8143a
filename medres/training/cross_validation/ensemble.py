"""An ensemble in one model file: the mean of the logits of several models, in built-in layers,
calibrated as one model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from data_pipelines.cache.tf_dataset import Targets
from data_pipelines.ingestion.manifest import Manifest
from medres.artefact.archive import Artefact, load, save, with_probability
from medres.artefact.card import Calibration, Card
from medres.errors import TrainingError
from medres.models.test_time_augmentation import core_of, with_views
from medres.progress import ProgressReporter
from medres.training.calibration.finalize import after_calibration, calibrate, card_of
from medres.training.data import (
    CompiledModel,
    ScoredImages,
    TrainingData,
    conformal_holdout,
    load_data,
)
from medres.training.input_statistics import with_input_statistics
from medres.training.network import rebuild_on
from medres.training.tuning_metrics import probabilities


def save_ensemble(path: Path, models: Sequence[tuple[Path, Path]], *, folded: bool) -> None:
    """Write the ensemble of (model.keras, its work folder) to `path`.

    folded: each model was trained without the test patients of its own work folder. Calibration,
        operating points and conformal quantiles then come from the out-of-fold logits: those of a
        patient are from a single model that did not see the patient, and the ensemble should be
        better. Otherwise all models share one work folder, and its tuning split is used as for a
        single model.
    """
    artefacts = [load(file) for file, _ in models]
    cards = [artefact.card for artefact in artefacts]
    first = cards[0]
    if any(
        (card.task, card.names, card.preprocess) != (first.task, first.names, first.preprocess)
        for card in cards
    ):
        raise TrainingError(
            "the models of an ensemble must have the same task, classes and preprocessing: train "
            "all of them with the same settings",
            code="different_models",
        )
    after = first.training["config"]["after"]

    def load_work(work: Path) -> TrainingData:
        return load_data(work, first.preprocess, Manifest.load(work), ProgressReporter())

    def viewed(model: keras.Model) -> keras.Model:
        return with_views(model, after["views"], first.preprocess.fill)

    ensemble = viewed(mean_of([logits_of(artefact) for artefact in artefacts]))
    if folded:
        folds = [load_work(work) for _, work in models]
        data = folds[0]
        parts = [
            CompiledModel(viewed(logits_of(artefact))).score(fold, "test")
            for artefact, fold in zip(artefacts, folds, strict=True)
        ]
        logits = _concatenated(parts)
    else:
        data = load_work(models[0][1])
        logits = _concatenated([CompiledModel(ensemble).score(data, "tune")])
    holdout = conformal_holdout(logits, after["alpha"])
    calibration = calibrate(logits.take(~holdout), after["calibration"])
    scored = dataclasses.replace(logits, scores=_served(logits, calibration))
    result = after_calibration(
        calibration, scored.take(~holdout), scored.take(holdout), data.unit, after
    )
    best_epochs = [card.training["kept_epoch"] for card in cards]
    config = first.training["config"] | {
        "ensemble": [artefact.sha256 for artefact in artefacts],
        "out_of_fold": folded,
    }
    card = _with_epochs(card_of(data, config, result, max(best_epochs)), best_epochs)
    served = with_probability(ensemble, calibration, card.task)
    save(path, served, *with_input_statistics(card, served, data))


def logits_of(artefact: Artefact) -> keras.Model:
    """The model from one view of an image to logits, before calibration."""
    core = core_of(artefact.model)
    if core is not artefact.model:
        return core
    return keras.Model(artefact.model.inputs[0], artefact.model.get_layer("calibration").input)


def mean_of(models: Sequence[keras.Model]) -> keras.Model:
    """One functional model from an image to the mean of the models' logits. Its layers are copies
    with the same weights, named m1_..., m2_..., ...
    """
    image = keras.Input(models[0].inputs[0].shape[1:], name="image", dtype="float32")
    outputs = [
        rebuild_on(model, image, f"m{number}_") for number, model in enumerate(models, start=1)
    ]
    total = keras.layers.Add(name="total")(outputs)
    return keras.Model(
        image, keras.layers.Rescaling(1 / len(models), name="logits")(total), name="ensemble"
    )


def _concatenated(parts: list[ScoredImages]) -> ScoredImages:
    """The logits of all parts; the mean for an image that occurs more than once (with several
    seeds).
    """
    first = parts[0].targets
    labels = np.concatenate([part.targets.labels for part in parts])
    weights = np.concatenate([part.targets.weights for part in parts])
    table = pd.concat([part.table for part in parts], ignore_index=True)
    code, _ = pd.factorize(table["image"])
    first_row = np.unique(code, return_index=True)[1]
    scores = np.concatenate([part.scores for part in parts])
    count = np.bincount(code)[:, None]
    mean = np.stack([np.bincount(code, column) for column in scores.T], axis=1) / count
    targets = Targets(first.task, first.names, labels[first_row], weights[first_row])
    return ScoredImages(mean, targets, table.iloc[first_row].reset_index(drop=True))


def _served(logits: ScoredImages, calibration: Calibration) -> np.ndarray:
    """The calibrated probabilities (n, outputs)."""
    margins = logits.scores * np.array(calibration.scale) + np.array(calibration.offset)
    return probabilities(dataclasses.replace(logits, scores=margins))


def _with_epochs(card: Card, best_epochs: list[int]) -> Card:
    return card.model_copy(update={"training": card.training | {"kept_epochs": best_epochs}})
