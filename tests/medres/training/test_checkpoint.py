from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import raises_code

from medres.errors import TrainingError
from medres.training import checkpoint


def groups(units: int = 3) -> dict:
    rng = np.random.default_rng(units)
    return {
        "model": [keras.Variable(rng.normal(size=(4, units))), keras.Variable(np.ones(units))],
        "optimizer": [keras.Variable(7, dtype="int64", trainable=False)],
    }


def values(variables: dict) -> list[np.ndarray]:
    return [v.numpy() for group in variables.values() for v in group]


def test_restored_variables_are_bit_equal(tmp_path: Path) -> None:
    first, second = groups(), groups()
    first["model"][0].assign(np.full((4, 3), np.float32(1) / 3))
    checkpoint.save(tmp_path / "a.npz", first, {"epoch": 1, "run": "r"})
    assert checkpoint.restore(tmp_path / "a.npz", second, "r") == {"epoch": 1, "run": "r"}
    assert all((a == b).all() for a, b in zip(values(first), values(second), strict=True))


def test_another_model_another_run_and_a_broken_file_are_refused_and_change_nothing(
    tmp_path: Path,
) -> None:
    path, variables = tmp_path / "a.npz", groups(4)
    before = values(variables)
    checkpoint.save(path, groups(), {"run": "r"})
    with raises_code(TrainingError, "other_run", "model"):
        checkpoint.restore(path, variables, "r")
    with raises_code(TrainingError, "other_run"):
        checkpoint.restore(path, groups(), "s")
    path.write_bytes(path.read_bytes()[:200])
    with raises_code(TrainingError, "unreadable_checkpoint"):
        checkpoint.restore(path, groups(), "r")
    assert all((a == b).all() for a, b in zip(before, values(variables), strict=True))


def test_the_last_k_are_kept_and_names_sort_by_time(tmp_path: Path) -> None:
    for epoch in range(12):
        for step in (0, 5, 1000):
            checkpoint.path_of(tmp_path, epoch, step).touch()
    (tmp_path / checkpoint.BEST).touch()
    checkpoint.keep_last(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.npz", "epoch-0011-step-0000005.npz", "epoch-0011-step-0001000.npz",
    ]  # fmt: skip
    assert checkpoint.latest(tmp_path) == checkpoint.path_of(tmp_path, 11, 1000)


def test_a_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path / "a.npz", groups(), {"run": "r", "epoch": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path / "a.npz", groups(), {"run": "r", "epoch": 2})
    monkeypatch.undo()
    assert checkpoint.restore(tmp_path / "a.npz", groups(), "r")["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_nothing_that_is_not_finite_is_saved(tmp_path: Path) -> None:
    bad = groups()
    bad["model"][1].assign([1.0, np.nan, 1.0])
    with raises_code(TrainingError, "not_finite"):
        checkpoint.save(tmp_path / "a.npz", bad, {"run": "r"})
    assert list(tmp_path.iterdir()) == []
