"""Published worked examples: small data typed in from print, with the printed results."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from medres.evaluate.analyses.model_comparison import paired_difference
from medres.evaluate.analyses.paired_rates import global_test, tango
from medres.evaluate.metrics.auc import auc_estimates
from medres.evaluate.metrics.roc import auc_covariance, placements
from medres.evaluate.scores.sample import Sample
from medres.evaluate.statistics.intervals import normal_quantile

# 43 patients with ovarian cancer and a bowel obstruction (DeLong, DeLong & Clarke-Pearson 1988,
# Biometrics 44:837; the
# complete cases as printed in the SAS/STAT User's Guide, LOGISTIC, "Comparing ROC Curves"):
# albumin, total protein, K-G
# score, and whether surgery did any good
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0
1.6 5.6 5 1  3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1
4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1
3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1
3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1
3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1
3.6 6.6 5 1
"""


def ovarian() -> dict[str, Sample]:
    albumin, protein, score, good = np.array(OVARIAN.split(), dtype=float).reshape(-1, 4).T
    n = good.size
    return {
        name: Sample(good == 1.0, values, np.arange(n), np.zeros(n, dtype=np.int64))
        for name, values in (("albumin", albumin), ("protein", protein), ("k-g", -score))
    }


@pytest.mark.parametrize(
    ("name", "area", "error", "low", "high"),
    [
        ("albumin", 0.7366, 0.0927, 0.5549, 0.9182),
        ("k-g", 0.7258, 0.1028, 0.5243, 0.9273),
        ("protein", 0.6478, 0.1000, 0.4518, 0.8439),
    ],
)
def test_delong_areas(name: str, area: float, error: float, low: float, high: float) -> None:
    sample = ovarian()[name]
    e = auc_estimates(sample, 0.95).auc_wald
    assert (e.estimate, e.ci_low, e.ci_high) == pytest.approx((area, low, high), abs=5e-5)
    assert math.sqrt(auc_covariance([placements(sample)])[0, 0]) == pytest.approx(error, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "difference", "low", "high", "chi_square"),
    [("albumin", 0.0108, -0.1761, 0.1976, 0.0127), ("protein", -0.0780, -0.2830, 0.1271, 0.5554)],
)
def test_delong_differences_from_the_k_g_score(
    name: str, difference: float, low: float, high: float, chi_square: float
) -> None:
    samples = ovarian()
    e, p_value = paired_difference(samples[name], samples["k-g"], 0.95)
    assert (e.estimate, e.ci_low, e.ci_high) == pytest.approx((difference, low, high), abs=6e-5)
    assert p_value == pytest.approx(stats.chi2.sf(chi_square, 1), abs=5e-4)


def test_delong_global_test_of_three_areas() -> None:
    told = global_test(list(ovarian().values()))
    assert (told.chi_square, told.df, told.p_chi_square) == (
        pytest.approx(2.5340, abs=5e-5), 2, pytest.approx(0.2817, abs=5e-5)
    )  # fmt: skip


def test_subarachnoid_haemorrhage() -> None:
    """WFNS grade by outcome at six months (Turck et al. 2010, Intensive Care Med 36:107): area
    .8237 (.7485 to .8988) as printed by pROC (Robin et al. 2011, BMC Bioinformatics 12:77).
    """
    good, poor = (37, 20, 3, 8, 4), (2, 12, 1, 8, 18)
    grade = np.concatenate([np.repeat(np.arange(5.0), good), np.repeat(np.arange(5.0), poor)])
    sample = Sample(
        np.repeat([False, True], [72, 41]), grade, np.arange(113), np.zeros(113, dtype=np.int64)
    )
    e = auc_estimates(sample, 0.95).auc_wald
    assert (e.estimate, e.ci_low, e.ci_high) == pytest.approx((0.8237, 0.7485, 0.8988), abs=5e-5)


@pytest.mark.parametrize(
    ("only_a", "only_b", "n", "level", "low", "high", "digits"),
    [
        # airway hyper-responsiveness before and after stem cell transplantation (Bentur et al.
        # 2009), Tango's interval as in
        # Fagerland, Lydersen & Laake 2014, Statistics in Medicine 33:2850
        (1, 7, 21, 0.95, -0.517, -0.026, 5e-4),
        # scoreci.mp of the R package PropCIs
        (28, 25, 618, 0.90, -0.0148, 0.0247, 5e-5),
        (48, 41, 549, 0.90, -0.0157, 0.0414, 5e-5),
    ],
)
def test_tango(
    only_a: int, only_b: int, n: int, level: float, low: float, high: float, digits: float
) -> None:
    assert tango(only_a, only_b, n, normal_quantile(level)) == pytest.approx(
        (low, high), abs=digits
    )
