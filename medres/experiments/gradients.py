"""Where the gradient goes: norms layer by layer, and the part of it that takes the shortcut of each
block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from medres.backbones.build import functional
from medres.backbones.layer_graph import ResidualBlock, residual_blocks
from medres.errors import ModelError

Loss = Callable[[Any, Any], Any]
ZERO = tf.UnconnectedGradients.ZERO


@dataclass(frozen=True)
class GradientFlow:
    """Two tables, each in the order of the network.

    layers: one row a layer with a kernel: `layer`, `depth` (1, 2, ...), `gradient_norm` and
        `weight_norm` (Frobenius) of it.
    blocks: one row a residual block: `block`, `depth`, `gradient_out` and `gradient_in` (the loss
        by the block's output and input, root mean square over the images), `shortcut_share` = |s| /
        (|s| + |b|) in 0..1, where s and b are the parts of the gradient that reach the input
        through the shortcut and through the branch. A plain net has no such rows.
    """

    layers: pd.DataFrame
    blocks: pd.DataFrame


def gradient_flow(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, *, loss: Loss | None = None
) -> GradientFlow:
    """One backward pass of `model` (functional; logits) in training mode on one batch; the model is
    left as it was.

    loss(labels, outputs) gives one value an image, or their mean. None: cross-entropy of the
    logits, binary for one output (labels 0 or 1), else of the class number. The gradients are of
    the mean over the batch. Raises ModelError.
    """
    if len(images) != len(labels) or len(images) == 0:
        raise ModelError(
            f"{len(images)} images and {len(labels)} labels: give as many of both, and at least one"
        )
    blocks = residual_blocks(model)
    wanted = {
        name
        for block in blocks
        for name in (block.name, block.source, block.shortcut, block.branch)
    }
    last = model.layers[-1].name
    tapped = functional(
        model.inputs[0], {name: model.get_layer(name).output for name in {*wanted, last}}
    )
    kernels = [(layer.name, layer.kernel) for layer in model.layers if hasattr(layer, "kernel")]
    before = [np.array(v) for v in model.non_trainable_variables]
    pixels = tf.convert_to_tensor(images, tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(pixels)
        outputs = tapped(pixels, training=True)
        value = tf.reduce_mean((loss or cross_entropy)(tf.convert_to_tensor(labels), outputs[last]))
    ends = {name: outputs[name] for block in blocks for name in (block.name, block.source)}
    at_kernels, at = tape.gradient(
        value, ([kernel.value for _, kernel in kernels], ends), unconnected_gradients=ZERO
    )
    layers = _layer_rows(kernels, at_kernels)
    rows = [_block_row(i, block, outputs, tape, at) for i, block in enumerate(blocks, start=1)]
    for variable, old in zip(model.non_trainable_variables, before, strict=True):
        variable.assign(old)
    columns = ["block", "depth", "gradient_out", "gradient_in", "shortcut_share"]
    return GradientFlow(layers, pd.DataFrame(rows, columns=columns))


def cross_entropy(labels: Any, logits: Any) -> Any:
    """One value an image."""
    if logits.shape[-1] == 1:
        return keras.losses.binary_crossentropy(
            tf.reshape(tf.cast(labels, tf.float32), (-1, 1)), logits, from_logits=True
        )
    return keras.losses.sparse_categorical_crossentropy(
        tf.reshape(labels, (-1,)), logits, from_logits=True
    )


def _layer_rows(kernels: list[tuple[str, Any]], gradients: list[Any]) -> pd.DataFrame:
    rows = [
        (name, depth, float(tf.norm(gradient)), float(tf.norm(kernel.value)))
        for depth, ((name, kernel), gradient) in enumerate(
            zip(kernels, gradients, strict=True), start=1
        )
    ]
    return pd.DataFrame(rows, columns=["layer", "depth", "gradient_norm", "weight_norm"])


def _block_row(
    depth: int, block: ResidualBlock, outputs: dict[str, Any], tape: Any, at: dict[str, Any]
) -> tuple:
    above, source = at[block.name], outputs[block.source]
    through = (
        above
        if block.shortcut == block.source
        else _back(tape, outputs[block.shortcut], source, above)
    )
    branch = (
        at[block.source] - through
        if block.closed
        else _back(tape, outputs[block.branch], source, above)
    )
    short, long = _rms(through), _rms(branch)
    share = short / (short + long) if short + long else float("nan")
    return block.name, depth, _rms(above), _rms(at[block.source]), share


def _back(tape: Any, end: Any, start: Any, gradient: Any) -> Any:
    """The gradient at `end`, taken back to `start` along the paths between them alone."""
    return tape.gradient(end, start, output_gradients=gradient, unconnected_gradients=ZERO)


def _rms(gradient: Any) -> float:
    """Root mean square, over the images, of the norm of each image's part; times the batch, to undo
    the mean of the loss.
    """
    array = np.asarray(gradient, "float64")
    return float(np.sqrt((array**2).sum(axis=tuple(range(1, array.ndim))).mean()) * len(array))
