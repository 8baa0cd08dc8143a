from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import raises_code
from scipy import stats

from medres.errors import EvaluationError
from medres.evaluate import reader_study
from medres.evaluate.readers.variances.obuchowski_rockette import Components
from medres.evaluate.readers.variances.sizing import Plan, power_of, sample_sizes

PILOT = Components(0.005, 0.004, 0.0005, 0.001, 0.0002, 0.0008, 0.00035, 0.00034, 0.00024, False)
PLAN = Plan(PILOT, 114, 0.05, "rrrc", 0.95)


def test_power_is_the_formula_of_hillis_2011() -> None:
    """Equation 10, one step at a time."""
    excess = 0.0001
    interaction = 0.0005 - 0.0008 + 0.00035 + excess
    own = 114 / 200 * (0.0008 - 0.00035 - excess)
    variance = interaction + own + 114 / 200 * 6 * excess
    df = variance**2 / ((interaction + own) ** 2 / 5)
    shift = 0.05**2 * 6 / 2 / variance
    expected = stats.ncf.sf(stats.f.ppf(0.95, 1, df), 1, df, shift)
    assert power_of(PLAN, 6, 200) == pytest.approx(expected)


@pytest.mark.parametrize("analysis", ["rrrc", "frrc", "rrfc"])
def test_power_by_simulation_of_the_mean_difference(analysis: str) -> None:
    """Draw the differences of the readers with the covariance that the components state, and test
    them as the analysis does."""
    readers, n = 6, 20_000
    plan = replace(PLAN, analysis=analysis)
    draw = np.random.default_rng(0)
    excess, interaction = 0.0001, 0.00015
    own = 114 / 200 * (0.0008 - 0.00035 - excess)
    common = draw.normal(0, np.sqrt(2 * 114 / 200 * excess), (n, 1))
    of_reader = interaction * (analysis != "frrc")
    alone = draw.normal(0, np.sqrt(2 * (of_reader + own)), (n, readers))
    difference = 0.05 + alone + common * (analysis != "rrfc")
    square = difference.var(axis=1, ddof=1) / 2
    add = 114 / 200 * excess * readers * (analysis != "rrfc")
    if analysis == "frrc":
        rejected = stats.chi2.sf(readers * difference.mean(axis=1) ** 2 / 2 / (own + add), 1) < 0.05
    else:
        df = (square + add) ** 2 / (square**2 / (readers - 1))
        f = readers * difference.mean(axis=1) ** 2 / 2 / (square + add)
        rejected = stats.f.sf(f, 1, df) < 0.05
    assert power_of(plan, readers, 200) == pytest.approx(rejected.mean(), abs=0.03)


def test_the_cases_are_the_fewest_that_reach_the_power() -> None:
    found = sample_sizes(PLAN)
    assert [row.readers for row in found.rows] == list(range(3, 21))
    known = [row for row in found.rows if row.cases is not None]
    assert known
    for row in known:
        assert row.power == pytest.approx(power_of(PLAN, row.readers, row.cases))
        assert row.power >= 0.8 > power_of(PLAN, row.readers, row.cases - 1)
    cases = [row.cases for row in known]
    assert cases == sorted(cases, reverse=True)
    small = sample_sizes(replace(PLAN, effect=0.001)).rows[0]
    assert small.cases is None
    assert small.power < 0.8


def test_a_study_gives_them_for_a_stated_effect(rated) -> None:
    report = reader_study(rated(), effect=0.1)
    study = report.report.reader_study
    plan = Plan(study.components, 40, 0.1, "rrrc", 0.95)
    assert study.sample_size == sample_sizes(plan)
    assert "Sample size of a further study" in report.to_html()
    assert reader_study(rated()).numbers["reader_study"]["sample_size"] is None
    with raises_code(EvaluationError, "out_of_range"):
        reader_study(rated(), effect=5)
    for table, method in ((rated(modalities=3), "or"), (rated(), "ustat")):
        with raises_code(EvaluationError, "no_sample_size"):
            reader_study(table, effect=0.1, method=method)
