from __future__ import annotations

import time

import numpy as np
import pytest
from helpers import raises_code

from medres.errors import EvaluationError
from medres.evaluate.readers.figures import PAIRS, make_figure
from medres.evaluate.readers.ratings import Ratings
from medres.evaluate.readers.table import load_ratings
from medres.evaluate.readers.variances import covariances
from medres.evaluate.readers.variances.covariances import (
    METHODS,
    choose_covariance,
    figure_covariance,
    figure_values,
)


def kernels(study: Ratings) -> np.ndarray:
    """(cells, diseased, healthy), by comparison."""
    return np.stack(
        [
            (c.rating[c.truth][:, None] > c.rating[~c.truth])
            + 0.5 * (c.rating[c.truth][:, None] == c.rating[~c.truth])
            for c in study.cells()
        ]
    )


def test_delong_is_its_definition(rated) -> None:
    study = load_ratings(rated())
    psi = kernels(study)
    by_diseased, by_healthy = psi.mean(axis=2), psi.mean(axis=1)
    expected = np.cov(by_diseased) / psi.shape[1] + np.cov(by_healthy) / psi.shape[2]
    found = figure_covariance("delong", PAIRS["auc"], study)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kernel_cells", [50, 8_000_000])
def test_unbiased_is_its_definition(rated, kernel_cells: int, monkeypatch) -> None:
    """The product of two values minus the mean product of kernels without a common case."""
    monkeypatch.setattr(covariances, "KERNEL_CELLS", kernel_cells)
    study = load_ratings(rated(readers=2, cases=10))
    psi = kernels(study)
    _, m, n = psi.shape
    found = figure_covariance("unbiased", PAIRS["auc"], study)
    for a in range(4):
        for b in range(4):
            apart = [
                psi[a, i, j] * psi[b, k, q]
                for i in range(m)
                for j in range(n)
                for k in range(m)
                for q in range(n)
                if i != k and j != q
            ]
            expected = psi[a].mean() * psi[b].mean() - np.mean(apart)
            assert found[a, b] == pytest.approx(expected, abs=1e-12)


def test_unbiased_over_common_cases_only(rated) -> None:
    """Two readers who share some cases: again by definition, from the full grid."""
    table = rated(readers=2, cases=14)
    first, second = table["reader"] == "R1", table["reader"] == "R2"
    study = load_ratings(table[(first & (table["case"] < 10)) | (second & (table["case"] > 3))])
    cells = list(study.cells())
    found = figure_covariance("unbiased", PAIRS["auc"], study)
    for a, x in enumerate(cells):
        for b, y in enumerate(cells):
            pairs = [
                [
                    (
                        c.case[i],
                        c.case[j],
                        float(c.rating[i] > c.rating[j]) + 0.5 * float(c.rating[i] == c.rating[j]),
                    )
                    for i in np.flatnonzero(c.truth)
                    for j in np.flatnonzero(~c.truth)
                ]
                for c in (x, y)
            ]
            apart = [
                p[2] * q[2] for p in pairs[0] for q in pairs[1] if p[0] != q[0] and p[1] != q[1]
            ]
            values = [np.mean([p[2] for p in part]) for part in pairs]
            expected = values[0] * values[1] - np.mean(apart)
            assert found[a, b] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["wafroc", "hrauc"])
def test_all_methods_estimate_one_variance_of_marks(marked, name: str) -> None:
    study = load_ratings(*marked(readers=2, cases=200))
    figure = make_figure(name, study)
    found = [np.diag(figure_covariance(method, figure, study)) for method in METHODS]
    np.testing.assert_allclose(found[0], found[1], rtol=0.02)
    np.testing.assert_allclose(found[0], found[2], rtol=0.02)


def test_the_jackknife_of_a_rate_is_its_variance(rated) -> None:
    study = load_ratings(rated())
    figure = make_figure("sensitivity@2", study)
    hits = study.rating[0, 0][study.truth] >= 2
    found = figure_covariance("jackknife", figure, study)[0, 0]
    assert found == pytest.approx(hits.var(ddof=1) / hits.size)


def test_the_jackknife_leaves_out_whole_patients(rated) -> None:
    """Each case copied: as many patients, so the same variance as without copies."""
    table = rated()
    copies = table.assign(case=table["case"] + 1000)
    both = type(table)(
        np.concatenate([table.to_numpy(), copies.to_numpy()]), columns=table.columns
    ).assign(patient=lambda t: t["case"].astype(int) % 1000)
    single, double = load_ratings(table), load_ratings(both)
    figure = PAIRS["auc"]
    np.testing.assert_allclose(figure_values(figure, double), figure_values(figure, single))
    np.testing.assert_allclose(
        figure_covariance("jackknife", figure, double),
        figure_covariance("jackknife", figure, single),
        atol=1e-14,
    )


@pytest.mark.parametrize("method", ["jackknife", "unbiased"])
def test_readers_without_a_common_case_are_not_correlated(rated, method: str) -> None:
    table = rated(readers=2, cases=40)
    apart = (table["reader"] == "R1") == (table["case"] < 20)
    study = load_ratings(table[apart])
    found = figure_covariance(method, PAIRS["auc"], study)
    assert abs(found[0, 1]) < 1e-15
    assert found[1, 3] > 1e-6


def test_ten_readers_and_500_cases_take_less_than_a_second(rated) -> None:
    study = load_ratings(rated(readers=10, cases=500, steps=0))
    begin = time.perf_counter()
    figure_covariance("jackknife", PAIRS["auc"], study)
    assert time.perf_counter() - begin < 1.0


def test_a_method_that_does_not_hold_is_refused(rated, marked) -> None:
    study = load_ratings(rated())
    auc, marks = PAIRS["auc"], load_ratings(*marked())
    assert choose_covariance(None, auc, study) == "delong"
    assert choose_covariance(None, PAIRS["wafroc"], marks) == "jackknife"
    assert choose_covariance("unbiased", PAIRS["wafroc"], marks) == "unbiased"
    with raises_code(EvaluationError, "unknown_covariance"):
        choose_covariance("bootstrap", auc, study)
    for name in ("sensitivity@2", "pauc"):
        with raises_code(EvaluationError, "covariance_not_for_figure", name):
            choose_covariance("delong", make_figure(name, study), study)
    with raises_code(EvaluationError, "covariance_not_for_figure", "afroc"):
        choose_covariance("unbiased", PAIRS["afroc"], marks)
    clustered = load_ratings(rated().assign(patient=lambda t: t["case"] // 2))
    assert choose_covariance(None, auc, clustered) == "jackknife"
    with raises_code(EvaluationError, "covariance_not_for_clusters"):
        choose_covariance("unbiased", auc, clustered)
    with raises_code(EvaluationError, "covariance_needs_crossed"):
        choose_covariance("delong", auc, load_ratings(rated().drop(index=1)))
