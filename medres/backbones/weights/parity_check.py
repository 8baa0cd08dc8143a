"""One random image through the source and through the model: the check that transferred weights
mean the same.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from medres.backbones.build import functional
from medres.backbones.weights.names import SourceWeights

APPLICATIONS = {6: "ResNet50", 23: "ResNet101", 36: "ResNet152"}  # by the blocks of conv4
SIDE = 64  # of the probe, where the model's own size is open


def probe(
    model: keras.Model, weights: SourceWeights, path: Path | None, rgb: str | None
) -> tuple[float | None, str | None]:
    """(greatest absolute difference of the last feature maps, None) or (None, why it could not be
    taken).
    """
    body = trunk(model)
    *space, channels = body.inputs[0].shape[1:]
    if weights.kind == "torch":
        return None, "a torch state dict holds no model, and torch is not used here"
    if rgb in ("mean", "copy"):
        return None, f"input channels were adapted by {rgb}, which changes the output on purpose"
    if weights.kind == "keras.applications" and len(space) == 3:
        return None, "a 2D source cannot be run on a volume"
    source, why = _application(weights) if weights.kind == "keras.applications" else _saved(path)
    if source is None:
        return None, why
    wanted = source.inputs[0].shape
    if len(wanted) != len(space) + 2 or (wanted[-1] != channels and rgb is None):
        return None, "the source takes another shape of input"
    drawn = channels if rgb is None else 1  # adapted channels agree where all are equal
    image = (
        np.random.default_rng(0)
        .normal(size=(1, *(n or SIDE for n in space), drawn))
        .astype("float32")
    )
    ours, theirs = (
        np.asarray(net(np.repeat(image, n // drawn, axis=-1)))
        for net, n in ((body, channels), (source, wanted[-1]))
    )
    return float(np.abs(ours.astype("float64") - theirs).max()), None


def trunk(model: keras.Model) -> keras.Model:
    """From what enters the stem (after windows and scaling) to the last named stage."""
    names = [layer.name for layer in model.layers]
    start = model.get_layer("scale").output if "scale" in names else model.inputs[0]
    last = max(name for name in names if name.startswith("stage") and name[5:].isdigit())
    return functional(start, model.get_layer(last).output)


def _application(weights: SourceWeights) -> tuple[keras.Model | None, str | None]:
    """keras.applications' own network with these weights."""
    blocks = sum(
        name.startswith("stage3_") and name.endswith("_conv1/kernel") for name in weights.arrays
    )
    if blocks not in APPLICATIONS:
        return None, "keras.applications has no ResNet of this depth"
    source = getattr(keras.applications, APPLICATIONS[blocks])(weights=None, include_top=False)
    given = {theirs: weights.arrays[ours] for ours, theirs in weights.names.items()}
    for layer in source.layers:
        for variable in layer.weights:
            value = given.get(f"{layer.name}/{variable.name}")
            if value is None or value.shape != tuple(variable.shape):
                return None, f"the file does not fill keras.applications' {layer.name}"
            variable.assign(value)
    return source, None


def _saved(path: Path | None) -> tuple[keras.Model | None, str | None]:
    if path is None or path.suffix != ".keras":
        return None, "only a .keras file holds a model that can be run"
    return trunk(keras.saving.load_model(path, compile=False)), None
