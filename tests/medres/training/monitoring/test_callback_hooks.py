"""Keras callbacks in `medres.train`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import Lines, raises_code, train_tiny_net

from medres.errors import TrainingError
from medres.training import checkpoint
from medres.training.loop import Loop
from medres.training.monitoring.callback_hooks import CallbackHooks, check_callbacks


class Halving(keras.callbacks.Callback):
    """Halves the learning rate every second batch, counted over the whole run."""

    def __init__(self) -> None:
        super().__init__()
        self.batches, self.calls = 0, []

    def state_dict(self) -> dict:
        return {"batches": self.batches}

    def load_state_dict(self, state: dict) -> None:
        self.batches = state["batches"]

    def on_train_begin(self, logs=None) -> None:
        self.calls.append("train")

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.calls.append(f"epoch {epoch}")

    def on_train_batch_end(self, batch, logs=None) -> None:
        assert logs["loss"] > 0
        self.calls.append(batch)
        self.batches += 1
        if self.batches % 2 == 0:
            self.model.optimizer.learning_rate = self.model.optimizer.learning_rate * 0.5


def final_arrays(run: Path) -> dict[str, np.ndarray]:
    return checkpoint.read(checkpoint.latest(run / "checkpoints"))[0]


@pytest.fixture(scope="module")
def halved(tiny_work: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Halving]:
    out, callback = tmp_path_factory.mktemp("halved") / "run", Halving()
    train_tiny_net(tiny_work, out, callbacks=[callback])
    return out, callback


def test_hooks_run_in_order_and_may_set_the_rate(halved: tuple[Path, Halving]) -> None:
    out, callback = halved
    assert callback.calls == ["train", "epoch 0", 0, 1, "epoch 1", 0, 1, "epoch 2", 0, 1]
    assert callback.params == {"verbose": 0, "epochs": 3, "steps": 2}
    rates = pd.read_csv(out / "history.csv")["learning_rate"]
    assert rates.tolist() == pytest.approx([1e-3, 5e-4, 2.5e-4], rel=1e-6)


def test_resume_with_a_stateful_callback_is_bit_exact(
    tiny_work: Path, tmp_path: Path, halved: tuple[Path, Halving], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the first batch of the second epoch; then a callback without a state is there
    too, and is named.
    """
    real = Loop._save

    def dies(loop: Loop, epoch: int) -> None:
        real(loop, epoch)
        if (loop.state["epoch"], loop.state["step"]) == (1, 1):
            raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "_save", dies)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_tiny_net(tiny_work, out, callbacks=[Halving()])
    monkeypatch.undo()
    resumed, lines = Halving(), Lines()
    begun: list[int] = []
    other = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))
    train_tiny_net(tiny_work, out, progress=lines, callbacks=[other, resumed])
    assert resumed.calls == ["train", 1, "epoch 2", 0, 1]
    assert begun == [1, 2]
    assert any("LambdaCallback" in line and "Halving" not in line for line in lines.lines)
    expected, found = final_arrays(halved[0]), final_arrays(out)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not np.array_equal(expected[name], found[name])] == []
    columns = ["epoch", "learning_rate", "loss", "tune_loss", "tune_auc"]
    a, b = (pd.read_csv(run / "history.csv")[columns] for run in (halved[0], out))
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_callbacks_of_keras_and_a_stop(tiny_work: Path, tmp_path: Path) -> None:
    """ReduceLROnPlateau lowers the rate, CSVLogger and ModelCheckpoint write, EarlyStopping ends
    the run; a metric that cannot improve is what they watch.
    """
    never = keras.metrics.MeanMetricWrapper(lambda y, p: 0.0 * p, name="never")
    run = train_tiny_net(
        tiny_work,
        tmp_path / "run",
        epochs=9,
        metrics=["accuracy", never],
        monitor="accuracy",
        callbacks=[
            keras.callbacks.ReduceLROnPlateau("val_never", factor=0.1, patience=1, mode="min"),
            keras.callbacks.EarlyStopping("val_never", patience=2, mode="min"),
            keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
            keras.callbacks.ModelCheckpoint(str(tmp_path / "last.keras")),
        ],
    )
    assert len(run.history) == 3
    assert run.history["learning_rate"].tolist() == pytest.approx([1e-3, 1e-3, 1e-4])
    log = pd.read_csv(tmp_path / "log.csv")
    assert log["val_accuracy"].tolist() == pytest.approx(run.history["tune_accuracy"].tolist())
    best = run.history["tune_accuracy"].iloc[run.best_epoch - 1]
    assert best == run.history["tune_accuracy"].max()
    config = json.loads((run.out / "config.json").read_text())
    assert config["monitor"] == "accuracy:max"
    assert config["stopped"] == {"by": "callback", "after_epoch": 3}
    saved = keras.saving.load_model(tmp_path / "last.keras")
    assert getattr(saved, "optimizer", None) is None
    assert saved.output_shape == (None, 1)


