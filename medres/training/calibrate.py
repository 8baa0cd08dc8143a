"""Probability calibration on the tuning split: Platt scaling for each finding, one temperature for classes. Pure numpy and scipy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid or softmax of scale * logits + offset. `method` and the counts say where it comes from."""

    method: str
    scale: list[float]
    offset: list[float]
    n: list[int]
    n_positive: list[int]


def identity(outputs: int) -> Calibration:
    """No calibration: the probabilities of the raw logits."""
    return Calibration("none", [1.0] * outputs, [0.0] * outputs, [0] * outputs, [0] * outputs)


def platt(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Scale (> 0) and offset for one finding by maximum likelihood on Platt's smoothed targets.

    logits float (n,), labels 0/1 (n,), both classes present. Smoothed targets (n+ + 1)/(n+ + 2) and 1/(n- + 2) keep the result
    finite when the classes are separated (Platt 1999). The scale is bounded below by 1e-3: order is never reversed.
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


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """One positive scale for all classes that minimises the log loss (Guo et al. 2017). logits (n, classes), labels int (n,)."""
    z = logits.astype(np.float64)

    def loss(log_scale: float) -> float:
        scaled = z * np.exp(log_scale)
        peak = scaled.max(axis=1, keepdims=True)
        return float(
            np.mean(peak[:, 0] + np.log(np.exp(scaled - peak).sum(axis=1)) - scaled[np.arange(len(z)), labels])
        )

    return float(np.exp(minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded").x))
