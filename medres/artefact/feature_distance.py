"""Out-of-distribution score: the distance of an image from the training images in the feature space
of the model. Pure numpy.

A Gaussian with a low-rank covariance (probabilistic principal component analysis, Tipping and
Bishop 1999) is fitted to the pooled features of the training images. The score is the Mahalanobis
distance to its mean, per feature (Lee et al. 2018, without classes).
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from medres.artefact.validation import NOVELTY, read_arrays
from medres.errors import ArtefactError

MAX_COMPONENTS = 64
_STAGE = re.compile(r"stage\d+")
DEVIATIONS = 5.0  # robust standard deviations between the median and the threshold


@dataclass(frozen=True)
class FeatureGaussian:
    """A Gaussian with a low-rank covariance; all arrays are float64.

    mean: (features,). axes: (components, features), orthonormal. variance: (components,), along the
    axes. noise: (), the variance along all other directions.
    """

    mean: np.ndarray
    axes: np.ndarray
    variance: np.ndarray
    noise: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Distances float64 (n,), in standard deviations per feature, of features (n, features)."""
        centered = features.astype(np.float64) - self.mean
        along = centered @ self.axes.T
        rest = np.maximum((centered**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        return np.sqrt(
            ((along**2 / self.variance).sum(axis=1) + rest / self.noise) / features.shape[1]
        )


def feature_tensors(model: Any) -> list[Any]:
    """Symbolic tensors (batch, features) before the head of a Keras model: the output of the layer
    `pooled`, for an ensemble those of `m1_pooled` and so on, else the input of the layer `logits`.
    For a segmenter, the mean of its coarsest map. For a model with test-time augmentation, the
    features of the unchanged image.
    """
    import keras

    from medres.models.test_time_augmentation import core_of

    inner = core_of(model)
    if inner is not model:
        return keras.tree.flatten(keras.Model(inner.input, feature_tensors(inner))(model.input))
    pooled = [
        layer.output
        for layer in model.layers
        if layer.name == "pooled" or layer.name.endswith("_pooled")
    ]
    features = pooled or [model.get_layer("logits").input]
    return features if len(features[0].shape) == 2 else [_bottleneck(model)]


def _bottleneck(model: Any) -> Any:
    """The mean over all positions of the coarsest map of a segmenter's backbone."""
    import keras

    stages = [layer for layer in model.layers if _STAGE.fullmatch(layer.name)]
    x = max(stages, key=lambda layer: int(layer.name.removeprefix("stage"))).output
    return keras.ops.mean(x, axis=tuple(range(1, len(x.shape) - 1)))


def fit_novelty(features: np.ndarray) -> FeatureGaussian:
    """Fit a Gaussian to features (images, features), with one axis per two images and at most 64
    axes.

    >>> gaussian = fit_novelty(np.random.default_rng(0).normal(size=(200, 3)))
    >>> bool(gaussian.scores(np.full((1, 3), 9.0)) > 5)
    True
    """
    x = features.astype(np.float64)
    mean = x.mean(axis=0)
    _, singular, axes = np.linalg.svd(x - mean, full_matrices=False)
    variance = singular**2 / max(len(x) - 1, 1)
    count = max(1, min(MAX_COMPONENTS, len(x) // 2, x.shape[1] - 1))
    total = variance.sum()
    floor = 1e-6 * total / x.shape[1] + 1e-12
    noise = max((total - variance[:count].sum()) / max(x.shape[1] - count, 1), floor)
    return FeatureGaussian(
        mean, axes[:count], np.maximum(variance[:count], noise), np.asarray(noise)
    )


def threshold_of(scores: np.ndarray) -> float:
    """The score above which an image is refused, from the scores (n,) of the tuning split.

    It is five robust standard deviations above the median on the logarithmic scale, and never below
    the largest tuning score: no tuning image is refused, and few similar images are.
    """
    logs = np.log(np.maximum(scores, 1e-12))
    median = np.median(logs)
    deviation = 1.4826 * np.median(np.abs(logs - median))
    return float(np.exp(max(median + DEVIATIONS * deviation, logs.max())) * (1 + 1e-6))


def dump_gaussian(gaussian: FeatureGaussian) -> bytes:
    """The bytes of the member novelty.npz or upright.npz (float32 arrays)."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {
        f.name: np.asarray(getattr(gaussian, f.name), np.float32) for f in fields(gaussian)
    }
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def parse_gaussian(member: bytes, name: str = NOVELTY) -> FeatureGaussian:
    """The Gaussian from the bytes of novelty.npz or upright.npz; `name` is for messages. Raises
    ArtefactError (malformed_arrays, malformed_gaussian): also for variances that are not above 0,
    axes that are not orthonormal, and numbers that are not finite.
    """
    arrays = read_arrays(member, name)
    if {*arrays} != {f.name for f in fields(FeatureGaussian)} or arrays["axes"].ndim != 2:
        raise _malformed(name)
    count, features = arrays["axes"].shape
    shapes = {"mean": (features,), "variance": (count,), "noise": ()}
    if any(arrays[key].shape != shape for key, shape in shapes.items()):
        raise _malformed(name)
    if not 1 <= count <= min(MAX_COMPONENTS, features):
        raise _malformed(name)
    gaussian = FeatureGaussian(**{key: array.astype(np.float64) for key, array in arrays.items()})
    with np.errstate(all="ignore"):
        # False for NaN as well
        orthonormal = np.abs(gaussian.axes @ gaussian.axes.T - np.eye(count)).max() <= 1e-3
        scales = np.append(gaussian.variance, gaussian.noise)
    if not (orthonormal and np.isfinite(gaussian.mean).all() and np.isfinite(scales).all()):
        raise _malformed(name)
    if not (scales > 0).all():
        raise _malformed(name)
    return gaussian


def _malformed(name: str) -> ArtefactError:
    return ArtefactError(
        f"{name} does not hold the arrays of a feature distribution", code="malformed_gaussian"
    )
