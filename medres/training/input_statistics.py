"""What the finished model was trained on: added to its card, for `Predictor` to refuse what is
unlike it.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from data_pipelines.cache.tf_dataset import eval_batches
from data_pipelines.kinds import image_kind
from medres.artefact.card import Card
from medres.artefact.feature_distance import (
    FeatureGaussian,
    feature_tensors,
    fit_novelty,
    threshold_of,
)
from medres.artefact.orientation import fit_orientation_model, thumbnails
from medres.artefact.training_domain import domain_of
from medres.models.classification import WINDOWS
from medres.training.data import CompiledModel, TrainingData

IMAGES, BATCH = 4096, 32


def with_known(
    card: Card, served: keras.Model, data: TrainingData
) -> tuple[Card, FeatureGaussian, FeatureGaussian | None]:
    """The card with the domain of the training split and the novelty threshold of the tuning split,
    and what goes beside it: what features and small pictures look like.
    """
    windows = card.training["config"]["model"].get("windows")
    update: dict[str, Any] = {
        "domain": domain_of(data.table("train")),
        "input_units": image_kind(data.cache.spec.kind).units.name,
        "windows": windows and [WINDOWS[w] if isinstance(w, str) else tuple(w) for w in windows],
    }
    net = CompiledModel(
        keras.Model(served.input, keras.ops.concatenate(feature_tensors(served), axis=1))
    )
    features, small = {}, {}
    for split in ("train", "tune"):
        found = [(net.logits(image), thumbnails(image.numpy())) for image in _images(data, split)]
        features[split], small[split] = (
            np.concatenate(parts) for parts in zip(*found, strict=True)
        )
    novelty = fit_novelty(features["train"])
    update["novelty_threshold"] = threshold_of(novelty.scores(features["tune"]))
    orientation_model = fit_orientation_model(small["train"], small["tune"])
    return card.model_copy(update=update), novelty, orientation_model


def _images(data: TrainingData, split: str) -> Any:
    """A tf.data of batches of a split: of every one, or of so few spread over it that they are
    about 4096 images.
    """
    step = -(-len(data.part(split)[0]) // IMAGES)
    batches = eval_batches(data.cache, data.targets, BATCH, split).map(
        lambda inputs, label, weight: inputs["image"]
    )
    return batches.shard(step, 0)
