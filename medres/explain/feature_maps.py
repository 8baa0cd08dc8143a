"""Run a functional model operation by operation, so that gradients at its last feature maps can be
computed, also inside nested models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from data_pipelines.runtime.backend import require_tensorflow
from medres.errors import ModelError


@dataclass
class ForwardPass:
    """The result of a forward pass.

    maps: the inputs (batch, ..., channels) of global pooling or flattening, one per branch of the
    model. score: logits (batch, outputs) where the model ends in a sigmoid or softmax, else its
    outputs; unlike probabilities, logits do not saturate.
    """

    maps: list[Any] = field(default_factory=list)
    score: Any = None


def forward_with_feature_maps(model: Any, image: Any) -> ForwardPass:
    """Feature maps and scores for images (batch, ..., channels). Raises ModelError unless the model
    is functional or sequential with one input and one output (not_functional), and pools or
    flattens its feature maps (no_feature_map).
    """
    if _graph(model) is None or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            "a saliency map needs a functional Keras model with one input and one output",
            code="not_functional",
        )
    result = ForwardPass()
    result.score = _run(model, image, result)
    if not result.maps:
        raise ModelError(
            "the model has no feature map: no layer of it pools or flattens an image",
            code="no_feature_map",
        )
    return result


def _run(model: Any, image: Any, result: ForwardPass) -> Any:
    """The output of the model for `image`, without a final sigmoid or softmax. Feature maps are
    added to `result`.
    """
    graph = _graph(model)
    last = graph.outputs[0]._keras_history.operation

    def recorded(operation: Any) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if _graph(operation) is not None:
                return _run(operation, arguments[0], result)
            value = _call(operation, arguments, options, final=operation is last)
            operand = arguments[0]
            if len(getattr(operand, "shape", ())) == len(image.shape) > len(value.shape):
                result.maps.append(operand)
            return value

        return call

    return graph._run_through_graph(image, operation_fn=recorded)


def _graph(operation: Any) -> Any:
    """The graph of a functional or sequential model; None for a layer."""
    operation = getattr(operation, "_functional", operation)
    return operation if hasattr(operation, "_run_through_graph") else None


def _call(operation: Any, arguments: Any, options: dict[str, Any], *, final: bool) -> Any:
    """The output of one operation in inference mode; without its sigmoid or softmax if `final`."""
    import keras

    if isinstance(operation, keras.layers.Layer) and operation._call_has_training_arg:
        options["training"] = False
    activation = getattr(getattr(operation, "activation", None), "__name__", "")
    if final and activation in ("sigmoid", "softmax"):
        if isinstance(operation, keras.layers.Activation):
            return arguments[0]
        if isinstance(operation, keras.layers.Dense):
            tf = require_tensorflow()
            return tf.linalg.matmul(arguments[0], operation.kernel) + (
                operation.bias if operation.use_bias else 0.0
            )
    return operation(*arguments, **options)
