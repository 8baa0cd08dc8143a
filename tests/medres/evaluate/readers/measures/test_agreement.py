from __future__ import annotations

import numpy as np
import pytest

from medres.evaluate.readers.figures import make_figure
from medres.evaluate.readers.measures.agreement import agreement
from medres.evaluate.readers.measures.kappa import cohen_kappa, quadratic
from medres.evaluate.readers.table import load_ratings


def test_each_pair_on_the_cases_that_both_read(rated) -> None:
    table = rated()
    table = table[(table["reader"] != "R1") | (table["case"] >= 10)]
    study = load_ratings(table)
    found = agreement(study, make_figure("auc", study), 0.95)
    assert len(found.pairs) == 2 * 6
    assert found.pairs[0].kappa.n == 30
    assert found.pairs[-1].kappa.n == 40
    assert [item.fleiss.n for item in found.modalities] == [30, 30]
    levels = np.unique(table["rating"])
    assert found.categories == len(levels)
    last = found.pairs[-1]
    assert (last.a, last.b) == ("R3", "R4")
    codes = np.searchsorted(levels, study.rating[1, 2:])
    expected = cohen_kappa(codes, quadratic(len(levels)), study.patient, 0.95, "m").estimate
    assert last.weighted_quadratic.estimate == pytest.approx(expected)


def test_a_rate_splits_the_ratings_first(rated) -> None:
    study = load_ratings(rated(steps=0))
    rate = agreement(study, make_figure("sensitivity@1", study), 0.95)
    assert (rate.categories, rate.positive_at) == (2, 1.0)
    decisions = (study.rating[0] >= 1).astype(int)
    observed = np.mean(decisions[0] == decisions[1])
    p, q = decisions[0].mean(), decisions[1].mean()
    chance = p * q + (1 - p) * (1 - q)
    assert rate.pairs[0].kappa.estimate == pytest.approx((observed - chance) / (1 - chance))


def test_ratings_of_many_values_have_a_correlation_and_no_kappa(rated) -> None:
    study = load_ratings(rated(steps=0))
    found = agreement(study, make_figure("auc", study), 0.95)
    assert found.categories is None
    assert "320 different values" in found.modalities[0].fleiss.why
    assert found.pairs[0].ac1.estimate is None
    assert 0 < found.modalities[0].icc_2_1.estimate < 1


def test_cases_without_marks_are_a_category_of_their_own(marked) -> None:
    study = load_ratings(*marked())
    found = agreement(study, make_figure("wafroc", study), 0.95)
    assert found.categories == 1 + len(np.unique(study.rating[np.isfinite(study.rating)]))
    assert found.modalities[0].fleiss.bounds is not None
    assert "without marks" in found.modalities[0].icc_2_1.why


def test_one_reader_agrees_with_nobody(rated) -> None:
    study = load_ratings(rated(readers=1))
    assert agreement(study, make_figure("auc", study), 0.95) is None
