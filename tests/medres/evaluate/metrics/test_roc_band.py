from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import raises_code

from medres.errors import EvaluationError
from medres.evaluate.metrics.partial_auc import RANGES, partial_auc
from medres.evaluate.metrics.roc_band import roc_band
from medres.evaluate.options import make_options
from medres.evaluate.scores.sample import Sample, rank_counts


def drawn(n: int, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    label = np.arange(2 * n) % 2 == 0
    score = rng.random(2 * n) ** np.where(label, 0.5, 1.0)  # F1 = x^2, F0 = x
    return Sample(label, score, np.arange(2 * n), np.zeros(2 * n, dtype=np.int64))


def test_half_widths_by_hand() -> None:
    band = roc_band(drawn(50), 0.95)
    assert band.sensitivity == pytest.approx(math.sqrt(math.log(80.0) / 100.0))
    assert band.specificity == band.sensitivity
    assert "simultaneous" in band.method
    one_class = drawn(5).take(np.arange(10) % 2 == 0)
    assert roc_band(one_class, 0.95) is None


def test_the_whole_true_curve_lies_in_the_band() -> None:
    """Sensitivity 1 - c^2 and 1 - specificity 1 - c at a threshold c."""
    held = 0
    for seed in range(200):
        sample = drawn(40, seed)
        band = roc_band(sample, 0.95)
        cuts = np.linspace(0, 1, 201)
        tpr = np.array([(sample.score[sample.label] >= c).mean() for c in cuts])
        fpr = np.array([(sample.score[~sample.label] >= c).mean() for c in cuts])
        held += bool(
            (abs(tpr - (1 - cuts**2)) <= band.sensitivity).all()
            and (abs(fpr - (1 - cuts)) <= band.specificity).all()
        )
    assert held >= 186  # 95 % less three standard errors


def options(ranges: object):
    return make_options(
        ("x",),
        level=0.95,
        margin=None,
        prevalence=None,
        design=None,
        subgroups=(),
        exact=False,
        partial_auc=ranges,
    )


def test_ranges_of_the_partial_auc_are_chosen() -> None:
    assert options(None).partial_auc == RANGES
    chosen = options(["specificity:0.9:1", "sensitivity:0.5:0.75"]).partial_auc
    assert chosen == (("specificity", 0.9, 1.0), ("sensitivity", 0.5, 0.75))
    for bad in ("specificity:0.9", "ppv:0:1", "specificity:1:0.9", "specificity:a:1"):
        with raises_code(EvaluationError, "partial_auc_range", bad):
            options([bad])
    counts = rank_counts(np.array([True, True, False, False]), np.array([0.9, 0.4, 0.6, 0.1]))
    assert partial_auc(counts, "specificity", 0.5, 1.0) == pytest.approx(0.25)
