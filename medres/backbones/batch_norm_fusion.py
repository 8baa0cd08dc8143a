"""The same network, faster: a copy for training with TensorFlow's fused batch normalization, and a
copy for inference with the batch normalization folded into the convolutions.

Keras computes batch normalization in float32 from elementary operations, whatever the dtype policy.
TensorFlow has one kernel for it, which reads bfloat16 and keeps its statistics in float32, and
which the graph optimizer of TensorFlow joins with the ReLU that follows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from medres.backbones.build import functional
from medres.backbones.layer_graph import layer_calls
from medres.errors import ModelError

Tensor = Any  # keras.KerasTensor while a graph is built, tf.Tensor while it is computed
KERNEL_TYPES = ("float32", "bfloat16", "float16")  # of FusedBatchNormV3; its statistics are float32


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """A built-in BatchNormalization computed by TensorFlow's fused kernel. It holds the variables
    of that layer and follows its `trainable`.
    """

    def __init__(self, norm: keras.layers.BatchNormalization) -> None:
        super().__init__(
            momentum=norm.momentum, epsilon=norm.epsilon, name=norm.name, dtype=norm.dtype_policy
        )
        self.source = lambda: norm  # an attribute would be tracked by Keras as a sublayer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        norm = self.source()
        self.gamma, self.beta = norm.gamma, norm.beta
        self.moving_mean, self.moving_variance = norm.moving_mean, norm.moving_variance

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        updates_statistics = bool(training and self.trainable and self.source().trainable)
        if updates_statistics and _replicas() > 1:
            return self._synchronized(inputs)
        x = _four_axes(inputs)
        statistics = (
            [tf.zeros(0)] * 2
            if updates_statistics
            else [self.moving_mean.value, self.moving_variance.value]
        )
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=statistics[0],
            variance=statistics[1],
            epsilon=self.epsilon,
            is_training=updates_statistics,
        )
        if updates_statistics:
            count = tf.cast(tf.size(x, tf.int64) // x.shape[-1], tf.float32)
            self._update(self.moving_mean, mean)
            self._update(
                self.moving_variance, variance * (count - 1) / count
            )  # the kernel divides by count - 1, Keras by count
        return y if x is inputs else tf.reshape(y, tf.shape(inputs))

    def _synchronized(self, inputs: Tensor) -> Tensor:
        """With the statistics of the whole batch, which several devices share: their means and
        mean squares are summed as one vector.
        """
        x = tf.cast(inputs, tf.float32)
        axes = list(range(len(x.shape) - 1))
        local_mean, local_variance = tf.nn.moments(x, axes)
        packed = tf.stack([local_mean, local_variance + tf.square(local_mean)])
        context = tf.distribute.get_replica_context()
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, packed)
        mean, mean_square = tf.unstack(total / _replicas())
        variance = tf.maximum(mean_square - tf.square(mean), 0.0)
        self._update(self.moving_mean, mean)
        self._update(self.moving_variance, variance)
        y = tf.nn.batch_normalization(
            x, mean, variance, self.beta.value, self.gamma.value, self.epsilon
        )
        return tf.cast(y, inputs.dtype)

    def _update(self, moving: keras.Variable, batch: Tensor) -> None:
        moving.assign(moving.value * self.momentum + batch * (1 - self.momentum))

    def get_config(self) -> dict[str, Any]:
        raise ModelError(
            f"layer {self.name!r} belongs to a fused training copy, which Keras cannot save: "
            f"medres.save takes it, model.save takes the original model, which shares its "
            f"variables, and a ModelCheckpoint needs save_weights_only=True",
            code="training_copy",
        )


def _replicas() -> int:
    """The number of devices that share the batch of this step; 1 outside a step of several."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def _four_axes(x: Tensor) -> Tensor:
    """The kernel takes (batch, height, width, channels). A reshape does not change the statistics
    per channel.
    """
    return x if len(x.shape) == 4 else tf.reshape(x, (tf.shape(x)[0], 1, -1, x.shape[-1]))


def fused_training_copy(model: keras.Model) -> keras.Model:
    """A copy of the functional `model` whose BatchNormalization layers use TensorFlow's fused
    kernel. It shares every variable with `model`.

    Where several devices share a batch (tf.distribute), the statistics are of the whole batch.

    Train the copy (compile, fit). `medres.save` and `medres.score` take either of the two. Keras
    saves and exports `model`, which holds the same variables in the same order and has built-in
    layers only. Outputs, gradients and moving statistics agree to
    rounding, in training and in inference; mixed policies keep their statistics in float32. Layers
    keep their names; a layer that is frozen in `model`, before or after, is frozen in the copy. A
    layer that the kernel cannot compute (synchronized, float64, renorm, another axis, no gamma or
    beta) is the layer of `model` itself. A layer that is called several times, such as a head that
    several feature maps share, is one layer in the copy. Raises ModelError for a nested model.
    """
    return _rebuild(
        model, lambda layer: FusedBatchNormalization(layer) if _fusible(layer) else layer
    )


