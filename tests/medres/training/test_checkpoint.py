from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from medres.errors import TrainingError
from medres.training import checkpoint


def model(units: int = 3) -> keras.Model:
    image = keras.Input((4,))
    made = keras.Model(image, keras.layers.Dense(units)(keras.layers.BatchNormalization()(image)))
    made.compile(keras.optimizers.AdamW(1e-2), "mse")
    made.optimizer.build(made.trainable_variables)
    return made


def step(trained: keras.Model, units: int = 3) -> None:
    rng = np.random.default_rng(0)
    trained.train_on_batch(rng.normal(size=(8, 4)), rng.normal(size=(8, units)))


def test_restored_variables_are_bit_equal_and_go_on_alike(tmp_path: Path) -> None:
    first, second = model(), model()
    step(first)
    checkpoint.save(tmp_path / "a.npz", first, {"epoch": 1})
    assert checkpoint.restore(tmp_path / "a.npz", second) == {"epoch": 1}
    for trained in (first, second):
        step(trained)
    for a, b in zip(
        [*first.variables, *first.optimizer.variables], [*second.variables, *second.optimizer.variables], strict=True
    ):
        assert (np.asarray(a) == np.asarray(b)).all()


def test_another_model_and_a_broken_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    checkpoint.save(path, model(), {})
    with pytest.raises(TrainingError, match="another model"):
        checkpoint.restore(path, model(4))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TrainingError, match="cannot be read"):
        checkpoint.restore(path, model())


def test_the_last_k_are_kept(tmp_path: Path) -> None:
    for epoch in range(1, 12):
        (tmp_path / f"epoch-{epoch:04d}.npz").touch()
    (tmp_path / "best.npz").touch()
    checkpoint.keep_last(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.npz", "epoch-0010.npz", "epoch-0011.npz"]
    assert checkpoint.latest(tmp_path) == tmp_path / "epoch-0011.npz"


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = model()
    checkpoint.save(tmp_path / "a.npz", trained, {"epoch": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path / "a.npz", trained, {"epoch": 2})
    monkeypatch.undo()
    assert checkpoint.restore(tmp_path / "a.npz", trained) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
