"""Saliency maps on the grid of the model's input: where a change of the image would change the score of one output.

Grad-CAM (Selvaraju et al. 2017), Grad-CAM++ (Chattopadhay et al. 2018), integrated gradients (Sundararajan et al. 2017) and
occlusion (Zeiler and Fergus 2014), for images and volumes alike. None of them shows what a picture means; see
`medres.explain.checks` for what they are worth.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines.backend import require_tensorflow
from medres.errors import ModelError
from medres.explain.watching import run

STEPS = 32  # of integrated gradients
BATCH = 8
OCCLUDED, STRIDE = 8, 16  # an occluding box is an eighth of the side, and moves by a sixteenth


def saliency_map(
    model: Any, image: np.ndarray, output: int = 0, *, method: str = "gradcam", baseline: float = 0.0
) -> np.ndarray:
    """float32 map of the spatial shape of `image`, for one output of the model.

    model: functional Keras model, one input. image: (..., channels) in model units. baseline: value of an empty image in those
    units (0, dark; -1024, air), for integrated gradients and occlusion.
    gradcam, gradcam++: 0 and above, without a unit. integrated_gradients: signed; they sum to score(image) - score(baseline).
    occlusion: by how much the score (logit) falls when the place is hidden. Raises ModelError.
    """
    if method not in METHODS:
        raise ModelError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    if image.shape != tuple(model.inputs[0].shape[1:]) or not np.isfinite(image).all():
        raise ModelError(f"an image of {image.shape}, where the model takes {tuple(model.inputs[0].shape[1:])}, finite")
    return METHODS[method](model, image.astype(np.float32), output, baseline).astype(np.float32)


def _gradcam(model: Any, image: np.ndarray, output: int, baseline: float) -> np.ndarray:
    def weights(maps: np.ndarray, gradients: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        return gradients.mean(axis=axes)

    return _cam(model, image, output, weights)


def _gradcam_plus(model: Any, image: np.ndarray, output: int, baseline: float) -> np.ndarray:
    def weights(maps: np.ndarray, gradients: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        square, cube = gradients**2, gradients**3
        below = 2 * square + maps.sum(axis=axes, keepdims=True) * cube
        alpha = np.divide(square, below, out=np.zeros_like(square), where=np.abs(below) > 1e-20)
        return (alpha * np.maximum(gradients, 0)).sum(axis=axes)

    return _cam(model, image, output, weights)


def _cam(model: Any, image: np.ndarray, output: int, weights: Callable[..., np.ndarray]) -> np.ndarray:
    """The feature maps, weighted by channel and rectified, on the input's grid; of several branches the mean."""
    tf = require_tensorflow()
    with tf.GradientTape() as tape:
        x = tf.constant(image[np.newaxis])
        tape.watch(x)
        found = run(model, x)
        score = found.score[0, output]
    total = np.zeros(image.shape[:-1])
    for maps, gradient in zip(found.maps, tape.gradient(score, found.maps), strict=True):
        if gradient is None:
            raise ModelError("no gradient reaches a feature map of the model")
        maps, gradient = maps.numpy()[0].astype(np.float64), gradient.numpy()[0].astype(np.float64)
        weight = weights(maps, gradient, tuple(range(maps.ndim - 1)))
        total += resized(np.maximum(maps @ weight, 0), image.shape[:-1]) / len(found.maps)
    return total


def _integrated_gradients(model: Any, image: np.ndarray, output: int, baseline: float) -> np.ndarray:
    """The gradient averaged along the straight way from an empty image, times the way: midpoint rule, 32 steps."""
    tf = require_tensorflow()
    way = image - np.float32(baseline)
    total = np.zeros(image.shape)
    for places in np.split((np.arange(STEPS, dtype=np.float32) + 0.5) / STEPS, STEPS // BATCH):
        with tf.GradientTape() as tape:
            x = tf.constant(np.float32(baseline) + places.reshape(-1, *[1] * image.ndim) * way)
            tape.watch(x)
            score = tf.reduce_sum(run(model, x).score[:, output])
        total += tape.gradient(score, x).numpy().sum(axis=0)
    return (total / STEPS * way).sum(axis=-1)


def _occlusion(model: Any, image: np.ndarray, output: int, baseline: float) -> np.ndarray:
    """Mean fall of the score over all boxes that hide a place."""
    shape = image.shape[:-1]
    usual = _scores(model, image[np.newaxis], output)[0]
    fall, seen = np.zeros(shape), np.zeros(shape)
    for some in _batched(list(_boxes(shape)), BATCH):
        hidden = np.repeat(image[np.newaxis], len(some), axis=0)
        for one, box in zip(hidden, some, strict=True):
            one[box] = baseline
        for box, score in zip(some, _scores(model, hidden, output), strict=True):
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


def _batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _scores(model: Any, images: np.ndarray, output: int) -> np.ndarray:
    tf = require_tensorflow()
    return run(model, tf.constant(images)).score.numpy()[:, output].astype(np.float64)


def resized(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Linear interpolation onto another grid over the same extent (half-pixel centres), any number of axes."""
    from scipy.ndimage import zoom

    factors = [n / m for n, m in zip(shape, values.shape, strict=True)]
    return zoom(values, factors, order=1, mode="nearest", grid_mode=True)


METHODS: dict[str, Callable[[Any, np.ndarray, int, float], np.ndarray]] = {
    "gradcam": _gradcam,
    "gradcam++": _gradcam_plus,
    "integrated_gradients": _integrated_gradients,
    "occlusion": _occlusion,
}
