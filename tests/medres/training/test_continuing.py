"""More epochs on a finished run, and a budget of time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import Lines, raises_code, train_tiny_net

from medres.errors import TrainingError
from medres.training import checkpoint
from medres.training.config.options import minutes, raises_epochs, resolve_settings
from medres.training.config.recipe import recipe


def state(run: Path) -> dict[str, np.ndarray]:
    return checkpoint.read(checkpoint.latest(run / "checkpoints"))[0]


def test_a_time_budget_ends_the_run_with_a_model_and_more_epochs_continue_it(
    tiny_work: Path, tmp_path: Path
) -> None:
    """A budget that the first epoch already exceeds; the second call asks for more epochs."""
    lines, out = Lines(), tmp_path / "run"
    first = train_tiny_net(tiny_work, out, time_budget=1e-4, progress=lines)
    assert len(first.history) == 1
    assert first.artefact.exists()
    config = json.loads((out / "config.json").read_text())
    assert config["stopped"] == {"by": "time_budget", "after_epoch": 1, "minutes": 1e-4}
    assert any("time budget" in line for line in lines.lines)
    with raises_code(TrainingError, "other_run", "epochs 3, requested 2"):
        train_tiny_net(tiny_work, out, epochs=2)
    more = train_tiny_net(tiny_work, out, epochs=4, schedule="constant", progress=lines)
    assert more.history["epoch"].tolist() == [1, 2, 3, 4]
    config = json.loads((out / "config.json").read_text())
    assert "stopped" not in config
    assert (config["recipe"]["epochs"], config["continued"]) == (4, [3])
    assert any("continuing a run of 3 epochs to 4, as if" in line for line in lines.lines)


@pytest.mark.long  # five runs
def test_a_continued_run_equals_a_longer_one_where_the_rate_is_constant(
    tiny_work: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_tiny_net(tiny_work, whole, epochs=4)
    for epochs in (1, 2, 4):
        train_tiny_net(tiny_work, parts, epochs=epochs)
    a, b = state(whole), state(parts)
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert json.loads((parts / "config.json").read_text())["continued"] == [1, 2]


@pytest.mark.long  # three runs
def test_a_cosine_goes_on_where_the_longer_one_would_be_and_early_stopping_is_final(
    tiny_work: Path, tmp_path: Path
) -> None:
    lines = Lines()
    train_tiny_net(tiny_work, tmp_path / "a", epochs=2, schedule="cosine")
    more = train_tiny_net(tiny_work, tmp_path / "a", epochs=4, schedule="cosine", progress=lines)
    assert more.history["learning_rate"].tolist() == pytest.approx(
        [1e-3, 5e-4, 5e-4, 1e-3 * (1 - np.sqrt(0.5)) / 2], rel=1e-5
    )
    assert any("rises again" in line for line in lines.lines)
    options = {"patience": 1, "learning_rate": 1e-12, "monitor": "auc"}
    train_tiny_net(tiny_work, tmp_path / "b", epochs=5, **options)
    with raises_code(TrainingError, "stopped_early", "patience 1"):
        train_tiny_net(tiny_work, tmp_path / "b", epochs=9, **options)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["recipe"]["epochs"] == 5


def test_only_a_higher_number_of_epochs_continues_a_run() -> None:
    run = {"seed": 0, "recipe": {"epochs": 3, "batch_size": 8}}
    assert raises_epochs(run, {"seed": 0, "recipe": {"epochs": 4, "batch_size": 8}})
    assert not raises_epochs(run, {"seed": 0, "recipe": {"epochs": 3, "batch_size": 8}})
    assert not raises_epochs(run, {"seed": 1, "recipe": {"epochs": 4, "batch_size": 8}})
    assert not raises_epochs(run, {"seed": 0, "recipe": {"epochs": 4, "batch_size": 9}})
    assert not raises_epochs(
        run, {"seed": 0, "monitor": "auc:max", "recipe": {"epochs": 4, "batch_size": 8}}
    )
    assert not raises_epochs(
        run | {"monitor": "auc:max"}, {"seed": 0, "recipe": {"epochs": 4, "batch_size": 8}}
    )
    assert not raises_epochs({}, run)


@pytest.mark.parametrize("budget", ["soon", "0", -1, float("nan"), "3d", ""])
def test_a_time_budget_is_a_time(budget: object) -> None:
    with raises_code(TrainingError, "bad_setting"):
        minutes(budget)
    assert minutes("1.5h") == 90


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lr", "learning_rate"), ("LR", "learning_rate"), ("learning-rate", "learning_rate"),
        ("batch", "batch_size"), ("num_epochs", "epochs"), ("weight_deacy", "weight_decay"),
        ("label_smoothing", "smoothing"), ("backbone", "model"), ("callback", "callbacks"),
        ("optimiser", "optimizer"),
    ],
)  # fmt: skip
def test_a_misspelt_setting_is_answered_with_what_was_meant(name: str, meant: str) -> None:
    with raises_code(TrainingError, "unknown_setting", f"'{name}'", f"'{meant}'"):
        resolve_settings(None, {name: 1})


def test_recipes_suggest_too(tmp_path: Path) -> None:
    with raises_code(TrainingError, "bad_setting", "'learning_rate'"):
        recipe("paper", lr=0.1)
    (tmp_path / "run.json").write_text('{"recipe": {"optimizer": "sgd", "lr": 0.1}}')
    with raises_code(TrainingError, "bad_setting", "'learning_rate'"):
        resolve_settings(tmp_path / "run.json", {})
    (tmp_path / "run.json").write_text('{"recipe": {"optimizer": "sgd"}, "epochs": 4}')
    _, chosen = resolve_settings(tmp_path / "run.json", {})
    assert (chosen.optimizer, chosen.epochs) == ("sgd", 4)
