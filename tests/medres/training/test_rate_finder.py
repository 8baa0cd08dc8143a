from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import medres as command
from helpers import raises_code

import medres
from medres.errors import TrainingError
from medres.progress import ProgressReporter
from medres.training.rate_finder import RateSearch, smoothed, suggestion


def test_smoothing_is_an_average_of_the_past() -> None:
    """By hand: (0.1 * 2 + 0.09 * 1) / 0.19."""
    assert smoothed(np.array([1.0, 2.0])) == pytest.approx([1.0, (0.1 * 2 + 0.09 * 1) / 0.19])
    assert smoothed(np.full(50, 0.7)) == pytest.approx(np.full(50, 0.7))


def test_the_suggestion_is_a_tenth_of_the_rate_with_the_lowest_loss() -> None:
    rates = np.geomspace(1e-5, 1.0, 101)
    losses = np.where(rates < 1e-2, 1 - np.log10(rates / 1e-5) / 4, 50 * rates)
    search = RateSearch(rates, losses, suggestion(rates, losses))
    assert search.suggestion == pytest.approx(1.1e-3, rel=0.2)
    assert suggestion(rates, np.linspace(1, 2, 101)) is None
    assert "<polyline" in search._repr_html_()
    assert repr(search).startswith("RateSearch(101 batches")


def test_a_search_is_bounded_and_writes_no_run(tiny_work: Path, tmp_path: Path) -> None:
    before = {path.name for path in tiny_work.iterdir()}
    search = medres.find_learning_rate(
        tiny_work,
        model=keras.Sequential(
            [keras.Input((32, 32, 1)), keras.layers.Conv2D(4, 3, strides=4, activation="relu")]
        ),
        preset="xray-32",
        batch_size=8,
        steps=12,
        low=1e-5,
        high=0.1,
        progress=ProgressReporter(),
    )
    assert 2 <= len(search.rates) <= 12
    assert search.rates[:2] == pytest.approx([1e-5, 1e-5 * 10 ** (4 / 11)])
    assert np.isfinite(search.losses).all()
    assert search.losses[0] == pytest.approx(np.log(2), abs=0.5)
    assert search.save(tmp_path / "search.html").read_text().count("<svg") == 1
    assert {path.name for path in tiny_work.iterdir()} - before <= {"cache"}


@pytest.mark.parametrize("bad", [{"steps": 1001}, {"steps": 3}, {"low": 0.0}, {"low": 2.0}])
def test_ranges_that_are_none(tiny_work: Path, bad: dict) -> None:
    with raises_code(TrainingError, "bad_setting"):
        medres.find_learning_rate(tiny_work, **bad)


@pytest.mark.long  # 100 batches of the planned network
def test_the_plan_takes_the_suggestion(tiny_work: Path, tmp_path: Path) -> None:
    result = command("plan", tiny_work, "--find-learning-rate", "--out", tmp_path / "plan.yaml")
    assert result.exit_code == 0, result.output
    assert "learning_rate" in (tmp_path / "plan.yaml").read_text()
