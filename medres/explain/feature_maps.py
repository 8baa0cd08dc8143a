"""Run a functional model operation by operation, so that gradients can be taken at its last feature
maps, nested models too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from data_pipelines.runtime.backend import require_tensorflow
from medres.errors import ModelError


@dataclass
class ForwardPass:
    """`maps`: the feature maps that a pooling or flattening takes, one a branch; `score`: logits
    (batch, outputs), or what comes
    nearest to them: they do not saturate as probabilities do.
    """

    maps: list[Any] = field(default_factory=list)
    score: Any = None


def run(model: Any, image: Any) -> ForwardPass:
    """Feature maps and scores for images (batch, ..., channels). Raises ModelError unless the model
    is functional or sequential, with one input and one output, and pools or flattens its feature
    maps.
    """
    if _graph(model) is None or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError("explaining takes a functional Keras model with one input and one output")
    found = ForwardPass()
    found.score = _walk(model, image, found)
    if not found.maps:
        raise ModelError("the model has no feature map: nothing in it pools or flattens an image")
    return found


def _walk(model: Any, image: Any, found: ForwardPass) -> Any:
    """The model's output for `image`; without the sigmoid or softmax at its very end."""
    graph = _graph(model)
    last = graph.outputs[0]._keras_history.operation

    def watched(operation: Any) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if _graph(operation) is not None:
                return _walk(operation, arguments[0], found)
            value = _plain(operation, arguments, options, final=operation is last)
            taken = arguments[0]
            if len(getattr(taken, "shape", ())) == len(image.shape) > len(value.shape):
                found.maps.append(taken)
            return value

        return call

    return graph._run_through_graph(image, operation_fn=watched)


def _graph(operation: Any) -> Any:
    """The graph of a functional or sequential model, None for a layer."""
    operation = getattr(operation, "_functional", operation)
    return operation if hasattr(operation, "_run_through_graph") else None


def _plain(operation: Any, arguments: Any, options: dict[str, Any], *, final: bool) -> Any:
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