@pytest.mark.long  # two runs
def test_a_callback_that_raises_shows_its_own_exception_and_leaves_a_run_that_resumes(
    tiny_work: Path, tmp_path: Path, halved: tuple[Path, Halving]
) -> None:
    class Breaks(Halving):
        def on_epoch_end(self, epoch, logs=None) -> None:
            if epoch == 1:
                raise LookupError("mine")

    Breaks.__name__ = "Halving"
    out = tmp_path / "run"
    with pytest.raises(LookupError, match="mine"):
        train_tiny_net(tiny_work, out, callbacks=[Breaks()])
    assert not (out / "model.keras").exists()
    assert len(pd.read_csv(out / "history.csv")) == 1
    assert list(out.rglob("*.tmp")) == []
    train_tiny_net(tiny_work, out, callbacks=[Halving()])
    expected, found = final_arrays(halved[0]), final_arrays(out)
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(
    ("callbacks", "schedule", "code"),
    [
        ([keras.callbacks.BackupAndRestore("backup")], "constant", "backup_and_restore"),
        ([keras.callbacks.SwapEMAWeights()], "constant", "swap_ema_weights"),
        (
            [keras.callbacks.EarlyStopping(restore_best_weights=True)],
            "cosine",
            "restore_best_weights",
        ),
        ([keras.callbacks.ReduceLROnPlateau()], "cosine", "schedule_not_constant"),
        (
            [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate)],
            "steps",
            "schedule_not_constant",
        ),
        ([print], "cosine", "bad_callbacks"),
        (keras.callbacks.CSVLogger("log.csv"), "cosine", "bad_callbacks"),
    ],
)
def test_what_cannot_work_is_refused_by_name(callbacks: object, schedule: str, code: str) -> None:
    with raises_code(TrainingError, code):
        check_callbacks(callbacks, schedule)
    check_callbacks(
        [keras.callbacks.EarlyStopping(), keras.callbacks.ReduceLROnPlateau()], "constant"
    )


@pytest.mark.long  # two runs
def test_the_rate_of_a_schedule_cannot_be_set_and_a_state_must_be_json(
    tiny_work: Path, tmp_path: Path
) -> None:
    with raises_code(TrainingError, "schedule_not_constant", "cosine"):
        train_tiny_net(tiny_work, tmp_path / "a", schedule="cosine", callbacks=[Halving()])

    class Unsaved(Halving):
        def state_dict(self) -> dict:
            return {"weights": np.zeros(2)}

    with raises_code(TrainingError, "callback_state", "Unsaved"):
        train_tiny_net(tiny_work, tmp_path / "b", callbacks=[Unsaved()])


TENSORBOARD = """
import sys, keras, medres
medres.train(sys.argv[1], model="resnet10", preset="xray-32", width=8, epochs=2,
             callbacks=[keras.callbacks.TensorBoard(sys.argv[2] + "/board")], out=sys.argv[2])
"""


@pytest.mark.long  # a process with TensorFlow: TensorBoard's writers stay open in this one
def test_tensorboard(tiny_work: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    subprocess.run(
        [sys.executable, "-c", TENSORBOARD, str(tiny_work), str(tmp_path / "run")],
        check=True,
        env=os.environ,
    )
    assert list((tmp_path / "run" / "board" / "validation").glob("events*"))


def test_keras_finds_the_direction_of_what_it_watches() -> None:
    """Without it, EarlyStopping("val_auc") raises, and ModelCheckpoint keeps the wrong file."""
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    stop = keras.callbacks.EarlyStopping("val_auc", patience=1)
    hooks = CallbackHooks([stop], net, None, 9, 1, {"loss": "min", "auc": "max"})
    hooks.begin(None, None, Lines())
    stopped = []
    for epoch, auc in enumerate((0.5, 0.6, 0.7, 0.6)):
        row = {"loss": 1.0, "learning_rate": 0.1, "tune_loss": 1.0, "tune_auc": auc}
        hooks.epoch_end(epoch, row)
        stopped.append(hooks.wants_stop)
    assert stopped == [False, False, False, True]
