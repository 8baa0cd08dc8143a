"""The flow of the gradient: its norm per layer, and the share of it through the shortcut of each
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

    layers: one row per layer with a kernel: `layer`, `depth` (1, 2, ...), `gradient_norm` and
        `weight_norm` (Frobenius norms).
    blocks: one row per residual block: `block`, `depth`, `gradient_out` and `gradient_in` (norms of
        the gradient of the loss at the output and at the input of the block, root mean square over
        the images), `shortcut_share` = |s| / (|s| + |b|) in 0..1, where s and b are the parts of
        the gradient that reach the input through the shortcut and through the residual branch. A
        plain network has no such rows.
    """

    layers: pd.DataFrame
    blocks: pd.DataFrame


def gradient_flow(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, *, loss: Loss | None = None
) -> GradientFlow:
    """Measure the gradients of one backward pass of `model` (functional; output: logits) in
    training mode on one batch. The model is not changed.

    images: (n, rows, columns, channels), in the units of the model's input. labels: (n,). loss:
    (labels, outputs) -> one value per image, or their mean; default: cross-entropy of the logits,
    binary for one output (labels 0 or 1), else of the class number. The gradients are those of the
    mean over the batch. Raises ModelError if the numbers of images and labels differ.
    """
    if len(images) != len(labels) or len(images) == 0:
        raise ModelError(
            f"{len(images)} images and {len(labels)} labels: give one label per image, and at "
            f"least one image",
            code="shapes",
        )
    blocks = residual_blocks(model)
    observed = {
        name
        for block in blocks
        for name in (block.name, block.source, block.shortcut, block.branch)
    }
    last = model.layers[-1].name
    observed_model = functional(
        model.inputs[0], {name: model.get_layer(name).output for name in {*observed, last}}
    )
    kernels = [(layer.name, layer.kernel) for layer in model.layers if hasattr(layer, "kernel")]
    saved_values = [np.array(v) for v in model.non_trainable_variables]
    pixels = tf.convert_to_tensor(images, tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(pixels)
        outputs = observed_model(pixels, training=True)
        value = tf.reduce_mean((loss or cross_entropy)(tf.convert_to_tensor(labels), outputs[last]))
    ends = {name: outputs[name] for block in blocks for name in (block.name, block.source)}
    kernel_gradients, gradients = tape.gradient(
        value, ([kernel.value for _, kernel in kernels], ends), unconnected_gradients=ZERO
    )
    layers = _layer_rows(kernels, kernel_gradients)
    rows = [
        _block_row(i, block, outputs, tape, gradients) for i, block in enumerate(blocks, start=1)
    ]
    for variable, value_before in zip(model.non_trainable_variables, saved_values, strict=True):
        variable.assign(value_before)
    columns = ["block", "depth", "gradient_out", "gradient_in", "shortcut_share"]
    return GradientFlow(layers, pd.DataFrame(rows, columns=columns))


def cross_entropy(labels: Any, logits: Any) -> Any:
    """Cross-entropy of logits (n, classes); one value per image."""
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
    depth: int, block: ResidualBlock, outputs: dict[str, Any], tape: Any, gradients: dict[str, Any]
) -> tuple:
    gradient_out, source = gradients[block.name], outputs[block.source]
    shortcut = (
        gradient_out
        if block.shortcut == block.source
        else _backpropagate(tape, outputs[block.shortcut], source, gradient_out)
    )
    branch = (
        gradients[block.source] - shortcut
        if block.closed
        else _backpropagate(tape, outputs[block.branch], source, gradient_out)
    )
    s, b = _rms(shortcut), _rms(branch)
    share = s / (s + b) if s + b else float("nan")
    return block.name, depth, _rms(gradient_out), _rms(gradients[block.source]), share


def _backpropagate(tape: Any, end: Any, start: Any, gradient: Any) -> Any:
    """The gradient at `start` of a gradient at `end`, along the paths between them only."""
    return tape.gradient(end, start, output_gradients=gradient, unconnected_gradients=ZERO)


def _rms(gradient: Any) -> float:
    """Root mean square over the images of the norm per image, times the batch size to undo the mean
    of the loss.
    """
    array = np.asarray(gradient, "float64")
    return float(np.sqrt((array**2).sum(axis=tuple(range(1, array.ndim))).mean()) * len(array))
