"""The two models of a run: the one that trains, and its float32 copy without random layers that is
evaluated and served.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from data_pipelines.preprocessing.spec import PreprocessSpec
from medres.backbones.build import functional
from medres.backbones.inlining import flat_copy
from medres.backbones.variants import network_options
from medres.errors import ModelError, TrainingError
from medres.models.classification import classifier, scaled
from medres.tasks import task_named

HEAD = "logits"
# The layers that medres adds around a backbone of somebody's own.
RESERVED = re.compile(
    r"image|scale|windows|window\d+(_clip)?|channels|input_range|pooled|logits|views|"
    r"calibration|probability"
)
SEED_VARIABLE = "seed_generator_state"
UNNAMED = re.compile(r"^variable(_\d+)?$")


def build_classifier(
    network: Mapping[str, Any],
    spec: PreprocessSpec,
    names: list[str],
    task: str,
    *,
    policy: str = "float32",
    stochastic_depth: float = 0.0,
    backbone: keras.Model | None = None,
) -> keras.Model:
    """A model from images in model units to logits, under a dtype policy.

    network: variant, version, stem, width, windows, and perhaps image_scaling (of the kind of
        images) and input_scaling (of pretrained weights), as in config.json. names: of the findings
        or classes. backbone: a functional Keras model that replaces the variant.
    """
    with dtype_policy(policy):
        if backbone is not None:
            outputs = task_named(task).outputs(len(names))
            image = keras.Input(tuple(spec.shape), name="image", dtype="float32")
            x = scaled(image, network["windows"], network.get("image_scaling"))
            return classifier_on(backbone, image, x, outputs)
        return classifier(
            network["variant"],
            tuple(spec.shape),
            names,
            task=task,
            stochastic_depth=stochastic_depth,
            windows=network["windows"],
            scaling=network.get("image_scaling"),
            **network_options(network),
        )


def copy_weights(
    source: keras.Model, target: keras.Model, values: Mapping[str, np.ndarray] | None = None
) -> None:
    """Assign to `target` the weights of the layers with the same names in `source`, or the arrays
    in `values` (see `weights_of`).
    """
    arrays = weights_of(source) if values is None else values
    for name, variable in named_variables(target).items():
        variable.assign(arrays[name])


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    """float32 arrays by "layer/variable", without the states of random generators."""
    return {name: np.asarray(v.numpy(), np.float32) for name, v in named_variables(model).items()}


def named_variables(model: keras.Model) -> dict[str, Any]:
    """The weights of a model by "layer/variable", in the order of its layers. A variable without a
    name of its own, which Keras numbers through all models, is called "variable".
    """
    return {
        f"{layer.name}/{UNNAMED.sub('variable', v.name)}": v
        for layer in model.layers
        for v in layer.weights
        if v.name != SEED_VARIABLE
    }


def stage_of(layer: str) -> str:
    """The stage of a layer by its name: stem, stage1 ... stage4, decoder, head, or backbone for any
    other name.

    >>> stage_of("stage2_block1_conv1"), stage_of("logits")
    ('stage2', 'head')
    """
    if layer == HEAD:
        return "head"
    for part in ("stem", "decoder"):
        if layer.startswith(part):
            return part
    first = layer.split("_")[0]
    return first if first.startswith("stage") and first[5:].isdigit() else "backbone"


def stages(model: keras.Model) -> dict[str, list[keras.layers.Layer]]:
    """The layers with weights by stage, from the image to the head."""
    groups: dict[str, list[keras.layers.Layer]] = {}
    for layer in model.layers:
        if layer.weights:
            stage = stage_of(layer.name)
            if stage == "backbone" and len(groups) > 1:
                stage = list(groups)[-1]  # the last norm of version 2 belongs to the last stage
            groups.setdefault(stage, []).append(layer)
    return groups


def rate_factors(model: keras.Model, decay: float) -> dict[str, float]:
    """The factor of the learning rate by layer name: 1 for the head, decay for the stage before
    it, decay ** 2 for the stage before that, ...
    """
    groups = list(stages(model).values())
    return {
        layer.name: decay ** (len(groups) - 1 - depth)
        for depth, layers in enumerate(groups)
        for layer in layers
    }


def set_trainable(model: keras.Model, epoch: int, unfreeze: int, freeze_norm: bool) -> bool:
    """Freeze and unfreeze layers for an epoch (counted from 0). Returns True where that changed
    any layer.

    unfreeze, freeze_norm: see Recipe. A frozen norm layer uses its stored statistics and does not
        change them.
    """
    groups, changed = list(stages(model).values()), False
    open_stages = len(groups) if unfreeze == 0 else 1 + epoch // unfreeze
    for depth, layers in enumerate(groups):
        for layer in layers:
            trainable = depth >= len(groups) - open_stages and not (freeze_norm and is_norm(layer))
            changed |= layer.trainable != trainable
            layer.trainable = trainable
    return changed


def is_norm(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a batch, group or layer normalization."""
    return isinstance(
        layer,
        keras.layers.BatchNormalization
        | keras.layers.GroupNormalization
        | keras.layers.LayerNormalization,
    )


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Keras' default dtype policy inside the block."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


