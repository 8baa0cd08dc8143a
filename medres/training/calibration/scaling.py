"""Probability calibration: Platt scaling or a temperature for each finding, one temperature for all
classes. Pure NumPy and SciPy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from medres.artefact.card import Calibration


def identity(outputs: int, method: str = "none") -> Calibration:
    """The calibration that changes nothing: the probabilities of the raw logits."""
    return Calibration(method, [1.0] * outputs, [0.0] * outputs, [0] * outputs, [0] * outputs)


def platt(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Scale (> 0) and offset of one finding, by maximum likelihood on Platt's smoothed targets.

    logits: float (n,). labels: 0 or 1 (n,), with both classes present. The smoothed targets
    (n+ + 1)/(n+ + 2) and 1/(n- + 2) keep the result finite where the classes are separated (Platt
    1999). The scale is at least 1e-3, so that the order of the images is never reversed.
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
    fit = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(1e-3, 1e3), (-1e3, 1e3)])
    return float(fit.x[0]), float(fit.x[1])


def binary_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The positive scale of one finding that minimizes the log loss. logits: float (n,). labels: 0
    or 1 (n,).
    """
    z, y = logits.astype(np.float64), labels.astype(np.float64)
    return _scale(lambda scale: float(np.mean(np.logaddexp(0, z * scale) - y * z * scale)))


def temperature(logits: np.ndarray, labels: np.ndarray, unit: np.ndarray | None = None) -> float:
    """The positive scale of all classes that minimizes the log loss of the served units (Guo et al.
    2017).

    logits: (n, classes) of images. labels: int (units,). unit: (n,) index of the unit of each
    image; None: each image is a unit. The prediction of a unit is the mean of the probabilities of
    its images, and the loss is that of this mean.
    """
    z = logits.astype(np.float64)
    unit = np.arange(len(z)) if unit is None else unit
    images = np.bincount(unit)

    def loss(scale: float) -> float:
        shifted = np.exp(z * scale - (z * scale).max(axis=1, keepdims=True))
        p_label = (shifted / shifted.sum(axis=1, keepdims=True))[np.arange(len(z)), labels[unit]]
        return float(-np.mean(np.log(np.maximum(np.bincount(unit, p_label) / images, 1e-300))))

    return _scale(loss)


def _scale(loss: Callable[[float], float]) -> float:
    """The scale with the lowest loss, between exp(-4) and exp(4)."""
    return float(
        np.exp(
            minimize_scalar(
                lambda t: loss(float(np.exp(t))), bounds=(-4.0, 4.0), method="bounded"
            ).x
        )
    )
