"""What makes reports of large tables fast gives the same numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medres.evaluate.metrics.partial_auc import sensitivity_at
from medres.evaluate.scores.ids import count_similar, folded
from medres.evaluate.scores.sample import Sample
from medres.evaluate.statistics import bootstrap
from medres.evaluate.statistics.bootstrap import coarsened, resampled


def drawn(n: int) -> Sample:
    rng = np.random.default_rng(0)
    label = rng.random(n) < 0.3
    return Sample(label, rng.normal(size=n) + label, np.arange(n), np.zeros(n, dtype=np.int64))


def test_equal_neighbors_move_a_rate_by_less_than_a_step(monkeypatch) -> None:
    sample = drawn(5000)
    assert coarsened(sample) is sample
    monkeypatch.setattr(bootstrap, "MAX_STEPS", 500)
    coarse = coarsened(sample)
    assert 400 < np.unique(coarse.score).size <= 500
    assert (coarse.score <= sample.score).all()
    gap = sensitivity_at(sample.counts, 0.9) - sensitivity_at(coarse.counts, 0.9)
    assert 0.0 <= gap < 0.02


def test_multinomial_counts_have_the_spread_of_drawn_patients(monkeypatch) -> None:
    sample, statistic = drawn(2000), {"rate": lambda counts: sensitivity_at(counts, 0.9)}
    patients = resampled(sample, statistic, 600)["rate"]
    monkeypatch.setattr(bootstrap, "LARGE", 1000)
    counts = resampled(sample, statistic, 600)["rate"]
    assert counts.mean() == pytest.approx(patients.mean(), abs=0.005)
    assert counts.std() == pytest.approx(patients.std(), rel=0.15)


@pytest.mark.parametrize(
    ("ids", "similar"),
    [
        (["P01", "P02", "P10"], 0),
        (["P1", "P01", "P2"], 2),
        (["1", "2", "10"], 0),
        (["a1b007", "a1b7", "a1b70"], 2),
        (["x", "X", "y"], 2),
        (["a\n01", "a\n1"], 2),
        (["10 05", "10 5", "1005"], 2),
        ([], 0),
    ],
)
def test_similar_ids_are_counted_as_one_by_one(ids: list[str], similar: int) -> None:
    series = pd.Series(ids, dtype="str")
    assert count_similar(series) == int(series.map(folded).duplicated(keep=False).sum())
    assert count_similar(series) == similar
