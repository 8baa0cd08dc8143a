from __future__ import annotations

import pytest
from helpers import raises_code

from medres.errors import TrainingError
from medres.training.loop import should_stop
from medres.training.monitoring.best_epoch import LOSS, Monitor, monitor_named, saved_monitor

HISTORY = [
    {"tune_loss": 0.7, "tune_auc": None, "tune_cut": 3.0},
    {"tune_loss": 0.5, "tune_auc": 0.8, "tune_cut": 1.0},
    {"tune_loss": 0.6, "tune_auc": 0.9, "tune_cut": 2.0},
    {"tune_loss": 0.4, "tune_auc": 0.9, "tune_cut": float("nan")},
]


@pytest.mark.parametrize(
    ("name", "best"), [("loss", 3), ("auc", 3), ("val_auc", 3), ("cut:min", 1), ("cut:max", 0)]
)
def test_the_best_epoch_by_each_quantity(name: str, best: int) -> None:
    """Equal AUCs are ranked by the loss; an undefined value is never the best."""
    monitor = monitor_named(name, {"cut": None})
    assert monitor.first_best(HISTORY) == best
    assert [monitor.last_is_best(HISTORY[:n]) for n in (1, 2, 3, 4)][best]
    assert saved_monitor({"monitor": monitor.setting}) == monitor
    assert saved_monitor({}) == LOSS


def test_names_that_do_not_exist_are_refused_with_those_that_do() -> None:
    with raises_code(TrainingError, "unknown_monitor", "'f2'", "loss, auc, cut"):
        monitor_named("f2", {"cut": "max"})
    with raises_code(TrainingError, "unknown_direction", "cut:max"):
        monitor_named("cut", {"cut": None})
    with raises_code(TrainingError, "unknown_direction", "'loss'"):
        monitor_named("loss:max", {})
    assert monitor_named("cut", {"cut": "max"}) == Monitor("tune_cut", "max")


def test_early_stopping_counts_by_the_monitor() -> None:
    auc = monitor_named("auc", {})
    history = [
        {"tune_loss": loss, "tune_auc": auc_value}
        for loss, auc_value in ((0.9, 0.5), (0.8, 0.7), (0.7, 0.6), (0.6, 0.6))
    ]
    assert should_stop(history, 2, auc)
    assert not should_stop(history, 2)
