"""The training loop: epochs, batches, checkpoints and early stopping. A checkpoint holds the whole
state of a run, so that training resumes from it bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from data_pipelines.cache.tf_dataset import Targets, train_batches, training_steps
from data_pipelines.runtime.atomic_files import write_atomic
from medres.errors import TrainingError
from medres.progress import ProgressReporter
from medres.training import checkpoint
from medres.training.data import CompiledModel, TrainingData
from medres.training.distributed.scoring import score_together
from medres.training.distributed.team import Team
from medres.training.loggers.mlflow import MlflowLogger
from medres.training.loggers.tensorboard import TensorBoardLogger
from medres.training.monitoring.best_epoch import BUILT_IN, HEADLINES, LOSS, Monitor
from medres.training.monitoring.callback_hooks import CallbackHooks
from medres.training.monitoring.split_metrics import SplitMetrics
from medres.training.network import copy_weights
from medres.training.train_step import Trainer
from medres.training.tuning_metrics import tuning_row

CHECKPOINT_SECONDS = 300.0  # between checkpoints within an epoch
FINITE_CHECK_STEPS = 20  # batches between checks for values that are not finite
MAX_NAMED = 8  # images in an error message

Row = dict[str, Any]  # of history.csv: float, or None where a metric is undefined


@dataclass
class Loop:
    """The loop of one run.

    trainer: the model that trains. evaluated: its float32 copy, which is evaluated and served.
    targets: of training, see `training_targets`.
    tune_mask: (n,) bool, tuning images in cache order that early stopping uses.
    run_hash: of everything that determines the result.
    checkpoint_steps: batches between checkpoints within an epoch; None: five minutes.
    mlflow: receives the metrics of each epoch, like the TensorBoard log.
    earlier_runs: hashes of this run with fewer epochs, whose checkpoints it continues.
    callbacks: of Keras, checked. monitor: chooses the saved epoch. metrics: of the tuning split.
    time_budget: seconds after which no further epoch is begun; None: no limit.
    tuned: the metrics of the tuning split for the evaluated model and an epoch, where they are not
        those of a classifier.
    team: the workers that train together; the chief decides and writes.
    """

    trainer: Trainer
    evaluated: CompiledModel
    data: TrainingData
    targets: Targets
    tune_mask: np.ndarray
    seed: int
    run_hash: str
    out: Path
    reporter: ProgressReporter
    checkpoint_steps: int | None = None
    mlflow: MlflowLogger | None = None
    earlier_runs: tuple[str, ...] = ()
    callbacks: Sequence[keras.callbacks.Callback] = ()
    monitor: Monitor = LOSS
    metrics: SplitMetrics | None = None
    time_budget: float | None = None
    tuned: Callable[[CompiledModel, int], Row] | None = None
    team: Team = field(default_factory=Team)

    def __post_init__(self) -> None:
        self.recipe = self.trainer.recipe
        self.folder = self.out / "checkpoints"
        self.steps = training_steps(len(self.data.rows("train")), self.recipe.batch_size)
        self.state: dict[str, Any] = {"epoch": 0, "step": 0, "history": [], "run": self.run_hash}
        self.hooks = CallbackHooks(
            self.callbacks,
            self.evaluated.model,
            self.trainer.optimizer,
            self.recipe.epochs,
            self.steps,
            BUILT_IN | (self.metrics.directions if self.metrics else {}),
        )

    def train(self) -> pd.DataFrame:
        """Train to the end, from the newest checkpoint if there is one. Returns the history, one
        row per epoch. `stopped` then says why it ended early: "callback", "time_budget" or None.
        """
        start = time.monotonic()
        resumed = self._resume()
        self.loggers: list[TensorBoardLogger | MlflowLogger] = []
        if self.team.is_chief:
            self.loggers.append(TensorBoardLogger(self.out / "logs"))
        if self.mlflow:
            self.loggers.append(self.mlflow)
        self.stopped: str | None = self.state.get("stopped")
        if self._unfinished():
            self._begin_callbacks(resumed)
            while self._unfinished():
                begun = time.monotonic()
                self._train_epoch()
                if self.team.is_chief:
                    self._check_budget(start, begun)
                self.stopped = self.team.share(self.stopped)
            self.hooks.end()
        for logger in self.loggers:
            logger.close()
        self._write_history()
        return pd.DataFrame(self.state["history"])

    def _unfinished(self) -> bool:
        return (
            self.stopped is None
            and self.state["epoch"] < self.recipe.epochs
            and not should_stop(self.state["history"], self.recipe.patience, self.monitor)
        )

    def _check_budget(self, start: float, begun: float) -> None:
        """Stop if an epoch like the last one would end after the time budget. start: of this call,
        begun: of the last epoch, both time.monotonic().
        """
        now = time.monotonic()
        if self.time_budget is None or not self._unfinished():
            return
        if (now - start) + (now - begun) > self.time_budget:
            self.stopped = "time_budget"
            self.reporter.line(
                f"stopped after epoch {self.state['epoch']} of {self.recipe.epochs}: another epoch "
                f"would exceed the time budget of {self.time_budget / 60:g} minutes; the same "
                f"command goes on"
            )

    def _resume(self) -> bool:
        """Load the newest checkpoint. Returns whether there is one."""
        newest = checkpoint.latest(self.folder) if self.team.is_chief else None
        with self.team.copy_of(newest) as file:
            if file is None:
                return False
            self.state = checkpoint.restore(
                file, self.trainer.variables(), self.run_hash, *self.earlier_runs
            )
        if self.state["run"] != self.run_hash:
            self.state.pop("stopped", None)  # a callback ended the shorter run
        self.state["run"] = self.run_hash
        within = f", batch {self.state['step']} of {self.steps}" if self.state["step"] else ""
        self.reporter.line(f"resuming after epoch {self.state['epoch']}{within}")
        return True

    def _begin_callbacks(self, resumed: bool) -> None:
        self.follows_each_batch = self.team.share(self.hooks.has_batch_hooks)
        copy_weights(self.trainer.model, self.evaluated.model, self.trainer.weights())
        within = self.state["epoch"] if self.state["step"] else None
        saved = self.state.get("callbacks", []) if resumed and self.team.is_chief else None
        self.hooks.begin(saved, within, self.reporter)
        if "rate" in self.state:
            self.trainer.optimizer.learning_rate = self.state["rate"]
        self._follow_chief()

    def _train_epoch(self) -> None:
        epoch, first_step = self.state["epoch"], self.state["step"]
        self.trainer.begin_epoch(epoch)
        if first_step == 0:
            self.trainer.reset_means()
            self.hooks.epoch_begin(epoch)
            self._follow_chief()
        learning_rate = float(self.trainer.optimizer.schedule(epoch * self.steps))
        start = time.perf_counter()
        wait = self._train_batches(epoch)
        seconds = time.perf_counter() - start
        images = (self.state["step"] - first_step) * self.recipe.batch_size
        row = {
            "epoch": epoch + 1,
            "learning_rate": learning_rate,
            **self.trainer.means(),
            **self._tuning_metrics(epoch),
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 1),
            "data_wait": round(wait / seconds, 3),
        }
        self._finish_epoch(epoch, self.team.share(row))

    def _train_batches(self, epoch: int) -> float:
        """Train on the rest of an epoch. Returns the seconds that it waited for data."""
        first = self.state["step"]
        batches = iter(
            self.trainer.distribute(lambda context: self._batches(epoch, first, context))
        )
        wait, saved = 0.0, time.monotonic()
        status = StatusLine(self, time.perf_counter(), self.state["step"])
        with self.reporter.task(f"epoch {epoch + 1}") as update:
            for number in range(self.state["step"], self.steps):
                requested = time.perf_counter()
                batch = next(batches)
                wait += time.perf_counter() - requested
                self.hooks.batch_begin(number)
                self.trainer.step(batch, number)
                self.hooks.batch_end(number, self.trainer.means)
                if self.follows_each_batch:
                    self._follow_chief()
                self.state["step"] = number + 1
                if self.hooks.wants_stop:
                    break
                if (number + 1) % FINITE_CHECK_STEPS == 0:
                    self._require_finite(epoch)
                if number + 1 < self.steps and self._due(number + 1, saved):
                    self._save(epoch)
                    saved = time.monotonic()
                update(number + 1, self.steps, status.note(wait) if self.reporter.live else "")
        self._require_finite(epoch)
        return wait

    def _follow_chief(self) -> None:
        """What the callbacks of the chief have set: the end of training, and the learning rate."""
        if self.team.size == 1:
            return
        optimizer = self.trainer.optimizer
        constant = self.recipe.schedule == "constant"
        rate = float(optimizer.learning_rate.numpy()) if constant else None
        stops, rate = self.team.share([self.hooks.wants_stop, rate])
        self.hooks.model.stop_training = stops
        if constant:
            optimizer.learning_rate = rate

    def _batches(
        self, epoch: int, start: int, context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        return train_batches(
            self.data.cache,
            self.targets,
            self.recipe.batch_size,
            self.seed,
            epoch=epoch,
            start=start,
            context=context,
        )

    def _due(self, step: int, saved: float) -> bool:
        """Whether a checkpoint within the epoch is due. saved: time of the last one, monotonic."""
        if self.checkpoint_steps:
            return step % self.checkpoint_steps == 0
        return time.monotonic() - saved > CHECKPOINT_SECONDS

    def _save(self, epoch: int) -> None:
        self._require_finite(epoch)
        if not self.team.is_chief:
            return
        if self.callbacks:
            self.state["callbacks"] = self.hooks.states()
            if self.recipe.schedule == "constant":
                self.state["rate"] = float(self.trainer.optimizer.learning_rate.numpy())
        path = checkpoint.path_of(self.folder, self.state["epoch"], self.state["step"])
        checkpoint.save(path, self.trainer.variables(), self.state)
        checkpoint.keep_last(self.folder)

    def _tuning_metrics(self, epoch: int) -> dict[str, float | None]:
        copy_weights(self.trainer.model, self.evaluated.model, self.trainer.weights())
        if self.tuned is not None:
            return self.tuned(self.evaluated, epoch) if self.team.is_chief else {}
        scored = score_together(self.team, self.evaluated, self.data, "tune")
        if scored is None:
            return {}
        logits = scored.take(self.tune_mask)
        if not np.isfinite(logits.scores).all():
            raise TrainingError(
                f"epoch {epoch + 1}: the logits of the tuning split are not finite. Earlier "
                f"checkpoints are valid. Lower the learning rate and train into a new folder",
                code="not_finite",
            )
        row = tuning_row(logits, self.data.unit)
        return row if self.metrics is None else row | self.metrics.row(logits)

    def _finish_epoch(self, epoch: int, row: Row) -> None:
        """Run the callbacks, then save the epoch: first the best weights, then the state that
        refers to them.
        """
        self.hooks.epoch_end(epoch, row)
        self._follow_chief()
        if self.hooks.wants_stop:
            self.stopped = self.state["stopped"] = "callback"
            self.reporter.line(f"a callback stopped the training after epoch {epoch + 1}")
        history = [*self.state["history"], row]
        self.state |= {"epoch": epoch + 1, "step": 0, "history": history}
        if self.monitor.last_is_best(history) and self.team.is_chief:
            checkpoint.write(
                self.folder / checkpoint.BEST,
                self.trainer.weights(),
                {"epoch": epoch + 1, "run": self.run_hash},
            )
        self._save(epoch)
        self._write_history()
        for logger in self.loggers:
            logger.epoch(row)
        self.reporter.line(epoch_line(row))
        if epoch == 0 and (
            text := eta_line(row["seconds"], self.recipe.epochs - 1, self.recipe.patience)
        ):
            self.reporter.line(text)

    def _write_history(self) -> None:
        if not self.team.is_chief:
            return
        write_atomic(
            self.out / "history.csv",
            pd.DataFrame(self.state["history"]).to_csv(index=False).encode(),
        )

    def _require_finite(self, epoch: int) -> None:
        """Raise TrainingError (code not_finite), naming the first batch with an image, a label, a
        loss or a gradient that is not finite.
        """
        number = int(self.trainer.bad_batch.numpy())
        if number < 0:
            return
        inputs, label, weight = next(iter(self._batches(epoch, number)))
        rows = inputs["key"].numpy()[:, 1]
        parts = {"images": inputs["image"], "labels": label, "weights": weight}
        bad = [
            name
            for name, values in parts.items()
            if not np.isfinite(np.asarray(values, np.float64)).all()
        ]
        images = self.data.cache.images["image"].iloc[rows[:MAX_NAMED]]
        more = ", ..." if len(rows) > MAX_NAMED else ""
        raise TrainingError(
            f"epoch {epoch + 1}, batch {number + 1}: the {bad[0] if bad else 'loss or gradient'} "
            f"of this batch {'is' if not bad else 'are'} not finite (cache rows "
            f"{', '.join(map(str, rows[:MAX_NAMED]))}{more}; images "
            f"{', '.join(str(name)[:12] for name in images)}{more}). Earlier checkpoints are "
            f"valid. "
            + ("Ingest the data again" if bad else "Lower the learning rate")
            + " and train into a new folder",
            code="not_finite",
        )


@dataclass
class StatusLine:
    """The note beside the progress bar, updated at most twice a second.

    start: time.perf_counter() at the start of the epoch, or where it resumed, after `first_step`
    batches.
    """

    loop: Loop
    start: float
    first_step: int
    text: str = ""
    updated: float = 0.0

    def note(self, wait: float) -> str:
        """Mean loss, tuning AUC or Dice of the last epoch, images per second, share of the time
        that was spent waiting for data, and memory. wait: seconds.
        """
        now = time.perf_counter()
        if now - self.updated > 0.5:
            self.updated, loop = now, self.loop
            elapsed = now - self.start
            text = headline(loop.state["history"][-1]) if loop.state["history"] else ""
            speed = (loop.state["step"] - self.first_step) * loop.recipe.batch_size / elapsed
            tuned = f"  {text}" if text else ""
            self.text = (
                f"loss {loop.trainer.means()['loss']:.4f}{tuned}  {speed:.0f} images/s  "
                f"data wait {wait / elapsed:.0%}  {memory_gib():.1f} GiB"
            )
        return self.text


def memory_gib() -> float:
    """GiB in use on the first GPU, otherwise the peak of this process; 0 on Windows."""
    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["current"] / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def should_stop(
    history: Sequence[Mapping[Any, Any]], patience: int, monitor: Monitor = LOSS
) -> bool:
    """Early stopping: whether the best epoch by `monitor` is `patience` or more epochs old. It
    depends on the history only, so that resuming cannot change it.

    >>> should_stop([{"tune_loss": 0.4}, {"tune_loss": 0.5}, {"tune_loss": 0.6}], patience=2)
    True
    """
    if not (patience and history):
        return False
    return len(history) - 1 - monitor.first_best(history) >= patience


def eta_line(seconds: float, epochs: int, patience: int) -> str:
    """The time that the remaining epochs take at the pace of the first, which also compiled the
    step; "" for less than 90 seconds.
    """
    if seconds * epochs < 90:
        return ""
    duration = (
        f"{seconds * epochs / 60:.0f} minutes"
        if seconds * epochs < 7200
        else f"{seconds * epochs / 3600:.1f} hours"
    )
    early = f"early stopping, patience {patience}; " if patience else ""
    return (
        f"{epochs} more epochs: at most {duration} at this pace; {early}rerun the same command to "
        f"resume"
    )


def headline(row: Row, *, limits: bool = False) -> str:
    """The AUC, Dice or AP50 of the tuning split in a row of history.csv, perhaps with the limits of
    its interval; "" where it is undefined.

    >>> headline({"tune_dice": 0.91234, "tune_dice_low": 0.9, "tune_dice_high": 0.92}, limits=True)
    'tune Dice 0.912 (0.900 to 0.920)'
    """
    for name, title in HEADLINES.items():
        value, low, high = (row.get(f"tune_{name}{end}") for end in ("", "_low", "_high"))
        if value is not None:
            interval = f" ({low:.3f} to {high:.3f})" if limits and low is not None else ""
            return f"tune {title} {value:.3f}{interval}"
    return ""


def epoch_line(row: Row) -> str:
    """A row of history.csv as a line of text: epoch, losses, and the AUC or Dice of the tuning
    split with its interval, as far as they exist.
    """
    parts = [f"epoch {row['epoch']:3d}  loss {row['loss']:.4f}  tune loss {row['tune_loss']:.4f}"]
    if text := headline(row, limits=True):
        parts.append(text)
    parts.append(
        f"{row['images_per_second']:.0f} images/s  data wait {row['data_wait']:.0%}  "
        f"{row['seconds']:.1f} s"
    )
    return "  ".join(parts)
