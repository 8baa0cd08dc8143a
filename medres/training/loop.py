"""Epochs, batches and checkpoints: where a run stands is a checkpoint's content, so it can go on
from any of them, bit for bit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from data_pipelines.cache.tf_dataset import Targets, train_batches, training_steps
from data_pipelines.runtime.atomic_files import write_atomic
from medres.errors import TrainingError
from medres.progress import ProgressReporter
from medres.training import checkpoint
from medres.training.data import CompiledModel, TrainingData
from medres.training.loggers.mlflow import Tracked
from medres.training.loggers.tensorboard import Events
from medres.training.network import copy_weights
from medres.training.train_step import Trainer
from medres.training.tuning_metrics import tuning_row

SECONDS = 300.0  # between checkpoints inside an epoch
CHECK = 20  # batches between looks at the fault flag
SHOWN = 8  # images named in an error


@dataclass
class Loop:
    """One run. targets: what training makes of the labels; kept: tuning images (cache order) that
    early stopping may see.

    run: a hash of all that decides the result. every: batches between checkpoints inside an epoch;
        None: by time.
    tracked: what is told each epoch's numbers, beside TensorBoard's log.
    """

    trainer: Trainer
    net: CompiledModel
    data: TrainingData
    targets: Targets
    kept: np.ndarray
    seed: int
    run: str
    out: Path
    reporter: ProgressReporter
    every: int | None = None
    tracked: Tracked | None = None

    def __post_init__(self) -> None:
        self.recipe = self.trainer.recipe
        self.folder = self.out / "checkpoints"
        self.steps = training_steps(len(self.data.part("train")[0]), self.recipe.batch_size)
        self.state: dict[str, Any] = {"epoch": 0, "step": 0, "history": [], "run": self.run}

    def train(self) -> pd.DataFrame:
        """Train to the end, from the newest checkpoint if there is one; returns the history."""
        self._resume()
        self.listeners: list[Events | Tracked] = [Events(self.out / "logs")]
        if self.tracked:
            self.listeners.append(self.tracked)
        while self.state["epoch"] < self.recipe.epochs and not stopped(
            self.state["history"], self.recipe.patience
        ):
            self._epoch()
        for listener in self.listeners:
            listener.close()
        self._write_history()
        return pd.DataFrame(self.state["history"])

    def _resume(self) -> None:
        newest = checkpoint.latest(self.folder)
        if newest is None:
            return
        self.state = checkpoint.restore(newest, self.trainer.variables(), self.run)
        within = f", batch {self.state['step']} of {self.steps}" if self.state["step"] else ""
        self.reporter.line(f"resuming after epoch {self.state['epoch']}{within}")

    def _epoch(self) -> None:
        epoch = self.state["epoch"]
        self.trainer.open(epoch)
        if self.state["step"] == 0:
            self.trainer.reset()
        rate = float(self.trainer.optimizer.schedule(epoch * self.steps))
        begun, first = time.perf_counter(), self.state["step"]
        wait = self._batches(epoch)
        seconds = time.perf_counter() - begun
        row = {
            "epoch": epoch + 1,
            "learning_rate": rate,
            **self.trainer.means(),
            **self._measured(epoch),
        }
        row["seconds"] = round(seconds, 3)
        row["images_per_second"] = round((self.steps - first) * self.recipe.batch_size / seconds, 1)
        row["data_wait"] = round(wait / seconds, 3)
        self._finish(epoch, row)

    def _batches(self, epoch: int) -> float:
        """The rest of an epoch; returns the seconds that it waited for data."""
        source = iter(self.trainer.shared(self._data(epoch, self.state["step"])))
        wait, saved = 0.0, time.monotonic()
        clock = Clock(self, time.perf_counter(), self.state["step"])
        with self.reporter.task(f"epoch {epoch + 1}") as update:
            for number in range(self.state["step"], self.steps):
                asked = time.perf_counter()
                batch = next(source)
                wait += time.perf_counter() - asked
                self.trainer.step(batch, number)
                self.state["step"] = number + 1
                if (number + 1) % CHECK == 0:
                    self._require_sound(epoch)
                if number + 1 < self.steps and self._due(number + 1, saved):
                    self._save(epoch)
                    saved = time.monotonic()
                update(number + 1, self.steps, clock.note(wait) if self.reporter.live else "")
        self._require_sound(epoch)
        return wait

    def _data(self, epoch: int, start: int) -> tf.data.Dataset:
        return train_batches(
            self.data.cache,
            self.targets,
            self.recipe.batch_size,
            self.seed,
            epoch=epoch,
            start=start,
        )

    def _due(self, step: int, saved: float) -> bool:
        return step % self.every == 0 if self.every else time.monotonic() - saved > SECONDS

    def _save(self, epoch: int) -> None:
        self._require_sound(epoch)
        path = checkpoint.path_of(self.folder, self.state["epoch"], self.state["step"])
        checkpoint.save(path, self.trainer.variables(), self.state)
        checkpoint.keep_last(self.folder)

    def _measured(self, epoch: int) -> dict[str, float | None]:
        copy_weights(self.trainer.core, self.net.model, self.trainer.weights())
        logits = self.net.score(self.data, "tune").take(self.kept)
        if not np.isfinite(logits.scores).all():
            raise TrainingError(
                f"epoch {epoch + 1}: the logits of the tuning split are not finite; the "
                f"checkpoints before it are sound. "
                "Lower the learning rate"
            )
        return tuning_row(logits, self.data.unit)

    def _finish(self, epoch: int, row: dict[str, Any]) -> None:
        """Save the epoch: the best weights first, then the state that says so."""
        history = [*self.state["history"], row]
        self.state |= {"epoch": epoch + 1, "step": 0, "history": history}
        if row["tune_loss"] <= min(r["tune_loss"] for r in history):
            checkpoint.write(
                self.folder / checkpoint.BEST,
                self.trainer.weights(),
                {"epoch": epoch + 1, "run": self.run},
            )
        self._save(epoch)
        self._write_history()
        for listener in self.listeners:
            listener.epoch(row)
        self.reporter.line(epoch_line(row))
        if epoch == 0 and (
            text := eta_line(row["seconds"], self.recipe.epochs - 1, self.recipe.patience)
        ):
            self.reporter.line(text)

    def _write_history(self) -> None:
        write_atomic(
            self.out / "history.csv",
            pd.DataFrame(self.state["history"]).to_csv(index=False).encode(),
        )

    def _require_sound(self, epoch: int) -> None:
        """Raise TrainingError that names the first batch whose image, loss or gradient was not
        finite.
        """
        number = int(self.trainer.fault.numpy())
        if number < 0:
            return
        inputs, label, weight = next(iter(self._data(epoch, number)))
        rows = inputs["key"].numpy()[:, 1]
        parts = {"image": inputs["image"], "label": label, "weight": weight}
        bad = [
            name
            for name, values in parts.items()
            if not np.isfinite(np.asarray(values, np.float64)).all()
        ]
        what = f"its {bad[0]}s are" if bad else "its loss or gradient is"
        images = ", ".join(
            str(name)[:12] for name in self.data.cache.images["image"].iloc[rows[:SHOWN]]
        )
        advice = "ingest the data again" if bad else "lower the learning rate"
        raise TrainingError(
            f"epoch {epoch + 1}, batch {number + 1}: {what} not finite (cache rows "
            f"{', '.join(map(str, rows[:SHOWN]))}"
            f"{', ...' if len(rows) > SHOWN else ''}; images {images}). The checkpoints before it "
            f"are sound: {advice}"
        )


@dataclass
class Clock:
    """What the live line says beside the bar and the time left; made anew twice a second at
    most.
    """

    loop: Loop
    begun: float
    first: int
    text: str = ""
    told: float = 0.0

    def note(self, wait: float) -> str:
        """Loss so far, the last epoch's tuning AUC, images a second, share of time spent waiting
        for data, memory.
        """
        now = time.perf_counter()
        if now - self.told > 0.5:
            self.told, loop = now, self.loop
            auc = loop.state["history"][-1]["tune_auc"] if loop.state["history"] else None
            speed = (loop.state["step"] - self.first) * loop.recipe.batch_size / (now - self.begun)
            tuned = "" if auc is None else f"  tune AUC {auc:.3f}"
            self.text = (
                f"loss {loop.trainer.means()['loss']:.4f}{tuned}  {speed:.0f} images/s  "
                f"data wait {wait / (now - self.begun):.0%}  {memory_gib():.1f} GiB"
            )
        return self.text


def memory_gib() -> float:
    """GiB in use on the first GPU, or held by this process."""
    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["current"] / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def stopped(history: list[dict[str, Any]], patience: int) -> bool:
    """Whether the tuning loss was lowest `patience` epochs ago or earlier. A function of the
    history, so resuming cannot change it.
    """
    losses = [row["tune_loss"] for row in history]
    return bool(patience) and len(losses) - 1 - int(np.argmin(losses or [0.0])) >= patience


def eta_line(seconds: float, epochs: int, patience: int) -> str:
    """How long the epochs to come take at the pace of the first, which also compiled the step; ''
    where it is hardly a minute.
    """
    if seconds * epochs < 90:
        return ""
    length = (
        f"{seconds * epochs / 60:.0f} minutes"
        if seconds * epochs < 7200
        else f"{seconds * epochs / 3600:.1f} hours"
    )
    early = f", fewer once the tuning loss has not fallen for {patience} epochs" if patience else ""
    return (
        f"{epochs} more epochs take {length} or less at this pace{early}; stopped, the same "
        f"command goes on"
    )


def epoch_line(row: dict[str, Any]) -> str:
    """One epoch in a line."""
    parts = [f"epoch {row['epoch']:3d}  loss {row['loss']:.4f}  tune loss {row['tune_loss']:.4f}"]
    if row["tune_auc"] is not None:
        limits = (
            ""
            if row["tune_auc_low"] is None
            else f" ({row['tune_auc_low']:.3f} to {row['tune_auc_high']:.3f})"
        )
        parts.append(f"tune AUC {row['tune_auc']:.3f}{limits}")
    parts.append(
        f"{row['images_per_second']:.0f} images/s  data wait {row['data_wait']:.0%}  "
        f"{row['seconds']:.1f} s"
    )
    return "  ".join(parts)
