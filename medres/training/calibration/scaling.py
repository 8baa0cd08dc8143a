"""Probability calibration: Platt scaling or a temperature for each finding, one temperature for
classes. Pure numpy and scipy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from medres.artefact.card import Calibration


def identity(outputs: int, method: str = "none") -> Calibration:
    """No calibration: the probabilities of the raw logits."""
    return Calibration(method, [1.0] * outputs, [0.0] * outputs, [0] * outputs, [0] * outputs)


def platt(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Scale (> 0) and offset for one finding by maximum likelihood on Platt's smoothed targets.

    logits float (n,), labels 0/1 (n,), both classes present. Smoothed targets (n+ + 1)/(n+ + 2) and
    1/(n- + 2) keep the result finite when the classes are separated (Platt 1999). The scale is
    bounded below by 1e-3: order is never reversed.
    """
    z = logits.astype(np.float64)
    positive = labels == 1
    n_positive, n_negative = positive.sum(), (~positive).sum()
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        margin = parameters[0] * z + parameters[1]
        residual = 1 / (1 + np.exp(-np.clip(margin, -500, 500))) - target
        return float(np.mean(np.logaddexp(0, margin) - target * margin)), np.array(
            [np.mean(residual * z), np.mean(residual)]
        )

    start = np.array([1.0, np.log((n_positive + 1) / (n_negative + 1))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(1e-3, 1e3), (-1e3, 1e3)])
    return float(found.x[0]), float(found.x[1])


def binary_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """One positive scale for one finding that minimises the log loss. logits float (n,), labels 0/1
    (n,).
    """
    z, y = logits.astype(np.float64), labels.astype(np.float64)
    return _scale(lambda scale: float(np.mean(np.logaddexp(0, z * scale) - y * z * scale)))


def temperature(logits: np.ndarray, labels: np.ndarray, unit: np.ndarray | None = None) -> float:
    """One positive scale for all classes that minimises the log loss of the served units (Guo et
    al. 2017).

    logits (n, classes) of images; labels int, one a unit; unit (n,) number of each image's unit,
    None where each is its own. A unit is served the mean of its images' probabilities, so that is
    what is scored.
    """
    z = logits.astype(np.float64)
    unit = np.arange(len(z)) if unit is None else unit
    images = np.bincount(unit)

    def loss(scale: float) -> float:
        shifted = np.exp(z * scale - (z * scale).max(axis=1, keepdims=True))
        own = (shifted / shifted.sum(axis=1, keepdims=True))[np.arange(len(z)), labels[unit]]
        return float(-np.mean(np.log(np.maximum(np.bincount(unit, own) / images, 1e-300))))

    return _scale(loss)


def _scale(loss: Callable[[float], float]) -> float:
    """The scale between exp(-4) and exp(4) with the lowest loss."""
    return float(
        np.exp(
            minimize_scalar(
                lambda t: loss(float(np.exp(t))), bounds=(-4.0, 4.0), method="bounded"
            ).x
        )
    )
