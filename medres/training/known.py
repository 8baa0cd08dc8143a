"""What the finished model was trained on: added to its card, for `Predictor` to refuse what is unlike it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.dataset import eval_batches
from data_pipelines.preprocess import UNITS
from medres.artefact import Card
from medres.domain import domain_of
from medres.model import WINDOWS
from medres.novelty import HEAD, Novelty, fit_novelty, threshold_of
from medres.training.data import TrainingData

if TYPE_CHECKING:
    import keras


IMAGES, BATCH = 4096, 32


def with_known(card: Card, served: keras.Model, data: TrainingData) -> tuple[Card, Novelty]:
    """The card with the domain of the training split and the novelty threshold of the tuning split, and what goes beside it."""
    novelty = fit_novelty(features_of(served, data, "train"))
    threshold = threshold_of(novelty.scores(features_of(served, data, "tune")))
    windows = card.training["config"]["model"]["windows"]
    update = {
        "domain": domain_of(data.table("train")),
        "novelty_threshold": threshold,
        "input_units": UNITS[data.cache.spec.kind],
        "windows": windows and [WINDOWS[w] if isinstance(w, str) else tuple(w) for w in windows],
    }
    return card.model_copy(update=update), novelty


def features_of(served: keras.Model, data: TrainingData, split: str) -> np.ndarray:
    """Pooled features (images, features) of a split: of every batch, or of so few spread over it that they are about 4096 images."""
    import keras

    model = keras.Model(served.input, served.get_layer(HEAD).input)
    count = len(data.part(split)[0])
    step = -(-count // IMAGES)
    batches = eval_batches(data.cache, data.targets, BATCH, split).map(lambda inputs, label, weight: inputs["image"])
    return model.predict(batches.shard(step, 0), verbose=0)
