from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from medres.artefact.card import Calibration
from medres.training.calibration.scaling import binary_temperature, identity, platt, temperature


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


def test_platts_targets_are_smoothed_by_class() -> None:
    """Few of each, so that 1/(n- + 2) matters; minimised here by a method without gradients."""
    z, y = np.array([-3.0, -1, 0, 1, 2]), np.array([0, 0, 0, 1, 1])
    slow = minimize(
        lambda ab: smoothed_loss(z, y, *ab),
        [1.0, 0.0],
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-13},
    )
    assert platt(z, y) == pytest.approx(tuple(slow.x), abs=1e-3)


def test_identity_changes_nothing() -> None:
    assert identity(2) == Calibration("none", [1.0, 1.0], [0.0, 0.0], [0, 0], [0, 0])
    assert identity(1, "platt").method == "platt"
    assert (identity(1).unit, identity(1).split) == ("study", "tune")


def test_a_scale_stays_between_exp_minus_4_and_exp_4() -> None:
    z, y = np.array([-1.0, 1.0]), np.array([0, 1])
    assert binary_temperature(z / 1e4, y) == pytest.approx(np.exp(4), rel=1e-3)
    assert binary_temperature(-z, y) == pytest.approx(np.exp(-4), rel=1e-3)


def test_temperature_of_great_logits_is_finite() -> None:
    """exp would overflow, or all of a row vanish beside another row's maximum."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 200)
    z = rng.normal(size=(200, 3)) * 4
    z[np.arange(200), labels] += 3
    moved = z + np.where(np.arange(200) % 2, 3000.0, -3000.0)[:, None]
    assert temperature(moved, labels) == pytest.approx(temperature(z, labels), rel=1e-4)


def test_platt_stays_finite_and_keeps_the_order_when_separated() -> None:
    z, y = np.array([-9.0, -8, -7, 7, 8, 9]), np.array([0, 0, 0, 1, 1, 1])
    a, b = platt(z, y)
    p = expit(a * z + b)
    assert 0 < a < 10
    assert (np.diff(p) > 0).all()
    assert p.max() < 0.99
    assert platt(-z, y)[0] == pytest.approx(
        1e-3
    )  # a model that is wrong way round is never flipped


def test_temperature_finds_the_minimum() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(500, 3)) * 5
    labels = np.array([rng.choice(3, p=np.exp(log_softmax(row / 2))) for row in z])

    def loss(scale: float) -> float:
        return float(-log_softmax(z * scale, axis=1)[np.arange(500), labels].mean())

    scale = temperature(z, labels)
    assert loss(scale) <= min(loss(scale * 1.02), loss(scale / 1.02))
    assert scale == pytest.approx(0.5, rel=0.25)


def test_binary_temperature_finds_the_minimum() -> None:
    rng = np.random.default_rng(2)
    z = rng.normal(size=600) * 6
    y = (rng.random(600) < expit(0.4 * z)).astype(int)

    def loss(scale: float) -> float:
        p = expit(z * scale)
        return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))

    scale = binary_temperature(z, y)
    assert loss(scale) <= min(loss(scale * 1.02), loss(scale / 1.02))
    assert scale == pytest.approx(0.4, rel=0.25)


def test_temperature_of_studies_scores_the_mean_of_their_images() -> None:
    rng = np.random.default_rng(3)
    unit = np.sort(rng.integers(0, 80, 240))
    unit = np.unique(unit, return_inverse=True)[1]
    labels = rng.integers(0, 3, unit.max() + 1)
    z = rng.normal(size=(240, 3)) * 4
    z[np.arange(240), labels[unit]] += 2

    def loss(scale: float) -> float:
        """By a loop over the studies."""
        each = []
        for number, label in enumerate(labels):
            p = np.mean([softmax(row * scale) for row in z[unit == number]], axis=0)
            each.append(-np.log(p[label]))
        return float(np.mean(each))

    scale = temperature(z, labels, unit)
    assert loss(scale) <= min(loss(scale * 1.02), loss(scale / 1.02))
    alone = temperature(z, labels[unit])
    assert abs(np.log(alone / scale)) > 0.05
