"""One optimiser step, and every variable that a run consists of.

The step draws from the batch's own keys alone, so that the same batch at the same state gives the
same next state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from data_pipelines.augment import AugmentSpec, draw_pairs, mix
from medres.backbones import fused_training_copy
from medres.training.config.recipe import Recipe
from medres.training.losses import Loss
from medres.training.network import named_variables, set_trainable, stages

Batch = tuple[dict[str, Any], Any, Any]


class Trainer:
    """A net that learns.

    core: logits; computed by its `fused_training_copy`, which shares its variables. augment:
        (image, key, training=True) -> image.
    pairs: a spec with mixup or cutmix, which follow it.
    optimizer: built on all trainable variables of `core`. jit: compile the step with XLA. Made in
        the scope of a tf.distribute strategy, as are core and optimizer, it trains on all of its
        devices. The running sums are in `sums`: see `means`.
    """

    def __init__(
        self,
        core: keras.Model,
        augment: Callable[..., Any],
        loss: Loss,
        optimizer: Any,
        chosen: Recipe,
        *,
        jit: bool,
        pairs: AugmentSpec | None = None,
    ) -> None:
        self.core, self.augment, self.loss, self.optimizer = core, augment, loss, optimizer
        self.recipe, self.jit, self.pairs = chosen, jit, pairs
        self.forward = fused_training_copy(core)
        self.groups = {
            name: [layer.name for layer in layers] for name, layers in stages(core).items()
        }
        size, alike = (
            2 + len(self.groups),
            {"trainable": False, "aggregation": "only_first_replica"},
        )
        self.strategy = tf.distribute.get_strategy()
        self.replicas = self.strategy.num_replicas_in_sync
        self.sums = keras.Variable(np.zeros(size, np.float32), name="sums", **alike)
        self.fault = keras.Variable(-1, dtype="int32", name="fault", **alike)
        self.averages = [
            keras.Variable(v.numpy(), dtype="float32", name="average", **alike)
            for v in (named_variables(core).values() if chosen.ema else [])
        ]
        self._step: Any = None

    def variables(self) -> dict[str, list[Any]]:
        """Everything that changes in training, by group, in a fixed order."""
        return {
            "model": [v for layer in self.core.layers for v in layer.variables],
            "optimizer": self.optimizer.variables,
            "average": self.averages,
            "metrics": [self.sums, self.fault],
        }

    def weights(self) -> dict[str, np.ndarray]:
        """What is measured and kept, by "layer/variable": the moving averages, or the weights where
        the recipe has none.
        """
        named = named_variables(self.core)
        values = self.averages or list(named.values())
        return {
            name: np.asarray(v.numpy(), np.float32) for name, v in zip(named, values, strict=True)
        }

    def open(self, epoch: int) -> None:
        """Freeze and unfreeze as the recipe says for an epoch (from 0)."""
        if (
            set_trainable(self.core, epoch, self.recipe.unfreeze, self.recipe.freeze_norm)
            or self._step is None
        ):
            one = (
                self._one
                if self.replicas == 1
                else lambda *given: self.strategy.run(self._one, args=given)
            )
            self._step = tf.function(
                one, jit_compile=self.jit, autograph=False, reduce_retracing=True
            )

    def reset(self) -> None:
        """Begin new sums."""
        self.sums.assign(np.zeros(self.sums.shape, np.float32))
        self.fault.assign(-1)

    def step(self, batch: Batch, number: int) -> None:
        """Learn from one batch, the `number`-th of its epoch (from 0)."""
        self._step(batch, tf.constant(number, tf.int32))

    def means(self) -> dict[str, float]:
        """Means over the batches since `reset`: loss, and the norm of the gradient of each stage
        (grad_stem, ...).
        """
        sums = self.sums.numpy().astype(np.float64)
        names = ["loss", *(f"grad_{name}" for name in self.groups)]
        return dict(zip(names, (sums[1:] / max(1.0, sums[0])).tolist(), strict=True))

    def shared(self, batches: tf.data.Dataset) -> Any:
        """The batches, each dealt out to the devices."""
        return (
            batches
            if self.replicas == 1
            else self.strategy.experimental_distribute_dataset(batches)
        )

    def _one(self, batch: Batch, number: Any) -> None:
        """One device's part of a step. The loss is the mean over the labels of the whole batch,
        whatever the devices.
        """
        inputs, label, weight = batch
        image = self.augment(inputs["image"], inputs["key"], training=True)
        variables = self.core.trainable_variables
        image, label, weight = self._mixed(image, inputs["key"], label, weight)
        total = self._summed(ops.sum(ops.cast(weight, "float32")))
        with tf.GradientTape() as tape:
            loss = self.loss.mean(label, self.forward(image, training=True), weight, total)
        gradients = self._summed(tape.gradient(loss, [v.value for v in variables]))
        loss, norms = self._summed(loss), self._norms(variables, gradients)
        sound = (
            ops.isfinite(loss)
            & ops.isfinite(ops.sum(norms))
            & ops.isfinite(self._summed(ops.sum(image)))
        )
        self.fault.assign(ops.where((self.fault < 0) & ~sound, number, self.fault))
        self.optimizer.apply(gradients, variables)
        self._average()
        self.sums.assign_add(ops.concatenate([ops.stack([1.0, loss]), norms]))

    def _mixed(self, image: Any, key: Any, label: Any, weight: Any) -> Any:
        """Mixup or cutmix of neighbours in the batch; classes become one-hot."""
        if self.pairs is None:
            return image, label, weight
        if len(label.shape) == 1:
            label = ops.one_hot(label, self.core.outputs[0].shape[-1], dtype="float32")
        return mix(
            image, label, weight, draw_pairs(key, self.pairs, len(image.shape) - 2), self.pairs
        )

    def _summed(self, values: Any) -> Any:
        """Sums over the devices."""
        if self.replicas == 1:
            return values
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)

    def _norms(self, variables: list[Any], gradients: list[Any]) -> Any:
        """(stages,) norm of the gradient of each stage; 0 of one that is frozen."""
        squares: dict[str, Any] = dict.fromkeys(self.groups, 0.0)
        stage = {name: group for group, names in self.groups.items() for name in names}
        for variable, gradient in zip(variables, gradients, strict=True):
            owner = next(stage[part] for part in variable.path.split("/") if part in stage)
            squares[owner] = squares[owner] + ops.sum(ops.square(ops.cast(gradient, "float32")))
        return ops.sqrt(
            ops.stack([ops.convert_to_tensor(value, "float32") for value in squares.values()])
        )

    def _average(self) -> None:
        if not self.averages:
            return
        done = ops.cast(self.optimizer.iterations, "float32")
        momentum = ops.minimum(self.recipe.ema, (1.0 + done) / (10.0 + done))
        for average, variable in zip(
            self.averages, named_variables(self.core).values(), strict=True
        ):
            average.assign_add((ops.cast(variable, "float32") - average) * (1.0 - momentum))
