"""One model file of several: the mean of their logits, in built-in layers, calibrated as one."""

from __future__ import annotations

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
from medres.training.data import CompiledModel, ScoredImages, conformal_holdout, load_data
from medres.training.input_statistics import with_known
from medres.training.network import rebuild_on
from medres.training.tuning_metrics import probabilities


def save_ensemble(path: Path, members: Sequence[tuple[Path, Path]], *, folded: bool) -> None:
    """Write the ensemble of (model.keras, its work folder) to `path`.

    folded: each member was trained without its own test patients. Calibration, operating points and
        conformal quantiles then come from the out-of-fold logits, each patient's from a member that
        had not seen it: single members, which the ensemble should surpass. Else all members share
        one work folder, and its tuning split serves as it does for one model.
    """
    loaded = [load(file) for file, _ in members]
    cards = [one.card for one in loaded]
    if any(
        (card.task, card.names, card.preprocess)
        != (cards[0].task, cards[0].names, cards[0].preprocess)
        for card in cards
    ):
        raise TrainingError(
            "the members of an ensemble have other classes or preprocessing: train them alike"
        )
    after = cards[0].training["config"]["after"]

    def seen(core: keras.Model) -> keras.Model:
        return with_views(core, after["views"], cards[0].preprocess.fill)

    core = seen(mean_of([logits_of(one) for one in loaded]))
    parts = []
    for one, (_, work) in zip(loaded, members, strict=True) if folded else [(None, members[0])]:
        data = load_data(work, cards[0].preprocess, Manifest.load(work), ProgressReporter())
        parts.append(
            (
                CompiledModel(seen(logits_of(one)) if one else core).score(
                    data, "test" if folded else "tune"
                ),
                data,
            )
        )
    logits, data = _together([scored for scored, _ in parts]), parts[0][1]
    held = conformal_holdout(logits, after["alpha"])
    calibration = calibrate(logits.take(~held), after["calibration"])
    scored = ScoredImages(_served(logits, calibration), logits.targets, logits.table)
    made = after_calibration(calibration, scored.take(~held), scored.take(held), data.unit, after)
    kept = [card.training["kept_epoch"] for card in cards]
    config = cards[0].training["config"] | {
        "ensemble": [one.sha256 for one in loaded],
        "out_of_fold": folded,
    }
    card = card_of(data, config, made, max(kept))
    model = with_probability(core, calibration, card.task)
    save(path, model, *with_known(_with_epochs(card, kept), model, data))


def logits_of(member: Artefact) -> keras.Model:
    """The member's net: one view of an image to logits, before calibration."""
    core = core_of(member.model)
    if core is not member.model:
        return core
    return keras.Model(member.model.inputs[0], member.model.get_layer("calibration").input)


def mean_of(nets: Sequence[keras.Model]) -> keras.Model:
    """One functional model: image -> mean of the nets' logits. Layers are copies named m1_...,
    m2_..., with their weights.
    """
    image = keras.Input(nets[0].inputs[0].shape[1:], name="image", dtype="float32")
    outputs = [rebuild_on(net, image, f"m{number}_") for number, net in enumerate(nets, start=1)]
    total = keras.layers.Add(name="total")(outputs)
    return keras.Model(
        image, keras.layers.Rescaling(1 / len(nets), name="logits")(total), name="ensemble"
    )


def _together(parts: list[ScoredImages]) -> ScoredImages:
    """Logits of all parts; the mean where an image comes more than once (a member a seed)."""
    first = parts[0].targets
    labels, weights = (
        np.concatenate([getattr(p.targets, k) for p in parts]) for k in ("labels", "weights")
    )
    table = pd.concat([p.table for p in parts], ignore_index=True)
    code, _ = pd.factorize(table["image"])
    place = np.unique(code, return_index=True)[1]
    scores = np.concatenate([p.scores for p in parts])
    count = np.bincount(code)[:, None]
    mean = np.stack([np.bincount(code, column) for column in scores.T], axis=1) / count
    targets = Targets(first.task, first.names, labels[place], weights[place])
    return ScoredImages(mean, targets, table.iloc[place].reset_index(drop=True))


def _served(logits: ScoredImages, calibration: Calibration) -> np.ndarray:
    margins = logits.scores * np.array(calibration.scale) + np.array(calibration.offset)
    return probabilities(ScoredImages(margins, logits.targets, logits.table))


def _with_epochs(card: Card, kept: list[int]) -> Card:
    return card.model_copy(update={"training": card.training | {"kept_epochs": kept}})
