"""The graph that is exported: one input, and as named outputs the probabilities and what tells
images that are unlike the training images, or rotated.

image        float32 (batch, *spec.shape), in model units
probability  float32 (batch, outputs); of a segmenter for each pixel
raw          float32 (batch, positions, ...): of a detector, instead of probability; medres.decode
             makes boxes of it
novelty      float32 (batch,): the distance from the training images; only if the model file holds
             their distribution
orientation  float32 (batch,): the distance from the upright training images divided by that of the
             best rotation; only if the model file holds the upright distribution
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medres.artefact.feature_distance import FeatureGaussian, feature_tensors
from medres.artefact.orientation import SIDE, area_means, orientation_ratios, thumbnails

if TYPE_CHECKING:
    import keras

    from medres.artefact.archive import Artefact
    from medres.artefact.card import Card

INPUT = "image"
PROBABILITY, RAW, NOVELTY, ORIENTATION = "probability", "raw", "novelty", "orientation"
MAIN = (PROBABILITY, RAW)  # a graph has one of them

# output -> its values: (images, outputs), or (images,)
Outputs = dict[str, np.ndarray]


def main_output(card: Card) -> str:
    """The name of what a model predicts."""
    return PROBABILITY if card.detection is None else RAW


def served_graph(artefact: Artefact, model: keras.Model) -> tuple[keras.Model, list[str]]:
    """A functional model with all outputs, and their names in order. model: that of the artefact,
    or a copy with folded normalization.
    """
    import keras

    outputs = {main_output(artefact.card): model.output}
    if artefact.novelty is not None:
        features = feature_tensors(model)
        joined = keras.ops.concatenate(features, axis=1) if len(features) > 1 else features[0]
        outputs[NOVELTY] = _distances(joined, artefact.novelty)
    if artefact.orientation_model is not None:
        outputs[ORIENTATION] = _orientation(model.input, artefact.orientation_model)
    return keras.Model(model.input, list(outputs.values())), list(outputs)


def reference_outputs(artefact: Artefact, images: np.ndarray) -> Outputs:
    """The outputs of the artefact for float32 images (n, *spec.shape), each image alone, as
    `Predictor` computes them: distances in float64, without the exported graph.
    """
    import keras

    model, gaussian = artefact.model, artefact.novelty
    tensors = [model.output, *(feature_tensors(model) if gaussian is not None else ())]
    graph = keras.Model(model.input, tensors)
    rows = [keras.tree.flatten(graph(image[np.newaxis], training=False)) for image in images]
    predicted, *features = (
        np.concatenate([np.asarray(part) for part in parts]) for parts in zip(*rows, strict=True)
    )
    outputs = {main_output(artefact.card): predicted}
    if gaussian is not None:
        outputs[NOVELTY] = gaussian.scores(np.concatenate(features, axis=1))
    if artefact.orientation_model is not None:
        outputs[ORIENTATION] = orientation_ratios(artefact.orientation_model, thumbnails(images))
    return outputs


def _distances(vectors: Any, gaussian: FeatureGaussian) -> Any:
    """`FeatureGaussian.scores` as operations of Keras. What is left beside the axes is computed
    from its own vector: the difference of two large sums would lose the digits of float32.
    """
    from keras import ops

    mean, axes, variance, noise = (
        np.asarray(part, np.float32)
        for part in (gaussian.mean, gaussian.axes, gaussian.variance, gaussian.noise)
    )
    centered = vectors - mean
    along = ops.matmul(centered, axes.T)
    rest = centered - ops.matmul(along, axes)
    total = ops.sum(ops.square(along) / variance, axis=-1)
    total = total + ops.sum(ops.square(rest), axis=-1) / noise
    return ops.sqrt(total / np.float32(len(mean)))


def _orientation(image: Any, gaussian: FeatureGaussian) -> Any:
    """`orientation_ratios` of the thumbnails of an image. A rotation of a thumbnail is a
    permutation of its pixels.
    """
    from keras import ops

    rank = len(image.shape)
    planes = ops.mean(image, axis=(*range(1, rank - 3), rank - 1))
    rows, columns = (area_means(size) for size in planes.shape[1:])
    pixels = ops.reshape(ops.matmul(ops.matmul(rows, planes), columns.T), (-1, SIDE * SIDE))
    index = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    turned = [np.rot90(each, turns) for turns in (1, 2, 3) for each in (index, index[:, ::-1])]
    order = np.concatenate([index.ravel(), *(each.ravel() for each in turned)]).astype(np.int32)
    views = ops.reshape(ops.take(pixels, order, axis=1), (-1, SIDE * SIDE))
    distances = ops.reshape(_distances(views, gaussian), (-1, 1 + len(turned)))
    others = ops.min(distances[:, 1:], axis=1)
    return distances[:, 0] / ops.maximum(others, np.float32(1e-12))
