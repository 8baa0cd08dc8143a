"""Whether a saliency map says anything about the model: Adebayo et al. 2018 (sanity), Petsiuk et
al. 2018 (deletion, insertion).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import trapezoid
from scipy.stats import spearmanr

from medres.explain.saliency import Explainer

LEVELS = 20


def rank_correlation_with_shuffled_weights(
    model: Any,
    image: np.ndarray,
    output: int = 0,
    *,
    method: str = "gradcam",
    baseline: float = 0.0,
    seed: int = 0,
) -> float:
    """Spearman's correlation of the map with that of the same network with its weights shuffled, 0
    where one of them is flat.

    Near 1, the map shows the image's edges rather than what the model has learnt, and must not be
    used.
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
    """Model outputs while the image is hidden (deletion) or shown (insertion) from the most salient
    place on; `share` of the image 0 to 1. A faithful map has a small area under deletion and a
    large one under insertion.
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
    """Curves for a map `values` of the spatial shape of `image` (..., channels): model outputs at
    21 shares of the image.
    """
    order = np.argsort(-values.reshape(-1), kind="stable")
    share = np.linspace(0, 1, LEVELS + 1)
    empty = np.full_like(image, baseline)
    deleted, inserted = [], []
    for part in share:
        chosen = np.zeros(values.size, bool)
        chosen[order[: round(part * values.size)]] = True
        place = chosen.reshape(values.shape)[..., np.newaxis]
        deleted.append(np.where(place, empty, image))
        inserted.append(np.where(place, image, empty))
    outputs = np.asarray(model.predict(np.stack([*deleted, *inserted]), batch_size=8, verbose=0))[
        :, output
    ]
    return Curves(share, outputs[: len(share)], outputs[len(share) :])
