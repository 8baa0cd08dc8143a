"""The optimiser of a recipe: rates as a function of its own step counter, decay on kernels alone, a
rate factor by layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from medres.training.config.recipe import Recipe

DECAYED = "kernel"


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then a cosine to 0, tenths at 1/2 and 3/4 of all steps, or a constant.
    `step` counts batches.
    """

    def __init__(self, kind: str, peak: float, steps: int, warmup: int) -> None:
        self.kind, self.peak, self.steps, self.warmup = kind, peak, steps, warmup

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        if self.kind == "cosine":
            done = ops.clip((step - self.warmup) / max(1, self.steps - self.warmup), 0.0, 1.0)
            rate = self.peak * 0.5 * (1.0 + ops.cos(3.141592653589793 * done))
        elif self.kind == "steps":
            rate = self.peak * ops.where(
                step <= self.steps // 2, 1.0, ops.where(step <= 3 * self.steps // 4, 0.1, 0.01)
            )
        else:
            rate = self.peak * ops.ones_like(step)
        return ops.where(step < self.warmup, self.peak * step / max(1, self.warmup), rate)


class _ByVariable:
    """Mixed into a Keras optimiser: decay and rate factor of each variable, by its index. Set
    `plan` after building.
    """

    coupled = False

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        # they come summed over the devices, so that clipping sees the whole gradient
        return grads_and_vars

    def plan(self, decay: float, factors: Mapping[str, float]) -> None:
        """decay: of kernels. factors: layer name -> share of the rate; 1 where a layer is not
        named.
        """
        self.decay = decay
        found = [variable.path.split("/") for variable in self._trainable_variables]  # type: ignore[attr-defined]
        self.decayed = [parts[-1] == DECAYED for parts in found]
        self.factors = [
            float(next((factors[p] for p in parts if p in factors), 1.0)) for parts in found
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)  # type: ignore[attr-defined]
        rate = learning_rate if self.factors[index] == 1.0 else learning_rate * self.factors[index]
        if self.decay and self.decayed[index]:
            if self.coupled:
                gradient = gradient + self.decay * ops.convert_to_tensor(variable)
            else:
                self.assign_sub(variable, ops.convert_to_tensor(variable) * (rate * self.decay))  # type: ignore[attr-defined]
        super().update_step(gradient, variable, rate)  # type: ignore[misc]


class SGDByLayer(_ByVariable, keras.optimizers.SGD):
    coupled = True


class AdamWByLayer(_ByVariable, keras.optimizers.Adam):
    pass


class LambByLayer(_ByVariable, keras.optimizers.Lamb):
    pass


def optimizer(
    chosen: Recipe,
    steps_per_epoch: int,
    variables: list[Any],
    factors: Mapping[str, float] | None = None,
) -> Any:
    """The optimiser of a recipe, built on `variables`, with its `schedule` (rate by batch);
    steps_per_epoch counts batches.

    factors: see `_ByVariable.plan`.
    """
    steps = max(
        1, chosen.epochs * steps_per_epoch
    )  # Keras asks for the rate by batches, accumulated or not
    warmup = min(int(chosen.warmup * steps_per_epoch), steps - 1)
    schedule = Schedule(chosen.schedule, chosen.learning_rate, steps, warmup)
    options: dict[str, Any] = {
        "learning_rate": schedule,
        "global_clipnorm": chosen.clip or None,
        "gradient_accumulation_steps": chosen.accumulate if chosen.accumulate > 1 else None,
    }
    made: Any
    if chosen.optimizer == "sgd":
        made = SGDByLayer(momentum=chosen.momentum, **options)
    else:
        made = (AdamWByLayer if chosen.optimizer == "adamw" else LambByLayer)(**options)
    made.schedule = schedule
    made.build(variables)
    made.plan(chosen.weight_decay, factors or {})
    return made
