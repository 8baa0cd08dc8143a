"""Saliency maps on the grid of the model's input: where a change of the image would change the
score of one output.

Grad-CAM (Selvaraju et al. 2017), Grad-CAM++ (Chattopadhay et al. 2018), integrated gradients
(Sundararajan et al. 2017) and occlusion (Zeiler and Fergus 2014), for images and volumes alike.
None of them shows what a picture means; see `medres.explain.sanity_checks` for what they are worth.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines.runtime.backend import require_tensorflow
from medres.errors import ModelError
from medres.explain.feature_maps import run

STEPS = 32  # of integrated gradients
BATCH = 8
OCCLUDED, STRIDE = 8, 16  # an occluding box is an eighth of the side, and moves by a sixteenth


class Explainer:
    """Saliency maps of one model, compiled once. model: functional Keras model with one input and
    one output.
    """

    def __init__(self, model: Any) -> None:
        tf = require_tensorflow()
        self.shape = tuple(model.inputs[0].shape[1:])
        images = tf.TensorSpec((None, *self.shape), tf.float32)
        signature = [images, tf.TensorSpec((), tf.int32)]

        # Compiled, so that only the gradients that are asked for are computed.
        @tf.function(input_signature=signature, autograph=False)
        def scores(x: Any, output: Any) -> Any:
            return tf.gather(run(model, x).score, output, axis=1)

        @tf.function(input_signature=signature, autograph=False)
        def at_image(x: Any, output: Any) -> Any:
            return tf.gradients(tf.gather(run(model, x).score, output, axis=1), x)[0]

        @tf.function(input_signature=signature, autograph=False)
        def at_maps(x: Any, output: Any) -> Any:
            found = run(model, x)
            gradients = tf.gradients(tf.gather(found.score, output, axis=1), found.maps)
            if any(gradient is None for gradient in gradients):
                raise ModelError("no gradient reaches a feature map of the model")
            return found.maps, gradients

        self._scores, self._at_image, self._at_maps = scores, at_image, at_maps

    def map(
        self, image: np.ndarray, output: int = 0, *, method: str = "gradcam", baseline: float = 0.0
    ) -> np.ndarray:
        """float32 map of the spatial shape of `image`, for one output of the model.

        image: (..., channels) in model units. baseline: value of an empty image in those units (0,
            dark; -1024, air), for integrated gradients and occlusion. gradcam, gradcam++: 0 and
            above, without a unit. integrated_gradients: signed; they sum to score(image) -
        score(baseline). occlusion: by how much the score (logit) falls when the place is hidden.
        Raises ModelError.
        """
        if method not in METHODS:
            raise ModelError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
        if image.shape != self.shape or not np.isfinite(image).all():
            raise ModelError(
                f"an image of {image.shape}, where the model takes {self.shape}, finite"
            )
        return METHODS[method](self, image.astype(np.float32), output, baseline).astype(np.float32)

    def scores(self, images: np.ndarray, output: int) -> np.ndarray:
        """Logits float64 (batch,) of one output."""
        return self._scores(images, output).numpy().astype(np.float64)

    def image_gradients(self, images: np.ndarray, output: int) -> np.ndarray:
        return self._at_image(images, output).numpy().astype(np.float64)

    def map_gradients(self, image: np.ndarray, output: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(feature maps, gradient of the score there), float64 (..., channels), of each branch."""
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
    """The feature maps, weighted by channel and rectified, on the input's grid; of several branches
    the mean.
    """
    shape = image.shape[:-1]
    found = explainer.map_gradients(image, output)
    cams = [
        np.maximum(maps @ weights(maps, gradients, tuple(range(maps.ndim - 1))), 0)
        for maps, gradients in found
    ]
    return np.mean([resized(cam, shape) for cam in cams], axis=0)


def _integrated_gradients(
    explainer: Explainer, image: np.ndarray, output: int, baseline: float
) -> np.ndarray:
    """The gradient averaged along the straight way from an empty image, times the way: midpoint
    rule, 32 steps.
    """
    way, total = image - np.float32(baseline), np.zeros(image.shape)
    for places in np.split((np.arange(STEPS, dtype=np.float32) + 0.5) / STEPS, STEPS // BATCH):
        along = np.float32(baseline) + places.reshape(-1, *[1] * image.ndim) * way
        total += explainer.image_gradients(along, output).sum(axis=0)
    return (total / STEPS * way).sum(axis=-1)


def _occlusion(explainer: Explainer, image: np.ndarray, output: int, baseline: float) -> np.ndarray:
    """Mean fall of the score over all boxes that hide a place."""
    shape = image.shape[:-1]
    usual = explainer.scores(image[np.newaxis], output)[0]
    fall, seen, boxes = np.zeros(shape), np.zeros(shape), list(_boxes(shape))
    for some in (boxes[i : i + BATCH] for i in range(0, len(boxes), BATCH)):
        hidden = np.repeat(image[np.newaxis], len(some), axis=0)
        for one, box in zip(hidden, some, strict=True):
            one[box] = baseline
        for box, score in zip(some, explainer.scores(hidden, output), strict=True):
            fall[box] += usual - score
            seen[box] += 1
    return fall / seen


def _boxes(shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Boxes that together cover the grid."""
    sides = []
    for size in shape:
        side, step = max(1, size // OCCLUDED), max(1, size // STRIDE)
        starts = sorted({*range(0, max(size - side, 0) + 1, step), max(size - side, 0)})
        sides.append([slice(start, start + side) for start in starts])
    return itertools.product(*sides)


def resized(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Linear interpolation onto another grid over the same extent (half-pixel centres), any number
    of axes.
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
