"""Saliency maps on the input grid of a model: where a change of the image would change the score of
one output.

Grad-CAM (Selvaraju et al. 2017), Grad-CAM++ (Chattopadhay et al. 2018), integrated gradients
(Sundararajan et al. 2017) and occlusion (Zeiler and Fergus 2014), for images and volumes alike.
No such map explains a decision; `medres.explain.sanity_checks` tests whether it depends on the
model.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines.runtime.backend import require_tensorflow
from medres.errors import ModelError
from medres.explain.feature_maps import forward_with_feature_maps

STEPS = 32  # of integrated gradients
BATCH = 8
BOX, STRIDE = 8, 16  # the occluding box is an eighth of the side, and moves by a sixteenth


class Explainer:
    """Saliency maps of one model, compiled once.

    model: a functional Keras model with one input tensor and one output tensor.
    """

    def __init__(self, model: Any) -> None:
        tf = require_tensorflow()
        self.shape = tuple(model.inputs[0].shape[1:])
        images = tf.TensorSpec((None, *self.shape), tf.float32)
        signature = [images, tf.TensorSpec((), tf.int32)]

        # Compiled, so that only the requested gradients are computed.
        @tf.function(input_signature=signature, autograph=False)
        def scores(x: Any, output: Any) -> Any:
            return tf.gather(forward_with_feature_maps(model, x).score, output, axis=1)

        @tf.function(input_signature=signature, autograph=False)
        def at_image(x: Any, output: Any) -> Any:
            score = forward_with_feature_maps(model, x).score
            return tf.gradients(tf.gather(score, output, axis=1), x)[0]

        @tf.function(input_signature=signature, autograph=False)
        def at_maps(x: Any, output: Any) -> Any:
            result = forward_with_feature_maps(model, x)
            gradients = tf.gradients(tf.gather(result.score, output, axis=1), result.maps)
            if any(gradient is None for gradient in gradients):
                raise ModelError(
                    "the score does not depend on a feature map of the model", code="no_gradient"
                )
            return result.maps, gradients

        self._scores, self._at_image, self._at_maps = scores, at_image, at_maps

    def map(
        self, image: np.ndarray, output: int = 0, *, method: str = "gradcam", baseline: float = 0.0
    ) -> np.ndarray:
        """float32 map with the spatial shape of `image`, for one output of the model.

        image: float (..., channels) in model units.
        method: gradcam and gradcam++ give values from 0, without a unit. integrated_gradients gives
            signed values that sum to score(image) - score(baseline). occlusion gives the decrease
            of the score (logit) when a position is hidden.
        baseline: value of an empty image in model units (0 is dark; -1024 is air), for
            integrated_gradients and occlusion.
        Raises ModelError (unknown_method, image_shape, non_finite_image).
        """
        if method not in METHODS:
            raise ModelError(
                f"unknown method {method!r}: choose one of {', '.join(METHODS)}",
                code="unknown_method",
            )
        if image.shape != self.shape:
            raise ModelError(
                f"the image has shape {image.shape}; the model expects {self.shape}",
                code="image_shape",
            )
        if not np.isfinite(image).all():
            raise ModelError("the image has NaN or infinite values", code="non_finite_image")
        return METHODS[method](self, image.astype(np.float32), output, baseline).astype(np.float32)

    def scores(self, images: np.ndarray, output: int) -> np.ndarray:
        """Logits float64 (batch,) of one output."""
        return self._scores(images, output).numpy().astype(np.float64)

    def image_gradients(self, images: np.ndarray, output: int) -> np.ndarray:
        """Gradients float64 (batch, ..., channels) of the logit of one output at the images."""
        return self._at_image(images, output).numpy().astype(np.float64)

    def map_gradients(self, image: np.ndarray, output: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per branch: feature maps and the gradients of the logit, both float64 (..., channels)."""
        maps, gradients = self._at_maps(image[np.newaxis], output)
        return [
            (m.numpy()[0].astype(np.float64), g.numpy()[0].astype(np.float64))
            for m, g in zip(maps, gradients, strict=True)
        ]


