from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, log_softmax

from medres.training.calibrate import platt, temperature


def smoothed_loss(z: np.ndarray, y: np.ndarray, a: float, b: float) -> float:
    target = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))
    p = expit(a * z + b)
    return float(-np.mean(target * np.log(p) + (1 - target) * np.log(1 - p)))


def test_platt_finds_the_minimum() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=400) * 4
    y = (rng.random(400) < expit(0.5 * z - 1)).astype(float)
    a, b = platt(z, y)
    best = smoothed_loss(z, y, a, b)
    for da in (-0.02, 0, 0.02):
        for db in (-0.02, 0, 0.02):
            assert best <= smoothed_loss(z, y, a + da, b + db) + 1e-9
    assert a == pytest.approx(0.5, abs=0.12)
    assert b == pytest.approx(-1, abs=0.35)


def test_platt_stays_finite_and_keeps_the_order_when_separated() -> None:
    z, y = np.array([-9.0, -8, -7, 7, 8, 9]), np.array([0, 0, 0, 1, 1, 1])
    a, b = platt(z, y)
    p = expit(a * z + b)
    assert 0 < a < 10
    assert (np.diff(p) > 0).all()
    assert p.max() < 0.99
    assert platt(-z, y)[0] == pytest.approx(1e-3)  # a model that is wrong way round is never flipped


def test_temperature_finds_the_minimum() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(500, 3)) * 5
    labels = np.array([rng.choice(3, p=np.exp(log_softmax(row / 2))) for row in z])

    def loss(scale: float) -> float:
        return float(-log_softmax(z * scale, axis=1)[np.arange(500), labels].mean())

    scale = temperature(z, labels)
    assert loss(scale) <= min(loss(scale * 1.02), loss(scale / 1.02))
    assert scale == pytest.approx(0.5, rel=0.25)
