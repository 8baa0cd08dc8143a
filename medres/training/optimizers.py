"""The optimizer of a recipe: the learning rate is a function of the optimizer's own step counter,
weight decay applies to kernels only, and each layer has a factor of the learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from medres.errors import TrainingError
from medres.training.config.recipe import Recipe

DECAYED = "kernel"  # name of the variables with weight decay


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate by batch: a linear warm-up from 0; then a cosine to 0, a division by 10
    after 1/2 and after 3/4 of all batches ("steps"), or a constant.

    peak: the maximum learning rate. steps, warmup: batches of the run and of the warm-up.
    rate: of a constant schedule, the variable with the learning rate after the warm-up, which
    callbacks may set; otherwise None.
    """

    def __init__(self, kind: str, peak: float, steps: int, warmup: int) -> None:
        self.kind, self.peak, self.steps, self.warmup = kind, peak, steps, warmup
        options = {"trainable": False, "aggregation": "only_first_replica"}
        self.rate = (
            keras.Variable(peak, dtype="float32", name="rate", **options)
            if kind == "constant"
            else None
        )

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        if self.kind == "cosine":
            elapsed = ops.clip((step - self.warmup) / max(1, self.steps - self.warmup), 0.0, 1.0)
            rate = self.peak * 0.5 * (1.0 + ops.cos(3.141592653589793 * elapsed))
        elif self.kind == "steps":
            rate = self.peak * ops.where(
                step <= self.steps // 2, 1.0, ops.where(step <= 3 * self.steps // 4, 0.1, 0.01)
            )
        else:
            rate = self.rate * ops.ones_like(step)
        peak = self.peak if self.rate is None else self.rate
        return ops.where(step < self.warmup, peak * step / max(1, self.warmup), rate)


class _ByVariable:
    """Mixed into a Keras optimizer: weight decay and a learning-rate factor for each variable. Call
    `set_factors` after building.
    """

    coupled = False  # whether the decay is added to the gradient, instead of to the update
    #: of accumulated gradients: whether the step that is traced updates the weights; None: it
    #: decides when it runs, which a step of several devices cannot do (tf.distribute)
    updates: bool | None = None

    @property
    def learning_rate(self) -> Any:
        """Of a constant schedule the rate after the warm-up, which can be set; otherwise the rate
        of the next batch. Setting it raises TrainingError (code schedule_not_constant).
        """
        schedule = self._learning_rate  # type: ignore[attr-defined]
        if schedule.rate is None:
            return self._get_current_learning_rate()  # type: ignore[attr-defined]
        return schedule.rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        schedule = self._learning_rate  # type: ignore[attr-defined]
        if schedule.rate is None:
            raise TrainingError(
                f"the learning rate follows the schedule {schedule.kind!r} of the recipe: to set "
                f"it from a callback, give schedule='constant'",
                code="schedule_not_constant",
            )
        schedule.rate.assign(value)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        # The gradients arrive summed over the devices, so that clipping sees the whole gradient.
        return grads_and_vars

    def _backend_apply_gradients(self, grads: Any, trainable_variables: Any) -> None:
        if self.updates is None:
            super()._backend_apply_gradients(grads, trainable_variables)  # type: ignore[misc]
            return
        steps = self.gradient_accumulation_steps  # type: ignore[attr-defined]
        all_sums = self._accumulated_gradients  # type: ignore[attr-defined]
        index = self._get_variable_index  # type: ignore[attr-defined]
        sums = [all_sums[index(variable)] for variable in trainable_variables]
        if not self.updates:
            self._backend_increment_gradient_accumulators(grads, sums)  # type: ignore[attr-defined]
            return
        means = [(grad + total) / steps for grad, total in zip(grads, sums, strict=True)]
        clipped = self._clip_gradients(means)  # type: ignore[attr-defined]
        rate = self.learning_rate
        self._backend_update_step(clipped, trainable_variables, rate)  # type: ignore[attr-defined]
        self._backend_reset_gradient_accumulators()  # type: ignore[attr-defined]

    def set_factors(self, decay: float, factors: Mapping[str, float]) -> None:
        """decay: of kernels. factors: of the learning rate, by layer name; 1 for other layers."""
        self.decay = decay
        variables = self._trainable_variables  # type: ignore[attr-defined]
        paths = [variable.path.split("/") for variable in variables]
        self.decayed = [path[-1] == DECAYED for path in paths]
        self.factors = [
            float(next((factors[part] for part in path if part in factors), 1.0)) for path in paths
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)  # type: ignore[attr-defined]
        rate = learning_rate if self.factors[index] == 1.0 else learning_rate * self.factors[index]
        if self.decay and self.decayed[index]:
            if self.coupled:
                gradient = gradient + self.decay * ops.convert_to_tensor(variable)
            else:
                change = ops.convert_to_tensor(variable) * (rate * self.decay)
                self.assign_sub(variable, change)  # type: ignore[attr-defined]
        super().update_step(gradient, variable, rate)  # type: ignore[misc]


class SGDByLayer(_ByVariable, keras.optimizers.SGD):
    coupled = True


class AdamWByLayer(_ByVariable, keras.optimizers.Adam):
    pass


class LambByLayer(_ByVariable, keras.optimizers.Lamb):
    pass


def optimizer(
    recipe: Recipe,
    steps_per_epoch: int,
    variables: list[Any],
    factors: Mapping[str, float] | None = None,
) -> Any:
    """The optimizer of a recipe, built on `variables`. Its attribute `schedule` gives the learning
    rate by batch.

    steps_per_epoch: batches per epoch. factors: learning-rate factors by layer name.
    """
    # Keras calls the schedule with the number of batches, also where gradients are accumulated.
    steps = max(1, recipe.epochs * steps_per_epoch)
    warmup = min(int(recipe.warmup * steps_per_epoch), steps - 1)
    schedule = Schedule(recipe.schedule, recipe.learning_rate, steps, warmup)
    options: dict[str, Any] = {
        "learning_rate": schedule,
        "global_clipnorm": recipe.clip or None,
        "gradient_accumulation_steps": recipe.accumulate if recipe.accumulate > 1 else None,
    }
    built: Any
    if recipe.optimizer == "sgd":
        built = SGDByLayer(momentum=recipe.momentum, **options)
    else:
        built = (AdamWByLayer if recipe.optimizer == "adamw" else LambByLayer)(**options)
    built.schedule = schedule
    built.build(variables)
    built.set_factors(recipe.weight_decay, factors or {})
    return built