def backbone_sha256(backbone: keras.Model) -> str:
    """SHA-256 of a backbone's configuration and weights."""
    digest = hashlib.sha256(backbone.to_json().encode())
    for variable in backbone.weights:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()


def classifier_on(backbone: keras.Model, image: Any, x: Any, outputs: int) -> keras.Model:
    """A copy of the user's backbone, with its weights, between its input and pooling and head.

    backbone: functional, (batch, H, W, C) -> feature map or vector. image: the input of the model.
    x: made from it, the input of the backbone. Raises TrainingError (codes backbone_shape,
        whole_classifier, backbone_layers).
    """
    expected = backbone.inputs[0].shape
    fits = len(expected) == len(x.shape) and all(
        size is None or size == given for size, given in zip(expected[1:], x.shape[1:], strict=True)
    )
    if len(backbone.inputs) != 1 or len(backbone.outputs) != 1 or not fits:
        raise TrainingError(
            f"the backbone expects {tuple(expected)} and the images have the shape "
            f"{tuple(x.shape)}: build a backbone with one input of that shape and one output",
            code="backbone_shape",
        )
    require_backbone(backbone)
    taken = any(RESERVED.fullmatch(layer.name) for layer in backbone.layers)
    x = rebuild_on(backbone, x, "backbone_" if taken else "")
    if len(x.shape) > 2:
        x = getattr(keras.layers, f"GlobalAveragePooling{len(x.shape) - 2}D")(name="pooled")(x)
    x = keras.layers.Dense(outputs, dtype="float32", name=HEAD)(x)
    return functional(image, x, f"{backbone.name}_classifier")


def rebuild_on(model: keras.Model, image: Any, prefix: str = "") -> Any:
    """The output of a copy of `model`, built layer by layer on a symbolic image (see
    `medres.backbones.inlining.flat_copy`). The copied layers have the same weights and are named
    prefix + name.

    Raises TrainingError (code backbone_layers) for an operation that is no layer, and for a layer
    or a nested model that is called more than once.
    """
    try:
        return flat_copy(model, image, prefix)
    except ModelError as error:
        raise TrainingError(str(error), code="backbone_layers") from None


def require_backbone(model: keras.Model) -> None:
    """Raise TrainingError (code whole_classifier) for a model of `medres.classifier` or of a medres
    file, which has the scaling and the head that training adds to a backbone.
    """
    names = {layer.name for layer in model.layers}
    ends_in_head = model.outputs[0]._keras_history.operation.name in (HEAD, "probability")
    if ends_in_head or {"scale", HEAD} <= names:
        raise TrainingError(
            f"{model.name!r} is a whole classifier, with its own scaling and its own {HEAD}: "
            f"training adds both to a backbone. Give the variant and the options of the classifier "
            f"instead, for instance model='resnet18', stem='imagenet', width=64, or the backbone "
            f"alone: medres.backbones.resnet(18, input_shape). To start from its weights, save it "
            f"with model.save and give the file as weights",
            code="whole_classifier",
        )


def load_backbone(path: Path | str) -> keras.Model:
    """The user's backbone from a .keras file with built-in layers. Raises TrainingError (code
    backbone_unreadable).
    """
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise TrainingError(
            f"{path}: Keras cannot open this file as a backbone ({type(error).__name__}): save the "
            f"model with model.save, with Keras' own layers only",
            code="backbone_unreadable",
        ) from None