def built_in_twin(model: keras.Model) -> keras.Model:
    """The model of which `model` is a `fused_training_copy`, with the same variables; any other
    model as it is.
    """
    if not any(isinstance(layer, FusedBatchNormalization) for layer in model.layers):
        return model
    return _rebuild(
        model, lambda layer: layer.source() if isinstance(layer, FusedBatchNormalization) else layer
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


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """A copy of the functional `model` for inference: each batch normalization is folded into the
    convolution before it.

    gamma (W x - mean) / sqrt(variance + epsilon) + beta = W' x + b'. The copy has built-in layers
    only and weights of its own, so later training of `model` does not change it. Layers keep their
    names; the folded normalizations are gone. TensorFlow computes convolution, bias, sum and ReLU
    of such a graph as one operation. A normalization without a convolution of its own before it
    (as in version "2") stays. The outputs agree with those of `model` to rounding. Raises
    ModelError as `fused_training_copy` does.
    """
    calls = layer_calls(model)
    count = Counter(call.layer.name for call in calls)
    consumers: dict[str, list[keras.Layer]] = {}
    for call in calls:
        for name in call.parents:
            consumers.setdefault(name, []).append(call.layer)
    outputs = {tensor._keras_history.operation.name for tensor in model.outputs}
    norms = {
        call.layer.name: consumers[call.layer.name][0]
        for call in calls
        if _is_linear_convolution(call.layer)
        and call.layer.name not in outputs
        and [_is_batch_norm(consumer) for consumer in consumers[call.layer.name]] == [True]
    }
    norms = {name: norm for name, norm in norms.items() if count[name] == count[norm.name] == 1}
    removed = {norm.name for norm in norms.values()}

    def copy_of(layer: keras.Layer) -> Callable[[Tensor], Tensor]:
        if layer.name in removed:
            return lambda x: x
        config, weights = layer.get_config(), layer.get_weights()
        if layer.name in norms:
            config["use_bias"], weights = True, _folded_weights(layer, norms[layer.name])
        copy = type(layer).from_config(config)
        copy.build_from_config(layer.get_build_config() or {})
        copy.set_weights(weights)
        return copy

    return _rebuild(model, copy_of)


def _is_linear_convolution(layer: keras.Layer) -> bool:
    kinds = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
    return type(layer) in kinds and layer.activation is keras.activations.linear


def _is_batch_norm(layer: keras.Layer) -> bool:
    return type(layer) is keras.layers.BatchNormalization and layer.axis in (
        -1,
        len(layer.input.shape) - 1,
    )


def _folded_weights(conv: keras.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Kernel and bias, computed in float64."""
    values = {v.name: np.asarray(v, "float64") for v in norm.weights}
    bias = np.asarray(conv.bias, "float64") if conv.use_bias else 0.0
    gain = values.get("gamma", 1.0) / np.sqrt(values["moving_variance"] + norm.epsilon)
    return [
        np.asarray(conv.kernel, "float64") * gain,
        (bias - values["moving_mean"]) * gain + values.get("beta", 0.0),
    ]


def _rebuild(
    model: keras.Model, copy_of: Callable[[keras.Layer], Callable[[Tensor], Tensor]]
) -> keras.Model:
    """Build `model` again from its inputs. copy_of: from a layer to what computes its output there;
    asked once per layer, however often the layer is called.
    """
    if isinstance(model, keras.Sequential):
        model = functional(model.inputs[0], model.outputs[0], model.name)
    copies: dict[str, Callable[[Tensor], Tensor]] = {}
    tensors = {id(tensor): tensor for tensor in model.inputs}

    def rebuilt(tensor: Tensor) -> Tensor:
        return tensors[id(tensor)]

    for call in layer_calls(model):
        layer = call.layer
        if isinstance(layer, keras.Model):
            raise ModelError(
                f"layer {layer.name!r} of {model.name!r} is a nested model: pass the inner model",
                code="nested_model",
            )
        if layer.name not in copies:
            copies[layer.name] = copy_of(layer)
        output = copies[layer.name](keras.tree.map_structure(rebuilt, call.inputs))
        tensors[id(call.output)] = output
    return functional(model.input, keras.tree.map_structure(rebuilt, model.output), model.name)


folded = fold_batch_norm  # former name
training_twin = fused_training_copy  # former name
