from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from medres.evaluate.metrics.goodness_of_fit import (
    goodness_of_fit_report,
    hosmer_lemeshow,
    spiegelhalter,
)
from medres.evaluate.results import GoodnessOfFit
from medres.evaluate.scores.sample import Sample
from medres.evaluate.serialization import to_plain


def sample_of(label, score, patient=None) -> Sample:
    label = np.asarray(label, dtype=bool)
    patient = np.arange(label.size) if patient is None else np.asarray(patient)
    return Sample(
        label, np.asarray(score, dtype=float), patient, np.zeros(label.size, dtype=np.int64)
    )


def test_hosmer_lemeshow_worked_by_hand() -> None:
    # two probabilities: .2 with 3 of 10, .8 with 7 of 10; as validation, one degree of freedom a
    # group
    sample = sample_of([1] * 3 + [0] * 7 + [1] * 7 + [0] * 3, [0.2] * 10 + [0.8] * 10)
    told = hosmer_lemeshow(sample)
    assert told.chi_square == pytest.approx(2 * (1 / 1.6))
    assert told.df == 2
    assert told.p_value == pytest.approx(stats.chi2.sf(1.25, 2))


def test_hosmer_lemeshow_matches_a_loop_over_tenths() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(1000)
    label = rng.random(1000) < score
    order, total = np.argsort(score), 0.0
    for part in np.split(order, 10):
        n, e, o = part.size, score[part].sum(), label[part].sum()
        total += (o - e) ** 2 / (e * (1 - e / n))
    assert hosmer_lemeshow(sample_of(label, score)).chi_square == pytest.approx(total)


def test_spiegelhalter_by_hand() -> None:
    label, score = [1, 0, 1, 0], [0.9, 0.2, 0.6, 0.4]
    top = sum((y - p) * (1 - 2 * p) for y, p in zip(label, score, strict=True))
    below = sum((1 - 2 * p) ** 2 * p * (1 - p) for p in score)
    told = spiegelhalter(sample_of(label, score))
    assert told.z == pytest.approx(top / math.sqrt(below))
    assert told.p_value == pytest.approx(2 * stats.norm.sf(abs(told.z)))


def test_calibrated_probabilities_are_rejected_as_often_as_said() -> None:
    rng, small = np.random.default_rng(1), {"h": 0, "s": 0}
    for _ in range(400):
        score = rng.beta(1, 3, 600)
        sample = sample_of(rng.random(600) < score, score)
        small["h"] += hosmer_lemeshow(sample).p_value < 0.05
        small["s"] += spiegelhalter(sample).p_value < 0.05
    assert all(0.02 < count / 400 < 0.085 for count in small.values())


def test_a_group_of_one_counts() -> None:
    """One unit with a probability of its own at the top."""
    sample = sample_of([0, 1] * 9 + [1], [0.3] * 18 + [0.9])
    told = hosmer_lemeshow(sample)
    assert told.df == 2
    assert told.chi_square == pytest.approx(
        (9 - 5.4) ** 2 / (5.4 * 0.7) + (1 - 0.9) ** 2 / (0.9 * 0.1)
    )


def test_left_out_with_a_reason() -> None:
    clustered = goodness_of_fit_report(sample_of([1, 0, 1, 0], [0.9, 0.2, 0.6, 0.4], [0, 0, 1, 1]))
    why = "some patients have several units, but the test assumes independent units"
    assert to_plain(clustered) == {
        "hosmer_lemeshow": {"chi_square": None, "df": None, "p_value": None, "why": why},
        "spiegelhalter": {"z": None, "p_value": None, "why": why},
    }
    edge = goodness_of_fit_report(sample_of([1, 0, 1, 0], [1.0, 0.0, 1.0, 0.0]))
    assert to_plain(edge) == {
        "hosmer_lemeshow": {
            "chi_square": None,
            "df": None,
            "p_value": None,
            "why": "the expected number of events in a group is zero or the size of the group",
        },
        "spiegelhalter": {"z": None, "p_value": None, "why": "all probabilities are 0, 0.5 or 1"},
    }
    fine = sample_of([1, 0, 1, 0], [0.9, 0.2, 0.6, 0.4])
    assert goodness_of_fit_report(fine) == GoodnessOfFit(hosmer_lemeshow(fine), spiegelhalter(fine))
