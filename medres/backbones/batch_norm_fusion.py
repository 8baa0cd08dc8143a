"""The same network, faster: a twin to train with TensorFlow's fused batch normalisation, and a copy
to predict with without any.

Keras computes batch normalisation in float32 from elementary operations, whatever the dtype policy;
TensorFlow has one kernel for it, which reads bfloat16 and keeps its statistics in float32, and
which its graph optimiser joins with the ReLU that follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from medres.backbones.build import functional
from medres.backbones.layer_graph import parents
from medres.errors import ModelError

Tensor = Any  # keras.KerasTensor while drawing, tf.Tensor while computing
KERNEL_TYPES = ("float32", "bfloat16", "float16")  # of FusedBatchNormV3; its statistics are float32


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """A built-in BatchNormalization by TensorFlow's fused kernel; it holds that layer's variables,
    and follows its `trainable`.
    """

    def __init__(self, norm: keras.layers.BatchNormalization) -> None:
        super().__init__(
            momentum=norm.momentum, epsilon=norm.epsilon, name=norm.name, dtype=norm.dtype_policy
        )
        self._source = lambda: norm  # not an attribute that Keras would count as a layer within

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        norm = self._source()
        self.gamma, self.beta = norm.gamma, norm.beta
        self.moving_mean, self.moving_variance = norm.moving_mean, norm.moving_variance

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        learning = bool(training and self.trainable and self._source().trainable)
        x = _four_axes(inputs)
        statistics = (
            [tf.zeros(0)] * 2 if learning else [self.moving_mean.value, self.moving_variance.value]
        )
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=statistics[0],
            variance=statistics[1],
            epsilon=self.epsilon,
            is_training=learning,
        )
        if learning:
            count = tf.cast(tf.size(x, tf.int64) // x.shape[-1], tf.float32)
            self._follow(self.moving_mean, mean)
            self._follow(
                self.moving_variance, variance * (count - 1) / count
            )  # the kernel divides by count - 1, Keras by count
        return y if x is inputs else tf.reshape(y, tf.shape(inputs))

    def _follow(self, moving: keras.Variable, batch: Tensor) -> None:
        moving.assign(moving.value * self.momentum + batch * (1 - self.momentum))

    def get_config(self) -> dict[str, Any]:
        raise ModelError(
            f"layer {self.name!r} is of a training twin, which is not saved: save the model that "
            f"the twin was made of"
        )


def _four_axes(x: Tensor) -> Tensor:
    """The kernel wants (batch, height, width, channels); the statistics are those of any other
    shape.
    """
    return x if len(x.shape) == 4 else tf.reshape(x, (tf.shape(x)[0], 1, -1, x.shape[-1]))


def training_twin(model: keras.Model) -> keras.Model:
    """The functional `model` with each BatchNormalization computed by TensorFlow's fused kernel;
    every variable is shared.

    Train the twin (compile, fit), save and export `model`: it holds the same variables, in the same
    order, and built-in layers alone. Outputs, gradients and moving statistics agree to rounding, in
    training and in inference; mixed policies keep their statistics in float32. Layers keep their
    names; what is frozen in `model`, before or after, is frozen in the twin. A layer that the
    kernel cannot compute (synchronized, float64, renorm, another axis, no gamma or beta) is the
    model's own.
    Raises ModelError for a model within a model, and for layers called more than once: give the
    inner model.
    """
    return _rebuild(
        model, lambda layer, x: (FusedBatchNormalization(layer) if _fusible(layer) else layer)(x)
    )


def _fusible(layer: keras.Layer) -> bool:
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.axis in (-1, len(layer.input.shape) - 1)
        and layer.compute_dtype in KERNEL_TYPES
        and layer.center
        and layer.scale
        and not (layer.synchronized or layer.renorm)
    )


def folded(model: keras.Model) -> keras.Model:
    """A copy of the functional `model` for inference: each batch normalisation is folded into the
    convolution before it.

    gamma (W x - mean) / sqrt(variance + epsilon) + beta = W' x + b'. Built-in layers alone, with
    weights of its own (it does not follow later training); layers keep their names, the folded
    normalisations are gone. TensorFlow computes convolution, bias, sum and ReLU of such a graph as
    one operation. A normalisation with no convolution of its own before it (version "2" has them)
    stays. Outputs agree with the model's to rounding. Raises ModelError as `training_twin` does.
    """
    takers: dict[str, list[keras.Layer]] = {}
    for layer in model.layers:
        for name in parents(layer):
            takers.setdefault(name, []).append(layer)
    outputs = {tensor._keras_history.operation.name for tensor in model.outputs}
    norms = {
        layer.name: takers[layer.name][0]
        for layer in model.layers
        if _convolves(layer)
        and layer.name not in outputs
        and [_normalises(taker) for taker in takers[layer.name]] == [True]
    }
    gone = {norm.name for norm in norms.values()}

    def draw(layer: keras.Layer, x: Tensor) -> Tensor:
        if layer.name in gone:
            return x
        config, weights = layer.get_config(), layer.get_weights()
        if layer.name in norms:
            config["use_bias"], weights = True, _folded_weights(layer, norms[layer.name])
        copy = type(layer).from_config(config)
        y = copy(x)
        copy.set_weights(weights)
        return y

    return _rebuild(model, draw)


def _convolves(layer: keras.Layer) -> bool:
    kinds = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
    return type(layer) in kinds and layer.activation is keras.activations.linear


def _normalises(layer: keras.Layer) -> bool:
    return type(layer) is keras.layers.BatchNormalization and layer.axis in (
        -1,
        len(layer.input.shape) - 1,
    )


def _folded_weights(conv: keras.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Kernel and bias, computed in float64."""
    held = {v.name: np.asarray(v, "float64") for v in norm.weights}
    bias = np.asarray(conv.bias, "float64") if conv.use_bias else 0.0
    gain = held.get("gamma", 1.0) / np.sqrt(held["moving_variance"] + norm.epsilon)
    return [
        np.asarray(conv.kernel, "float64") * gain,
        (bias - held["moving_mean"]) * gain + held.get("beta", 0.0),
    ]


def _rebuild(model: keras.Model, draw: Callable[[keras.Layer, Tensor], Tensor]) -> keras.Model:
    """`model` drawn anew from its inputs: draw(layer, what it takes) gives the output of each
    layer.
    """
    if isinstance(model, keras.Sequential):
        model = functional(model.inputs[0], model.outputs[0], model.name)
    drawn: dict[str, Tensor] = {}
    calls: dict[str, int] = {}

    def anew(tensor: Tensor) -> Tensor:
        layer, call, _ = tensor._keras_history
        if calls.setdefault(layer.name, call) != call:
            raise ModelError(
                f"layer {layer.name!r} of {model.name!r} is called more than once: give each call "
                f"a layer of its own"
            )
        return drawn[layer.name]

    for layer in model.layers:
        if isinstance(layer, keras.Model):
            raise ModelError(
                f"layer {layer.name!r} of {model.name!r} is a model within a model: give the "
                f"inner one"
            )
        given = isinstance(layer, keras.layers.InputLayer)
        drawn[layer.name] = (
            layer.output if given else draw(layer, keras.tree.map_structure(anew, layer.input))
        )
    return functional(model.input, keras.tree.map_structure(anew, model.output), model.name)
