"""One optimizer step, and all variables of a run.

The random numbers of a step depend on the keys of the batch only, so that the same batch from the
same state gives the same next state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from data_pipelines.augment import AugmentSpec, draw_pairs, mix
from medres.backbones import fused_training_copy
from medres.training.config.recipe import Recipe
from medres.training.network import named_variables, set_trainable, stages

Batch = tuple[dict[str, Any], Any, Any]


class StepLoss(Protocol):
    """The loss of a step, such as `medres.training.losses.Loss`."""

    def mean(self, labels: Any, logits: Any, weights: Any, total: Any = None) -> Any:
        """The weighted mean; total: of the weights of the whole batch."""


class Trainer:
    """A model with its loss and its optimizer.

    model: from images to logits; the step runs its `fused_training_copy`, which shares its
        variables.
    augment: (image, key, training=True) -> image.
    optimizer: built on all trainable variables of `model`.
    jit: compile the step with XLA.
    pairs: a spec with mixup or cutmix, applied after `augment`; None: neither.

    Created in the scope of a tf.distribute strategy, like its model and its optimizer, it trains on
    all devices of the strategy.
    """

    def __init__(
        self,
        model: keras.Model,
        augment: Callable[..., Any],
        loss: StepLoss,
        optimizer: Any,
        recipe: Recipe,
        *,
        jit: bool,
        pairs: AugmentSpec | None = None,
    ) -> None:
        self.model, self.augment, self.loss, self.optimizer = model, augment, loss, optimizer
        self.recipe, self.jit, self.pairs = recipe, jit, pairs
        self.forward = fused_training_copy(model)
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            share_statistics(self.forward)
        self.groups = {
            name: [layer.name for layer in layers] for name, layers in stages(model).items()
        }
        n_sums = 2 + len(self.groups)  # batches, loss, gradient norm of each stage
        options = {"trainable": False, "aggregation": "only_first_replica"}
        self.strategy = tf.distribute.get_strategy()
        self.replicas = self.strategy.num_replicas_in_sync
        self.sums = keras.Variable(np.zeros(n_sums, np.float32), name="sums", **options)
        self.bad_batch = keras.Variable(-1, dtype="int32", name="fault", **options)
        self.averages = [
            keras.Variable(v.numpy(), dtype="float32", name="average", **options)
            for v in (named_variables(model).values() if recipe.ema else [])
        ]
        self._steps: list[Any] = []
        self._batches = 0  # of the run, as the optimizer counts them

    def variables(self) -> dict[str, list[Any]]:
        """Everything that changes in training, by group, in a fixed order."""
        return {
            "model": [v for layer in self.model.layers for v in layer.variables],
            "optimizer": self.optimizer.variables,
            "average": self.averages,
            "metrics": [self.sums, self.bad_batch],
        }

    def weights(self) -> dict[str, np.ndarray]:
        """The arrays that are evaluated and saved, by "layer/variable": the moving averages, or
        the weights where the recipe has no moving average.
        """
        named = named_variables(self.model)
        values = self.averages or list(named.values())
        return {
            name: np.asarray(v.numpy(), np.float32) for name, v in zip(named, values, strict=True)
        }

    def begin_epoch(self, epoch: int) -> None:
        """Freeze and unfreeze layers as in the recipe for an epoch (counted from 0)."""
        changed = set_trainable(self.model, epoch, self.recipe.unfreeze, self.recipe.freeze_norm)
        self._batches = int(self.optimizer._iterations.numpy())
        if changed or not self._steps:
            kinds = self._kinds_of_step()
            compiled = {updates: self._compiled(updates) for updates in dict.fromkeys(kinds)}
            self._steps = [compiled[updates] for updates in kinds]

    def _kinds_of_step(self) -> list[bool | None]:
        """Several devices that accumulate gradients have a step that adds, and one that updates."""
        count = self.recipe.accumulate
        if self.replicas == 1 or count == 1:
            return [None]
        return [*[False] * (count - 1), True]

    def _compiled(self, updates: bool | None) -> Any:
        def step(batch: Batch, number: Any) -> None:
            self.optimizer.updates = updates
            if self.replicas == 1:
                self._replica_step(batch, number)
            else:
                self.strategy.run(self._replica_step, args=(batch, number))

        return tf.function(step, jit_compile=self.jit, autograph=False, reduce_retracing=True)

    def reset_means(self) -> None:
        """Start new means."""
        self.sums.assign(np.zeros(self.sums.shape, np.float32))
        self.bad_batch.assign(-1)

    def step(self, batch: Batch, number: int) -> None:
        """Train on one batch, with its index in the epoch (from 0)."""
        step = self._steps[self._batches % len(self._steps)]
        step(batch, tf.constant(number, tf.int32))
        self._batches += 1

    def means(self) -> dict[str, float]:
        """Means over the batches since `reset_means`: the loss, and the gradient norm of each stage
        (grad_stem, ...).
        """
        sums = self.sums.numpy().astype(np.float64)
        names = ["loss", *(f"grad_{name}" for name in self.groups)]
        return dict(zip(names, (sums[1:] / max(1.0, sums[0])).tolist(), strict=True))

    def distribute(
        self, batches: Callable[[tf.distribute.InputContext | None], tf.data.Dataset]
    ) -> Any:
        """The batches, each divided among the devices. batches: makes the part of one input
        pipeline (see `data_pipelines.datasets`), or with None whole batches.
        """
        if self.replicas == 1:
            return batches(None)
        return self.strategy.distribute_datasets_from_function(batches)

    def _replica_step(self, batch: Batch, number: Any) -> None:
        """The part of one device in a step. The loss is the mean over the labels of the whole
        batch, for any number of devices.
        """
        inputs, label, weight = batch
        image, label = self._augmented(inputs, label)
        variables = self.model.trainable_variables
        image, label, weight = self._mix_pairs(image, inputs["key"], label, weight)
        total = self._sum_over_devices(ops.sum(ops.cast(weight, "float32")))
        with tf.GradientTape() as tape:
            loss = self.loss.mean(label, self.forward(image, training=True), weight, total)
        gradients = self._sum_over_devices(tape.gradient(loss, [v.value for v in variables]))
        loss, norms = self._sum_over_devices(loss), self._norms(variables, gradients)
        finite = (
            ops.isfinite(loss)
            & ops.isfinite(ops.sum(norms))
            & ops.isfinite(self._sum_over_devices(ops.sum(image)))
        )
        first_bad = (self.bad_batch < 0) & ~finite
        self.bad_batch.assign(ops.where(first_bad, number, self.bad_batch))
        self.optimizer.apply(gradients, variables)
        self._update_averages()
        self.sums.assign_add(ops.concatenate([ops.stack([1.0, loss]), norms]))

    def _augmented(self, inputs: dict[str, Any], label: Any) -> tuple[Any, Any]:
        """The augmented images and their labels."""
        return self.augment(inputs["image"], inputs["key"], training=True), label

    def _mix_pairs(self, image: Any, key: Any, label: Any, weight: Any) -> Any:
        """Mixup or cutmix of neighbors in the batch; class indices become one-hot labels."""
        if self.pairs is None:
            return image, label, weight
        if len(label.shape) == 1:
            label = ops.one_hot(label, self.model.outputs[0].shape[-1], dtype="float32")
        return mix(
            image, label, weight, draw_pairs(key, self.pairs, len(image.shape) - 2), self.pairs
        )

    def _sum_over_devices(self, values: Any) -> Any:
        """The sum of a value over the devices."""
        if self.replicas == 1:
            return values
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)

    def _norms(self, variables: list[Any], gradients: list[Any]) -> Any:
        """(stages,) gradient norm of each stage; 0 for a frozen stage."""
        squares: dict[str, Any] = dict.fromkeys(self.groups, 0.0)
        stage = {name: group for group, names in self.groups.items() for name in names}
        for variable, gradient in zip(variables, gradients, strict=True):
            owner = next(stage[part] for part in variable.path.split("/") if part in stage)
            squares[owner] = squares[owner] + ops.sum(ops.square(ops.cast(gradient, "float32")))
        return ops.sqrt(
            ops.stack([ops.convert_to_tensor(value, "float32") for value in squares.values()])
        )

    def _update_averages(self) -> None:
        """The moving average of all weights; its momentum rises to the recipe's."""
        if not self.averages:
            return
        updates = ops.cast(self.optimizer.iterations, "float32")
        momentum = ops.minimum(self.recipe.ema, (1.0 + updates) / (10.0 + updates))
        for average, variable in zip(
            self.averages, named_variables(self.model).values(), strict=True
        ):
            average.assign_add((ops.cast(variable, "float32") - average) * (1.0 - momentum))


def share_statistics(forward: keras.Model) -> None:
    """Batch normalizations that Keras computes take the statistics of the whole batch where several
    devices share it, as those of `fused_training_copy` do by themselves.
    """
    for layer in forward.layers:
        if type(layer) is keras.layers.BatchNormalization:
            layer.synchronized = True
