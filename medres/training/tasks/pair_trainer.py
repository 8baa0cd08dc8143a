"""The optimizer step of a task whose labels move with the images: label maps, or boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from medres.training.config.recipe import Recipe
from medres.training.train_step import Trainer


class ImageLoss:
    """A Keras loss with one value for each image as the loss of a step: the weighted mean over the
    images.

    With deep supervision, the mean over the outputs, each of which weighs half of the finer one
    before it (as in nnU-Net, Isensee et al. 2021).
    """

    def __init__(self, loss: keras.losses.Loss) -> None:
        self.loss = loss

    def mean(self, labels: Any, logits: Any, weights: Any, total: Any = None) -> Any:
        """See `medres.training.losses.Loss.mean`. weights: (batch,)."""
        weights = ops.cast(weights, "float32")
        total = ops.sum(weights) if total is None else total
        images = self._of_images(labels, logits)
        return ops.sum(images * weights) / ops.where(total > 0, total, 1.0)

    def _of_images(self, labels: Any, logits: Any) -> Any:
        if not isinstance(logits, dict):
            return self.loss.call(labels, logits)
        shares = [0.5**n for n in range(len(logits))]
        losses = [
            share * self.loss.call(labels, logits[name])
            for share, name in zip(shares, sorted(logits), strict=True)  # logits, logits_2, ...
        ]
        return sum(losses[1:], losses[0]) / sum(shares)


class PairTrainer(Trainer):
    """A `Trainer` whose labels are label maps int32 (batch, [slices,] rows, columns), or boxes
    float32 (batch, lines, 5).

    pair: (image, label, key) -> (image, label), the augmentation of both.
    """

    def __init__(
        self,
        model: keras.Model,
        pair: Callable[..., tuple[Any, Any]],
        loss: keras.losses.Loss,
        optimizer: Any,
        recipe: Recipe,
        *,
        jit: bool,
    ) -> None:
        self.pair = pair
        super().__init__(model, pair, ImageLoss(loss), optimizer, recipe, jit=jit)

    def _augmented(self, inputs: dict[str, Any], label: Any) -> tuple[Any, Any]:
        return self.pair(inputs["image"], label, inputs["key"])