def saliency_map(
    model: Any,
    image: np.ndarray,
    output: int = 0,
    *,
    method: str = "gradcam",
    baseline: float = 0.0,
) -> np.ndarray:
    """As `Explainer(model).map(...)`, for a single image."""
    return Explainer(model).map(image, output, method=method, baseline=baseline)


def _gradcam(explainer: Explainer, image: np.ndarray, output: int, baseline: float) -> np.ndarray:
    return _cam(explainer, image, output, lambda maps, gradients, axes: gradients.mean(axis=axes))


def _gradcam_plus(
    explainer: Explainer, image: np.ndarray, output: int, baseline: float
) -> np.ndarray:
    def weights(maps: np.ndarray, gradients: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        square, cube = gradients**2, gradients**3
        below = 2 * square + maps.sum(axis=axes, keepdims=True) * cube
        alpha = np.divide(square, below, out=np.zeros_like(square), where=np.abs(below) > 1e-20)
        return (alpha * np.maximum(gradients, 0)).sum(axis=axes)

    return _cam(explainer, image, output, weights)


def _cam(
    explainer: Explainer, image: np.ndarray, output: int, weights: Callable[..., np.ndarray]
) -> np.ndarray:
    """The feature maps, weighted per channel, summed and rectified, on the input grid; the mean
    over the branches.
    """
    shape = image.shape[:-1]
    cams = [
        np.maximum(maps @ weights(maps, gradients, tuple(range(maps.ndim - 1))), 0)
        for maps, gradients in explainer.map_gradients(image, output)
    ]
    return np.mean([resized(cam, shape) for cam in cams], axis=0)


def _integrated_gradients(
    explainer: Explainer, image: np.ndarray, output: int, baseline: float
) -> np.ndarray:
    """The gradient averaged along the straight path from an empty image to the image, times the
    path: midpoint rule, 32 steps.
    """
    path, total = image - np.float32(baseline), np.zeros(image.shape)
    for fractions in np.split((np.arange(STEPS, dtype=np.float32) + 0.5) / STEPS, STEPS // BATCH):
        images = np.float32(baseline) + fractions.reshape(-1, *[1] * image.ndim) * path
        total += explainer.image_gradients(images, output).sum(axis=0)
    return (total / STEPS * path).sum(axis=-1)


def _occlusion(explainer: Explainer, image: np.ndarray, output: int, baseline: float) -> np.ndarray:
    """Per position, the mean decrease of the score over all boxes that hide it."""
    shape = image.shape[:-1]
    full_score = explainer.scores(image[np.newaxis], output)[0]
    decrease, counts, boxes = np.zeros(shape), np.zeros(shape), list(_boxes(shape))
    for batch in (boxes[i : i + BATCH] for i in range(0, len(boxes), BATCH)):
        occluded = np.repeat(image[np.newaxis], len(batch), axis=0)
        for copy, box in zip(occluded, batch, strict=True):
            copy[box] = baseline
        for box, score in zip(batch, explainer.scores(occluded, output), strict=True):
            decrease[box] += full_score - score
            counts[box] += 1
    return decrease / counts


def _boxes(shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Overlapping boxes that together cover the grid."""
    sides = []
    for size in shape:
        side, step = max(1, size // BOX), max(1, size // STRIDE)
        starts = sorted({*range(0, max(size - side, 0) + 1, step), max(size - side, 0)})
        sides.append([slice(start, start + side) for start in starts])
    return itertools.product(*sides)


def resized(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Linear interpolation onto another grid over the same extent (half-pixel centers), for any
    number of axes.

    >>> resized(np.array([0.0, 1.0]), [4]).tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    from scipy.ndimage import zoom

    factors = [n / m for n, m in zip(shape, values.shape, strict=True)]
    return zoom(values, factors, order=1, mode="nearest", grid_mode=True)


METHODS: dict[str, Callable[[Explainer, np.ndarray, int, float], np.ndarray]] = {
    "gradcam": _gradcam,
    "gradcam++": _gradcam_plus,
    "integrated_gradients": _integrated_gradients,
    "occlusion": _occlusion,
}
