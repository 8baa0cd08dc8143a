"""How far an image's features lie from those of the training images. Pure numpy.

A Gaussian with a low-rank covariance (probabilistic principal components, Tipping and Bishop 1999)
is fitted to the pooled features of training images; the score is the Mahalanobis distance to its
mean (Lee et al. 2018, without classes), per feature.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from medres.artefact.validation import NOVELTY, read_arrays
from medres.errors import ArtefactError

MAX_COMPONENTS = 64
DEVIATIONS = 5.0


@dataclass(frozen=True)
class FeatureGaussian:
    """mean (features,), axes (components, features) orthonormal, variance (components,) along them,
    noise () along all others; float64.
    """

    mean: np.ndarray
    axes: np.ndarray
    variance: np.ndarray
    noise: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Distances float64 (n,), in standard deviations a feature, of features (n, features)."""
        centred = features.astype(np.float64) - self.mean
        along = centred @ self.axes.T
        rest = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        return np.sqrt(
            ((along**2 / self.variance).sum(axis=1) + rest / self.noise) / features.shape[1]
        )


def feature_tensors(model: Any) -> list[Any]:
    """Symbolic outputs (batch, features) before the head: of the layer `pooled`, of an ensemble
    `m1_pooled` and so on; else what the layer `logits` takes. Of a model of several views, those of
    the image as it is.
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
    return pooled or [model.get_layer("logits").input]


def fit_novelty(features: np.ndarray) -> FeatureGaussian:
    """The Gaussian of features (images, features). At most 64 axes, and one for every two
    images.
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
    """The score above which an image is refused, from those of the tuning split (n,).

    Five robust standard deviations above the median of the logarithms, and never under the largest
    tuning score: no tuning image is refused, and few others that are like them.
    """
    logs = np.log(np.maximum(scores, 1e-12))
    median = np.median(logs)
    deviation = 1.4826 * np.median(np.abs(logs - median))
    return float(np.exp(max(median + DEVIATIONS * deviation, logs.max())) * (1 + 1e-6))


def novelty_member(novelty: FeatureGaussian) -> bytes:
    """The member novelty.npz, or upright.npz."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {
        f.name: np.asarray(getattr(novelty, f.name), np.float32) for f in fields(novelty)
    }
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def novelty_from(member: bytes, name: str = NOVELTY) -> FeatureGaussian:
    """Read novelty.npz, or the member `name` of the same form. Raises ArtefactError."""
    arrays = read_arrays(member, name)
    if {*arrays} != {f.name for f in fields(FeatureGaussian)} or arrays["axes"].ndim != 2:
        raise ArtefactError(f"{name} does not describe features")
    count, features = arrays["axes"].shape
    shapes = {"mean": (features,), "variance": (count,), "noise": ()}
    if any(arrays[name].shape != shape for name, shape in shapes.items()):
        raise ArtefactError(f"{name} does not describe features")
    return FeatureGaussian(**{name: array.astype(np.float64) for name, array in arrays.items()})
