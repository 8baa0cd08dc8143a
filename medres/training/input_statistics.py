"""Statistics of the training images for the card of the finished model, from which `Predictor`
recognizes images that are out of distribution.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

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
from medres.inference.sliding_windows import windows_of
from medres.models.classification import WINDOWS
from medres.training.data import CompiledModel, TrainingData

MAX_IMAGES = 4096
BATCH = 32


def with_input_statistics(
    card: Card, served: keras.Model, data: TrainingData
) -> tuple[Card, FeatureGaussian | None, FeatureGaussian | None]:
    """The card with the domain of the training split and with the novelty threshold of the tuning
    split; and the Gaussians of features and of thumbnails that are saved beside the card (the
    second is None where the orientation cannot be recognized). For a segmenter that sees patches
    the features are those of its windows, the distance of an image is the mean over them, and the
    second is None: a patch does not show how its image lies.

    served: the model from images in model units to probabilities.
    """
    windows = card.training["config"]["model"].get("windows")
    update: dict[str, Any] = {
        "domain": domain_of(data.table("train"), data.manifest.summary.get("color", "refuse")),
        "input_units": image_kind(data.cache.spec.kind).units.name,
        "windows": windows and [WINDOWS[w] if isinstance(w, str) else tuple(w) for w in windows],
    }
    tensors = feature_tensors(served)
    features_of = tensors[0] if len(tensors) == 1 else keras.ops.concatenate(tensors, axis=1)
    feature_model = CompiledModel(keras.Model(served.input, features_of))
    if card.input_shape != tuple(data.cache.spec.shape):
        novelty, limit = _of_windows(card, feature_model, data)
        update["novelty_threshold"] = limit
        return card.model_copy(update=update), novelty, None
    features, small = {}, {}
    for split in ("train", "tune"):
        pairs = [
            (feature_model.logits(images), thumbnails(images.numpy()))
            for images in _image_batches(data, split, feature_model.devices)
        ]
        features[split], small[split] = (
            np.concatenate(parts) for parts in zip(*pairs, strict=True)
        )
    novelty = fit_novelty(features["train"])
    update["novelty_threshold"] = threshold_of(novelty.scores(features["tune"]))
    orientation_model = fit_orientation_model(small["train"], small["tune"])
    return card.model_copy(update=update), novelty, orientation_model


def _of_windows(
    card: Card, model: CompiledModel, data: TrainingData
) -> tuple[FeatureGaussian, float]:
    """The Gaussian of the windows of the training images, without overlap, and the limit of the
    mean distance over the windows with which an image is predicted.
    """
    overlap = 0.0 if card.segmentation is None else card.segmentation.overlap
    gaussian = fit_novelty(
        np.concatenate(list(_window_features(card, model, data, "train", overlap=0.0)))
    )
    tuned = _window_features(card, model, data, "tune", overlap=overlap)
    distances = np.array([gaussian.scores(features).mean() for features in tuned])
    return gaussian, threshold_of(distances)


def _window_features(
    card: Card, model: CompiledModel, data: TrainingData, split: str, *, overlap: float
) -> Iterator[np.ndarray]:
    """The features (windows, features) of each image of a split; of evenly spread images where
    there would be more than MAX_IMAGES windows.
    """
    count = len(list(windows_of(np.empty(data.cache.spec.shape, np.float32), card.sides, overlap)))
    step = -(-len(data.rows(split)) * count // MAX_IMAGES)
    batches = eval_batches(data.cache, data.targets, 1, split).map(
        lambda inputs, label, weight: inputs["image"]
    )
    for images in batches.shard(max(1, step), 0):
        windows = windows_of(images.numpy()[0], card.sides, overlap)
        yield np.concatenate([model.logits(tf.constant(window[np.newaxis])) for window in windows])


def _image_batches(data: TrainingData, split: str, devices: int) -> tf.data.Dataset:
    """Batches of a split: all of them, or evenly spread ones with about 4096 images in total."""
    step = -(-len(data.rows(split)) // MAX_IMAGES)
    batches = eval_batches(data.cache, data.targets, BATCH * devices, split).map(
        lambda inputs, label, weight: inputs["image"]
    )
    return batches.shard(step, 0)
