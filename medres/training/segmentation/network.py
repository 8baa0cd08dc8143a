"""The segmenter of a run, its loss, and the checks of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from data_pipelines.preprocessing.spec import PreprocessSpec
from medres.artefact.masks import flips_fit
from medres.backbones.variants import network_options
from medres.errors import TrainingError
from medres.losses import DiceCrossentropy, FocalCrossentropy, Tversky
from medres.models import segmenter
from medres.training.config.recipe import Recipe
from medres.training.data import TrainingData
from medres.training.network import dtype_policy

MAX_CLASSES = 255  # with the background: label maps are uint8
#: fields of a recipe that have no meaning for label maps
_UNUSED = ("mixup", "cutmix", "focal", "ordinal", "uncertain")
_LOSSES: dict[str, type[keras.losses.Loss]] = {
    "dice_crossentropy": DiceCrossentropy,
    "tversky": Tversky,
    "focal": FocalCrossentropy,
}


def input_shape(network: Mapping[str, Any], spec: PreprocessSpec) -> tuple[int, ...]:
    """The shape that the network sees: of a patch, or of the whole sample.

    network: as in config.json.
    """
    patch = network.get("patch")
    return tuple(spec.shape) if patch is None else (*patch, spec.shape[-1])


def build_segmenter(
    network: Mapping[str, Any],
    spec: PreprocessSpec,
    names: list[str],
    *,
    policy: str = "float32",
    stochastic_depth: float = 0.0,
    deep_supervision: bool = False,
) -> keras.Model:
    """A model from images in model units to the logits of each pixel, under a dtype policy.

    network: as in config.json. names: of the classes, the background first. deep_supervision: of
    the model that trains; see `medres.segmenter`.
    """
    options: dict[str, Any] = network_options(network)
    options |= {"stochastic_depth": stochastic_depth} if stochastic_depth else {}
    with dtype_policy(policy):
        return segmenter(
            network["variant"],
            input_shape(network, spec),
            names,
            decoder=network["decoder"],
            windows=network["windows"],
            scaling=network.get("image_scaling"),
            deep_supervision=deep_supervision,
            **options,
        )


def pixel_loss(name: str, recipe: Recipe, names: tuple[str, ...], **options: Any) -> Any:
    """The Keras loss of a run. names: of the classes, the background first. options: further ones
    of the loss. Raises TrainingError (unknown_finding, other_task).
    """
    chosen: dict[str, Any] = dict(options)
    if isinstance(recipe.class_weights, dict):
        if unknown := sorted(set(recipe.class_weights) - set(names)):
            raise TrainingError(
                f"recipe, field class_weights: {', '.join(unknown)} is not among the classes "
                f"{', '.join(names)}",
                code="unknown_finding",
            )
        chosen["class_weights"] = [recipe.class_weights.get(each, 1.0) for each in names]
    kind = _LOSSES[name]
    if recipe.smoothing:
        if kind is not DiceCrossentropy:
            raise _other_task("smoothing", "it is a part of the loss dice_crossentropy alone")
        chosen["label_smoothing"] = recipe.smoothing
    if kind is FocalCrossentropy:
        chosen.pop("batch", None)
    return kind(**chosen)


def check_segmentation(
    data: TrainingData,
    recipe: Recipe,
    patch: tuple[int, ...] | None,
    flips: tuple[tuple[int, ...], ...] = (),
) -> None:
    """Raise TrainingError unless a segmenter can be trained: empty_split, too_many_classes,
    other_task (a field of the recipe that has no meaning here), bad_patch, bad_flips.
    """
    for split in ("train", "tune"):
        if not len(data.rows(split)):
            raise TrainingError(
                f"the {split} split has no image with a usable mask for preset "
                f"{data.cache.spec.name}: annotate more patients, or ingest with another split",
                code="empty_split",
            )
    if len(data.targets.names) > MAX_CLASSES:
        raise TrainingError(
            f"{len(data.targets.names)} classes with the background; at most {MAX_CLASSES} fit "
            f"into a label map: join some of them with --mask-classes",
            code="too_many_classes",
        )
    for name in _UNUSED:
        if getattr(recipe, name) != Recipe.model_fields[name].default:
            raise _other_task(name, "label maps have no use for it")
    if recipe.class_weights == "balanced":
        raise _other_task("class_weights", "give the weights of the classes by name")
    shape = data.cache.mask_shape or ()
    fits = patch is None or (
        len(patch) == len(shape)
        and all(0 < side <= whole for side, whole in zip(patch, shape, strict=True))
    )
    if not fits:
        raise TrainingError(
            f"setting patch: {patch} does not fit into the prepared images {shape}: give "
            f"{len(shape)} sizes, none larger",
            code="bad_patch",
        )
    if not flips_fit(flips, len(shape)):
        raise TrainingError(
            f"setting flips: {[list(axes) for axes in flips]}: give different sets of axes from 0 "
            f"to {len(shape) - 1}, each in ascending order, such as [[{len(shape) - 1}]]",
            code="bad_flips",
        )


def _other_task(field: str, reason: str) -> TrainingError:
    return TrainingError(
        f"recipe, field {field}: the task is segmentation, and {reason}; remove the field",
        code="other_task",
    )
