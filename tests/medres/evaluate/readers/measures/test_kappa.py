from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from medres.evaluate.readers.measures.kappa import (
    cohen_kappa,
    fleiss_kappa,
    gwet_ac1,
    linear,
    quadratic,
    unweighted,
)

LEVEL = 0.95


def of_table(table: list[list[int]]) -> np.ndarray:
    """Codes (2, cases) of a contingency table."""
    counts = np.array(table)
    a, b = np.indices(counts.shape)
    return np.stack([np.repeat(a, counts.ravel()), np.repeat(b, counts.ravel())])


def of_counts(counts: list[list[int]]) -> np.ndarray:
    """Codes (raters, cases) of counts (cases, categories)."""
    return np.stack([np.repeat(np.arange(len(row)), row) for row in counts], axis=1)


def each(codes: np.ndarray) -> np.ndarray:
    return np.arange(codes.shape[1])


# Fleiss, Cohen & Everitt 1969: two psychiatrists, 200 patients; weights of the paper.
PSYCHIATRISTS = [[106, 10, 4], [22, 28, 10], [2, 12, 6]]
PAPER_WEIGHTS = np.array([[1, 0, 0.4444], [0, 1, 0.6666], [0.4444, 0.6666, 1]])
# Fleiss 1971 as on many pages: ten subjects, fourteen raters, five categories.
FOURTEEN = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def test_cohen_of_the_textbook() -> None:
    codes = of_table([[20, 5], [10, 15]])
    found = cohen_kappa(codes, unweighted(2), each(codes), LEVEL, "m")
    assert found.estimate == pytest.approx(0.4)
    assert found.n == found.n_clusters == 50


def test_weighted_kappa_and_its_standard_error_are_those_of_the_paper() -> None:
    codes = of_table(PSYCHIATRISTS)
    plain = cohen_kappa(codes, unweighted(3), each(codes), LEVEL, "m")
    assert plain.estimate == pytest.approx(0.4286, abs=5e-4)
    weighted = cohen_kappa(codes, PAPER_WEIGHTS, each(codes), LEVEL, "m")
    share = np.array(PSYCHIATRISTS) / 200
    row, column = share.sum(axis=1), share.sum(axis=0)
    observed, expected = np.sum(PAPER_WEIGHTS * share), row @ PAPER_WEIGHTS @ column
    kappa = (observed - expected) / (1 - expected)
    sums = (PAPER_WEIGHTS @ column)[:, None] + row @ PAPER_WEIGHTS
    inner = PAPER_WEIGHTS * (1 - expected) - sums * (1 - observed)
    top = np.sum(share * inner**2) - (observed * expected - 2 * expected + observed) ** 2
    variance = top / (200 * (1 - expected) ** 4)  # formula (14) of the paper, n in place of n - 1
    assert weighted.estimate == pytest.approx(kappa)
    half = stats.t.ppf(0.975, 199) * np.sqrt(variance * 200 / 199)
    assert weighted.ci_high - weighted.estimate == pytest.approx(half)


def test_fleiss_of_the_textbook() -> None:
    codes = of_counts(FOURTEEN)
    found = fleiss_kappa(codes, 5, each(codes), LEVEL, "m")
    assert found.estimate == pytest.approx(0.210, abs=5e-4)


def test_ac1_is_high_where_kappa_is_paradoxical() -> None:
    """Gwet 2008: 118 of 125 subjects in one category by both raters, and never the other by both"""
    codes = of_table([[118, 5], [2, 0]])
    assert cohen_kappa(codes, unweighted(2), each(codes), LEVEL, "m").estimate == pytest.approx(
        -0.0234, abs=5e-5
    )
    assert gwet_ac1(codes, 2, each(codes), LEVEL, "m").estimate == pytest.approx(0.9408, abs=5e-5)


def weighted_value(name: str, codes: np.ndarray, mass: np.ndarray, q: int) -> float:
    """Each coefficient by its definition, over pairs of raters, with a mass for each case."""
    r, mass = len(codes), mass / mass.sum()
    weights = {"linear": linear, "quadratic": quadratic}.get(name, unweighted)(q)
    pairs = [(i, j) for i in range(r) for j in range(r) if i != j]
    observed = np.mean([np.sum(mass * weights[codes[i], codes[j]]) for i, j in pairs])
    share = np.array([[np.sum(mass * (row == k)) for k in range(q)] for row in codes])
    mean = share.mean(axis=0)
    if name == "ac1":
        expected = np.sum(mean * (1 - mean)) / (q - 1)
    elif name == "fleiss":
        expected = np.sum(mean**2)
    else:
        expected = share[0] @ weights @ share[1]
    return float((observed - expected) / (1 - expected))


@pytest.mark.parametrize("name", ["kappa", "linear", "quadratic", "fleiss", "ac1"])
def test_intervals_are_those_of_the_numerical_influence_of_each_patient(name: str) -> None:
    random = np.random.default_rng(3)
    readers = 4 if name in ("fleiss", "ac1") else 2
    base = random.integers(0, 4, 30)
    codes = np.where(random.random((readers, 30)) < 0.6, base, random.integers(0, 4, (readers, 30)))
    patient = np.arange(30) // 2
    call: dict[str, Callable] = {
        "fleiss": lambda: fleiss_kappa(codes, 4, patient, LEVEL, "m"),
        "ac1": lambda: gwet_ac1(codes, 4, patient, LEVEL, "m"),
    }
    weights = {"linear": linear, "quadratic": quadratic}.get(name, unweighted)(4)
    found = call.get(name, lambda: cohen_kappa(codes, weights, patient, LEVEL, "m"))()
    mass = np.ones(30)
    assert found.estimate == pytest.approx(weighted_value(name, codes, mass, 4))
    step, influence = 1e-5, []
    for p in range(15):
        up, down = mass + step * (patient == p), mass - step * (patient == p)
        change = weighted_value(name, codes, up, 4) - weighted_value(name, codes, down, 4)
        influence.append(change / (2 * step))
    half = stats.t.ppf(0.975, 14) * np.sqrt(15 / 14 * np.sum(np.square(influence)))
    assert found.ci_high - found.estimate == pytest.approx(half, rel=1e-6)
    assert found.n_clusters == 15


def test_what_is_undefined_says_why() -> None:
    same = np.zeros((2, 10), dtype=int)
    assert "one category" in cohen_kappa(same, unweighted(2), np.arange(10), LEVEL, "m").why
    perfect = np.stack([np.arange(10) % 2] * 2)
    found = cohen_kappa(perfect, unweighted(2), np.arange(10), LEVEL, "m")
    assert found.estimate == 1
    assert found.bounds is None
    for value in (
        cohen_kappa(perfect[:, :1], unweighted(2), np.arange(1), LEVEL, "m"),
        fleiss_kappa(perfect, 2, np.zeros(10), LEVEL, "m"),
        gwet_ac1(perfect, 2, np.zeros(10), LEVEL, "m"),
    ):
        assert value.estimate is None
        assert "two patients" in value.why
