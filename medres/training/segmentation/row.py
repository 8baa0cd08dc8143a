"""Segmentation as a row of the tasks of a run."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from data_pipelines.augment.joint import compiled_pair
from data_pipelines.augment.spec import check_fits
from data_pipelines.preprocessing.spec import PreprocessSpec
from medres.training.config.options import RunOptions, augment_spec
from medres.training.config.recipe import Recipe
from medres.training.data import TrainingData, load_masks
from medres.training.segmentation.finalize import finalized_segmenter
from medres.training.segmentation.network import build_segmenter, check_segmentation, pixel_loss
from medres.training.segmentation.tuning import tuning_dice_row
from medres.training.tasks.pair_trainer import PairTrainer
from medres.training.tasks.row import RunParts, TaskTraining

MAX_BATCH_PIXELS = 1 << 19


def dense_batch(options: RunOptions, spec: PreprocessSpec, recipe: Recipe) -> int:
    """The batch size of a segmenter where none is given: that of the recipe, but at most 2^19
    pixels or voxels, and at least 2 samples.
    """
    pixels = math.prod(options.patch or spec.mask_shape)
    return min(recipe.batch_size, max(2, MAX_BATCH_PIXELS // pixels))


def _trainer(
    model: keras.Model,
    optimizer: Any,
    recipe: Recipe,
    data: TrainingData,
    options: RunOptions,
    *,
    jit: bool,
) -> PairTrainer:
    spec = augment_spec(recipe, data.cache.spec).model_copy(update={"crop": options.patch})
    check_fits(spec, (None, *data.cache.spec.shape))
    pair = compiled_pair(spec, options.foreground if spec.crop else 0.0)
    loss = pixel_loss(options.loss, recipe, data.targets.names)
    return PairTrainer(model, pair, loss, optimizer, recipe, jit=jit)


def _parts(data: TrainingData, recipe: Recipe, options: RunOptions) -> RunParts:
    names = data.targets.names
    loss = pixel_loss(options.loss, recipe, names, batch=False)
    return RunParts(
        directions={f"dice_{name}": "max" for name in names[1:]},
        built_in={"loss": "min", "dice": "max"},
        tune_mask=np.ones(len(data.rows("tune")), bool),
        finish=finalized_segmenter,
        worst=lambda model: {},
        tuned=lambda model, epoch: tuning_dice_row(model, data, loss, epoch),
    )


SEGMENTATION_TRAINING = TaskTraining(
    load=load_masks,
    check=lambda data, recipe, options: check_segmentation(
        data, recipe, options.patch, options.flips
    ),
    build=build_segmenter,
    trainer=_trainer,
    parts=_parts,
    batch_size=dense_batch,
)
