"""The optimizer step of a segmenter: image and label map are augmented together."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from data_pipelines.augment import AugmentSpec
from data_pipelines.augment.joint import compiled_pair
from data_pipelines.augment.spec import check_fits
from medres.training.config.recipe import Recipe
from medres.training.train_step import Trainer


class PixelLoss:
    """A Keras loss of label maps as the loss of a step: the weighted mean over the images.

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
    """A `Trainer` whose labels are label maps int32 (batch, [slices,] rows, columns).

    spec: of the augmentation, with `crop` where patches are trained on. foreground: the share of
    patches that hold foreground.
    """

    def __init__(
        self,
        model: keras.Model,
        spec: AugmentSpec,
        foreground: float,
        loss: keras.losses.Loss,
        optimizer: Any,
        recipe: Recipe,
        *,
        shape: tuple[int, ...],
        jit: bool,
    ) -> None:
        check_fits(spec, (None, *shape))
        self.pair = compiled_pair(spec, foreground if spec.crop else 0.0)
        super().__init__(model, self.pair, PixelLoss(loss), optimizer, recipe, jit=jit)

    def _augmented(self, inputs: dict[str, Any], label: Any) -> tuple[Any, Any]:
        return self.pair(inputs["image"], label, inputs["key"])
