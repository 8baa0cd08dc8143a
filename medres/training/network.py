"""The two nets of a run: one that trains, and its float32 copy without random layers that is
measured and served.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from data_pipelines.preprocessing.spec import PreprocessSpec
from medres.backbones import fused_training_copy
from medres.backbones.build import functional
from medres.backbones.layer_graph import parents
from medres.errors import ModelError, TrainingError
from medres.models.classification import classifier, scaled

HEAD = "logits"
SEED_VARIABLE = "seed_generator_state"


def build(
    network: Mapping[str, Any],
    spec: PreprocessSpec,
    names: list[str],
    task: str,
    *,
    policy: str = "float32",
    stochastic_depth: float = 0.0,
    backbone: keras.Model | None = None,
) -> keras.Model:
    """Model units -> logits under a dtype policy. network: variant, version, stem, width, windows;
    backbone: instead of a variant.
    """
    with dtype_policy(policy):
        if backbone is not None:
            return _on(
                backbone,
                input_shape(spec),
                1 if task == "binary" else len(names),
                network["windows"],
            )
        options = {key: network[key] for key in ("version", "stem", "width", "windows")}
        return classifier(
            network["variant"],
            input_shape(spec),
            names,
            task=task,
            stochastic_depth=stochastic_depth,
            **options,
        )


def input_shape(spec: PreprocessSpec) -> tuple[int, ...]:
    """Shape of one image as the net receives it, before the windows."""
    return tuple(spec.shape)


def copy_weights(
    source: keras.Model, target: keras.Model, values: Mapping[str, np.ndarray] | None = None
) -> None:
    """Give `target` the weights of the like-named layers of `source`, or those in `values` (see
    `weights_of`).
    """
    given = weights_of(source) if values is None else values
    for name, variable in named_variables(target).items():
        variable.assign(given[name])


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    """float32 arrays by "layer/variable"; random states left out."""
    return {name: np.asarray(v.numpy(), np.float32) for name, v in named_variables(model).items()}


def named_variables(model: keras.Model) -> dict[str, Any]:
    """The weights of a model by "layer/variable", in the order of its layers."""
    return {
        f"{layer.name}/{v.name}": v
        for layer in model.layers
        for v in layer.weights
        if v.name != SEED_VARIABLE
    }


def stage_of(layer: str) -> str:
    """The stage that a layer belongs to: stem, stage1 ... stage4, head, or backbone for layers of
    other names.
    """
    if layer == HEAD:
        return "head"
    if layer.startswith("stem"):
        return "stem"
    first = layer.split("_")[0]
    return first if first.startswith("stage") and first[5:].isdigit() else "backbone"


def stages(model: keras.Model) -> dict[str, list[keras.layers.Layer]]:
    """Layers with weights by stage, from the image to the head."""
    found: dict[str, list[keras.layers.Layer]] = {}
    for layer in model.layers:
        if layer.weights:
            stage = stage_of(layer.name)
            if (
                stage == "backbone" and len(found) > 1
            ):  # the last norm of version 2 goes with the last stage
                stage = list(found)[-1]
            found.setdefault(stage, []).append(layer)
    return found


def rate_factors(model: keras.Model, decay: float) -> dict[str, float]:
    """Share of the rate by layer name: decay ** (stages between the layer's and the head, itself
    included).
    """
    groups = list(stages(model).values())
    return {
        layer.name: decay ** (len(groups) - 1 - depth)
        for depth, layers in enumerate(groups)
        for layer in layers
    }


def set_trainable(model: keras.Model, epoch: int, unfreeze: int, freeze_norm: bool) -> bool:
    """Make trainable what the recipe trains in an epoch (from 0). True where that differs from
    before.

    A frozen norm layer runs on its stored statistics and does not change them.
    """
    groups, changed = list(stages(model).values()), False
    open_stages = len(groups) if unfreeze == 0 else 1 + epoch // unfreeze
    for depth, layers in enumerate(groups):
        for layer in layers:
            wanted = depth >= len(groups) - open_stages and not (freeze_norm and is_norm(layer))
            changed |= layer.trainable != wanted
            layer.trainable = wanted
    return changed


def is_norm(layer: keras.layers.Layer) -> bool:
    return isinstance(
        layer,
        keras.layers.BatchNormalization
        | keras.layers.GroupNormalization
        | keras.layers.LayerNormalization,
    )


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Keras' default dtype policy inside the block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def backbone_sha256(backbone: keras.Model) -> str:
    """SHA-256 of a backbone's configuration and weights."""
    digest = hashlib.sha256(backbone.to_json().encode())
    for variable in backbone.weights:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()


def _on(backbone: keras.Model, shape: tuple[int, ...], outputs: int, windows: Any) -> keras.Model:
    """A copy of a self-made backbone behind the windows, with pooling and head; its weights are
    copied.

    backbone: functional, (batch, H, W, C) in -1..1 -> feature map or vector, C the number of
        windows (1 without).
    """
    image = keras.Input(shape, name="image", dtype="float32")
    x = scaled(image, windows)
    wanted = backbone.inputs[0].shape
    fits = len(wanted) == len(x.shape) and all(
        a is None or a == b for a, b in zip(wanted[1:], x.shape[1:], strict=True)
    )
    if len(backbone.inputs) != 1 or len(backbone.outputs) != 1 or not fits:
        raise TrainingError(
            f"the backbone takes {tuple(wanted)} and the data give {tuple(x.shape)}: build it for "
            f"one image of that shape"
        )
    x = rebuild_on(backbone, x)
    if len(x.shape) > 2:
        x = getattr(keras.layers, f"GlobalAveragePooling{len(x.shape) - 2}D")(name="pooled")(x)
    x = keras.layers.Dense(outputs, dtype="float32", name=HEAD)(x)
    return functional(image, x, f"{backbone.name}_classifier")


def rebuild_on(model: keras.Model, image: Any, prefix: str = "") -> Any:
    """The output of `model` drawn anew on a symbolic image, layer by layer: copies with its
    weights, named prefix + name.

    Raises TrainingError for a model within a model and for a layer that is called more than once.
    """
    try:
        fused_training_copy(model)
    except ModelError as error:
        raise TrainingError(str(error)) from None
    made: dict[str, Any] = {}
    for layer in functional(model.inputs[0], model.outputs[0], model.name).layers:
        if isinstance(layer, keras.layers.InputLayer):
            made[layer.name] = image
            continue
        given = [made[name] for name in parents(layer)]
        copy = type(layer).from_config(layer.get_config() | {"name": prefix + layer.name})
        made[layer.name] = copy(given if len(given) > 1 else given[0])
        copy.set_weights(layer.get_weights())
    last = model.outputs[0]._keras_history.operation
    if last.output is not model.outputs[0]:
        raise TrainingError(
            f"layer {last.name!r} of {model.name!r} is called more than once: give each call a "
            f"layer of its own"
        )
    return made[last.name]


def load_backbone(path: Any) -> keras.Model:
    """A self-made backbone from a .keras file of built-in layers. Raises TrainingError."""
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise TrainingError(
            f"{path}: Keras cannot open it as a backbone ({type(error).__name__})"
        ) from None
    return model
