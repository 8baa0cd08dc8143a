"""Keras callbacks in the loop of `medres.train`: which are allowed, when their hooks run, and their
state in the checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from medres.errors import TrainingError
from medres.progress import ProgressReporter

REFUSED: dict[type, tuple[str, str]] = {
    keras.callbacks.BackupAndRestore: (
        "backup_and_restore",
        "the checkpoints of medres.train hold the whole state, and the same command resumes from "
        "them; leave it out",
    ),
    keras.callbacks.SwapEMAWeights: (
        "swap_ema_weights",
        "moving averages are a setting, for instance ema=0.999; leave it out",
    ),
}
NEEDS_CONSTANT = (keras.callbacks.ReduceLROnPlateau, keras.callbacks.LearningRateScheduler)
BATCH_HOOKS = ("on_train_batch_begin", "on_batch_begin", "on_train_batch_end", "on_batch_end")

Logs = dict[str, float]


def check_callbacks(callbacks: Sequence[Any], schedule: str) -> None:
    """Raise TrainingError for callbacks that cannot work in the loop. schedule: of the recipe.

    Codes: bad_callbacks (not a list of Keras callbacks), backup_and_restore, swap_ema_weights,
    restore_best_weights, schedule_not_constant.
    """
    if not isinstance(callbacks, list | tuple):
        raise TrainingError(
            f"callbacks: give a list of Keras callbacks, received {type(callbacks).__name__}",
            code="bad_callbacks",
        )
    for callback in callbacks:
        name = type(callback).__name__
        if not isinstance(callback, keras.callbacks.Callback):
            raise TrainingError(
                f"callbacks: {name} is not a keras.callbacks.Callback: derive its class from it",
                code="bad_callbacks",
            )
        for kind, (code, reason) in REFUSED.items():
            if isinstance(callback, kind):
                raise TrainingError(f"callback {name}: {reason}", code=code)
        if getattr(callback, "restore_best_weights", False):
            raise TrainingError(
                f"callback {name}(restore_best_weights=True): medres.train saves the weights of "
                f"the best epoch itself, see monitor; leave restore_best_weights out",
                code="restore_best_weights",
            )
        if isinstance(callback, NEEDS_CONSTANT) and schedule != "constant":
            raise TrainingError(
                f"callback {name} changes the learning rate, which the schedule {schedule!r} of "
                f"the recipe already does: give schedule='constant' as well",
                code="schedule_not_constant",
            )


class CallbackHooks:
    """The callbacks of a run and the model that they see.

    callbacks: checked by `check_callbacks`. served: the float32 copy of the model, from images to
    logits, which has the weights of the last finished epoch. optimizer: of training; a callback may
    set its learning_rate where the schedule is constant. epochs, steps: of the run, of an epoch.
    directions: "min" or "max" of the tuning loss, AUC and metrics, for callbacks with mode="auto".
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        served: keras.Model,
        optimizer: Any,
        epochs: int,
        steps: int,
        directions: Mapping[str, str | None],
    ) -> None:
        self.callbacks = list(callbacks)
        self.model = keras.Model(served.inputs, served.outputs, name=served.name)
        self.model.optimizer = optimizer
        self.model.save = served.save  # without the optimizer
        self.model.stop_training = False
        self._with_batches = [callback for callback in self.callbacks if _needs_batches(callback)]
        for callback in self.callbacks:
            callback.set_params({"verbose": 0, "epochs": epochs, "steps": steps})
            callback.set_model(self.model)
            if getattr(callback, "mode", None) == "auto":
                name = str(getattr(callback, "monitor", "")).removeprefix("val_")
                callback.mode = directions.get(name) or "auto"

    @property
    def wants_stop(self) -> bool:
        """Whether a callback has set model.stop_training."""
        return bool(self.model.stop_training)

    @property
    def has_batch_hooks(self) -> bool:
        """Whether a callback has a hook for batches."""
        return bool(self._with_batches)

    def begin(
        self, saved: list[dict[str, Any]] | None, within: int | None, reporter: ProgressReporter
    ) -> None:
        """Call on_train_begin, then load the saved states (None: a new run).

        within: the number of the epoch in whose middle the run resumes, or None. Its on_epoch_begin
        is called again for callbacks without a saved state, which start afresh and are named.
        """
        self._call(self.callbacks, "on_train_begin", {})
        if saved is None:
            return
        fresh, remaining = [], list(saved)
        for callback in self.callbacks:
            name = type(callback).__name__
            match = next((entry for entry in remaining if entry["class"] == name), None)
            if match is not None:
                remaining.remove(match)
            if match is not None and _has_state(callback):
                callback.load_state_dict(match["state"])
            else:
                fresh.append(callback)
        if fresh:
            names = ", ".join(type(callback).__name__ for callback in fresh)
            reporter.line(f"callbacks without a saved state, which start afresh: {names}")
        if lost := [entry["class"] for entry in remaining if entry["state"] is not None]:
            reporter.line(f"saved states of callbacks that are not in the call: {', '.join(lost)}")
        if within is not None:
            self._call(fresh, "on_epoch_begin", within, {})

    def states(self) -> list[dict[str, Any]]:
        """For the checkpoint: class and state (None where it offers none) of each callback. Raises
        TrainingError (code callback_state) for a state that is not JSON.
        """
        states = []
        for callback in self.callbacks:
            name = type(callback).__name__
            state = callback.state_dict() if _has_state(callback) else None
            try:
                json.dumps(state, allow_nan=False)
            except (TypeError, ValueError):
                raise TrainingError(
                    f"callback {name}: its state_dict() must be plain JSON (numbers, texts, lists, "
                    f"dictionaries, no NaN)",
                    code="callback_state",
                ) from None
            states.append({"class": name, "state": state})
        return states

    def epoch_begin(self, epoch: int) -> None:
        """epoch: from 0."""
        self._call(self.callbacks, "on_epoch_begin", epoch, {})

    def batch_begin(self, step: int) -> None:
        self._call(self._with_batches, "on_train_batch_begin", step, {})

    def batch_end(self, step: int, means: Callable[[], dict[str, float]]) -> None:
        """means: called where a callback has a hook for batches, since it waits for the device."""
        if self._with_batches:
            self._call(self._with_batches, "on_train_batch_end", step, {"loss": means()["loss"]})

    def epoch_end(self, epoch: int, row: dict[str, Any]) -> None:
        """row: of history.csv; callbacks get loss, learning_rate, and val_NAME for tune_NAME."""
        logs = {name: row[name] for name in ("loss", "learning_rate")} | {
            f"val_{name.removeprefix('tune_')}": float("nan") if value is None else value
            for name, value in row.items()
            if name.startswith("tune_")
        }
        for callback in self.callbacks:
            callback.on_epoch_end(epoch, dict(logs))

    def end(self) -> None:
        self._call(self.callbacks, "on_train_end", {})

    @staticmethod
    def _call(callbacks: Sequence[Any], hook: str, *arguments: Any) -> None:
        for callback in callbacks:
            getattr(callback, hook)(*arguments)


def _has_state(callback: keras.callbacks.Callback) -> bool:
    return all(
        callable(getattr(callback, name, None)) for name in ("state_dict", "load_state_dict")
    )


def _needs_batches(callback: keras.callbacks.Callback) -> bool:
    """Whether a hook for batches is overridden and does something."""
    if isinstance(callback, keras.callbacks.ModelCheckpoint) and callback.save_freq == "epoch":
        return False
    return any(
        getattr(getattr(callback, name), "__func__", None)
        is not getattr(keras.callbacks.Callback, name)
        for name in BATCH_HOOKS
    )
