"""Tests of whether a saliency map depends on the model: Adebayo et al. 2018 (sanity checks),
Petsiuk et al. 2018 (deletion and insertion).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import trapezoid
from scipy.stats import spearmanr

from medres.explain.saliency import Explainer

LEVELS = 20  # steps from none to all of the image


def rank_correlation_with_shuffled_weights(
    model: Any,
    image: np.ndarray,
    output: int = 0,
    *,
    method: str = "gradcam",
    baseline: float = 0.0,
    seed: int = 0,
) -> float:
    """Spearman's rank correlation between the map of the model and the map of the same model with
    shuffled weights; 0 if one of the maps is constant. Arguments as for `Explainer.map`.

    A value near 1 means that the map shows the edges of the image rather than what the model has
    learned; such a map must not be used.
    """
    import keras

    rng, weights, copy = (
        np.random.default_rng(seed),
        model.get_weights(),
        keras.models.clone_model(model),
    )
    shuffled = [rng.permutation(w.reshape(-1)).reshape(w.shape) for w in weights]
    explainer, maps = Explainer(copy), []  # compiled once for both
    for values in (weights, shuffled):
        copy.set_weights(values)
        maps.append(explainer.map(image, output, method=method, baseline=baseline).reshape(-1))
    if any(np.ptp(values) == 0 for values in maps):
        return 0.0
    return float(spearmanr(*maps).statistic)


@dataclass(frozen=True)
class Curves:
    """Outputs of the model, float (21,), while the image is hidden (deletion) or shown (insertion)
    pixel by pixel, the most salient first. share: (21,), the hidden or shown part of the image, 0
    to 1. A faithful map has a small area under the deletion curve and a large one under insertion.
    """

    share: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray

    @property
    def deletion_area(self) -> float:
        return float(trapezoid(self.deletion, self.share))

    @property
    def insertion_area(self) -> float:
        return float(trapezoid(self.insertion, self.share))


def deletion_insertion(
    model: Any, image: np.ndarray, values: np.ndarray, output: int = 0, *, baseline: float = 0.0
) -> Curves:
    """Deletion and insertion curves of a saliency map.

    image: float (..., channels) in model units. values: the map, with the spatial shape of the
    image. baseline: value of an empty image in model units.
    """
    order = np.argsort(-values.reshape(-1), kind="stable")
    share = np.linspace(0, 1, LEVELS + 1)
    empty = np.full_like(image, baseline)
    deleted, inserted = [], []
    for part in share:
        selected = np.zeros(values.size, bool)
        selected[order[: round(part * values.size)]] = True
        mask = selected.reshape(values.shape)[..., np.newaxis]
        deleted.append(np.where(mask, empty, image))
        inserted.append(np.where(mask, image, empty))
    outputs = np.asarray(model.predict(np.stack([*deleted, *inserted]), batch_size=8, verbose=0))[
        :, output
    ]
    return Curves(share, outputs[: len(share)], outputs[len(share) :])
