"""Detection as a row of the tasks of a run."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from data_pipelines.augment.joint import compiled_boxes
from data_pipelines.augment.spec import check_fits
from medres.models.detection import decoding_settings
from medres.training.config.options import RunOptions
from medres.training.config.recipe import Recipe
from medres.training.data import CompiledModel, TrainingData, load_boxes
from medres.training.detection.finalize import finalized_detector
from medres.training.detection.network import (
    box_augmentation,
    box_loss,
    build_detector,
    check_detection,
)
from medres.training.detection.tuning import tuning_box_row
from medres.training.tasks.pair_trainer import PairTrainer
from medres.training.tasks.row import RunParts, TaskTraining


def _trainer(
    model: keras.Model,
    optimizer: Any,
    recipe: Recipe,
    data: TrainingData,
    options: RunOptions,
    *,
    jit: bool,
) -> PairTrainer:
    spec = box_augmentation(recipe, data)
    check_fits(spec, (None, *data.cache.spec.shape))
    return PairTrainer(model, compiled_boxes(spec), box_loss(model), optimizer, recipe, jit=jit)


def _parts(data: TrainingData, recipe: Recipe, options: RunOptions) -> RunParts:
    def tuned(model: CompiledModel, epoch: int) -> dict[str, float | None]:
        return tuning_box_row(model, data, decoding_settings(model.model), box_loss(model.model))

    return RunParts(
        directions={f"ap50_{name}": "max" for name in data.targets.names},
        built_in={"loss": "min", "ap50": "max", "froc": "max"},
        tune_mask=np.ones(len(data.rows("tune")), bool),
        finish=finalized_detector,
        worst=lambda model: {},
        tuned=tuned,
    )


DETECTION_TRAINING = TaskTraining(
    load=load_boxes,
    check=check_detection,
    build=build_detector,
    trainer=_trainer,
    parts=_parts,
    batch_size=lambda options, spec, recipe: recipe.batch_size,
)
