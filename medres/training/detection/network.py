"""The detector of a run, and the checks of its data and settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from data_pipelines.augment import AugmentSpec
from data_pipelines.preprocessing.spec import PreprocessSpec
from medres.backbones.variants import network_options
from medres.errors import TrainingError
from medres.losses import DetectionLoss
from medres.models.detection import decoding_settings, detector, head_options
from medres.training.config.options import RunOptions, augment_spec
from medres.training.config.recipe import Recipe
from medres.training.data import TrainingData
from medres.training.network import dtype_policy

#: fields of a recipe that have no meaning for boxes
_UNUSED = ("mixup", "cutmix", "focal", "ordinal", "uncertain", "smoothing", "class_weights")
_SIDE = re.compile(r"left|right", re.IGNORECASE)


def build_detector(
    network: Mapping[str, Any],
    spec: PreprocessSpec,
    names: list[str],
    *,
    policy: str = "float32",
    stochastic_depth: float = 0.0,
) -> keras.Model:
    """A model from images in model units to raw maps, under a dtype policy. network: as in
    config.json. names: of the classes.
    """
    options: dict[str, Any] = network_options(network) | head_options(network)
    options |= {"stochastic_depth": stochastic_depth} if stochastic_depth else {}
    with dtype_policy(policy):
        return detector(
            network["variant"],
            tuple(spec.shape),
            names,
            windows=network["windows"],
            scaling=network.get("image_scaling"),
            **options,
        )


def box_loss(model: keras.Model) -> DetectionLoss:
    """The loss of a detector."""
    settings = decoding_settings(model)
    return DetectionLoss(settings.input_size, settings.strides)


def box_augmentation(recipe: Recipe, data: TrainingData) -> AugmentSpec:
    """The augmentation of a run. Images are not mirrored where the names of two classes differ by
    left and right: the mirror image of the one is the other.
    """
    spec = augment_spec(recipe, data.cache.spec)
    if not is_lateral(data.targets.names):
        return spec
    return spec.model_copy(update={"flip_left_right": False})


def is_lateral(names: Sequence[str]) -> bool:
    """Whether two names differ by left and right alone.

    >>> is_lateral(["left lung", "right lung", "heart"]), is_lateral(["left turn"])
    (True, False)
    """
    opposite = {"left": "right", "right": "left"}
    known = {name.lower() for name in names}
    mirrored = (_SIDE.sub(lambda match: opposite[match[0].lower()], name) for name in known)
    return any(name in known for name in mirrored if _SIDE.search(name))


def check_detection(data: TrainingData, recipe: Recipe, options: RunOptions) -> None:
    """Raise TrainingError unless a detector can be trained: empty_split, no_object (a split without
    any box, or without a box of a class), other_task (a field of the recipe that has no meaning
    here).
    """
    for split in ("train", "tune"):
        table = data.table(split)
        if table.empty:
            raise TrainingError(
                f"the {split} split has no image with usable boxes for preset "
                f"{data.cache.spec.name}: annotate more patients, or ingest with another split",
                code="empty_split",
            )
        counts = {name: table[f"boxes:{name}"].sum() for name in data.targets.names}
        absent = [name for name, count in counts.items() if not count]
        if not counts or absent:
            raise TrainingError(
                f"the {split} split has no box of {', '.join(absent) or 'any class'}: leave such a "
                f"class out with --box-classes, or ingest more patients",
                code="no_object",
            )
    for name in _UNUSED:
        if getattr(recipe, name) != Recipe.model_fields[name].default:
            raise TrainingError(
                f"recipe {recipe.name}, field {name}: the task is {options.task}, and boxes have "
                f"no use for it; remove the field, or choose the recipe {data.task.recipe}",
                code="other_task",
            )
