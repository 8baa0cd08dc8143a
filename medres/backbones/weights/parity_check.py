"""One random image through the source and through the model: the check that transferred weights
give the same features.
"""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np

from medres.backbones.input_scaling import INPUT_SCALING
from medres.backbones.layer_graph import functional
from medres.backbones.weights.names import SourceWeights

# By the blocks of a ResNet, or the layers of a DenseNet, in the third stage.
APPLICATIONS = {
    ("block", 6): "ResNet50",
    ("block", 23): "ResNet101",
    ("block", 36): "ResNet152",
    ("layer", 24): "DenseNet121",
    ("layer", 32): "DenseNet169",
    ("layer", 48): "DenseNet201",
}
UNIT = re.compile(r"stage3_(block|layer)\d+_conv1/kernel")
PADDING = "pad"  # the layer that makes the sides multiples of the stride
SIDE = 64  # pixels of the random image, where the size of the model is not fixed


def probe(
    model: keras.Model, weights: SourceWeights, path: Path | None, rgb: str | None
) -> tuple[float | None, str | None]:
    """(greatest absolute difference of the last feature maps, None), or (None, why it could not be
    measured).
    """
    body = trunk(model)
    *space, channels = body.inputs[0].shape[1:]
    if weights.kind == "torch":
        return None, "a torch state dict holds no model, and medres does not use torch"
    if rgb in ("mean", "copy"):
        return None, f"input channels were adapted by {rgb}, which changes the output on purpose"
    if weights.kind == "keras.applications" and len(space) == 3:
        return None, "a 2D source cannot be run on a volume"
    source, why = _application(weights) if weights.kind == "keras.applications" else _saved(path)
    if source is None:
        return None, why
    source_shape = source.inputs[0].shape
    if len(source_shape) != len(space) + 2 or (source_shape[-1] != channels and rgb is None):
        return None, "the source takes an input of another shape"
    independent = channels if rgb is None else 1  # adapted channels agree if all are equal
    image = (
        np.random.default_rng(0)
        .normal(size=(1, *(n or SIDE for n in space), independent))
        .astype("float32")
    )
    ours, theirs = (
        np.asarray(net(np.repeat(image, n // independent, axis=-1)))
        for net, n in ((body, channels), (source, source_shape[-1]))
    )
    return float(np.abs(ours.astype("float64") - theirs).max()), None


def trunk(model: keras.Model) -> keras.Model:
    """The part of `model` from the input of the stem (after windows, scaling and padding, which a
    segmenter and a detector do differently) to its last stage.
    """
    names = [layer.name for layer in model.layers]
    scaling = next((name for name in (PADDING, INPUT_SCALING, "scale") if name in names), None)
    start = model.inputs[0] if scaling is None else model.get_layer(scaling).output
    last = max(name for name in names if name.startswith("stage") and name[5:].isdigit())
    return functional(start, model.get_layer(last).output)


def _application(weights: SourceWeights) -> tuple[keras.Model | None, str | None]:
    """keras.applications' own network with these weights."""
    units = [match[1] for name in weights.arrays if (match := UNIT.fullmatch(name))]
    network = APPLICATIONS.get((units[0], len(units))) if units else None
    if network is None:
        return None, "keras.applications has no ResNet or DenseNet of this depth"
    source = getattr(keras.applications, network)(weights=None, include_top=False)
    arrays = {theirs: weights.arrays[ours] for ours, theirs in weights.names.items()}
    for layer in source.layers:
        for variable in layer.weights:
            value = arrays.get(f"{layer.name}/{variable.name}")
            if value is None or value.shape != tuple(variable.shape):
                return None, f"the file has no weights for {layer.name} of keras.applications"
            variable.assign(value)
    return source, None


def _saved(path: Path | None) -> tuple[keras.Model | None, str | None]:
    if path is None or path.suffix != ".keras":
        return None, "only a .keras file holds a model that can be run"
    return trunk(keras.saving.load_model(path, compile=False)), None
