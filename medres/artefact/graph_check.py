"""Check the graph of a Keras model without Keras: only layers of an allow-list, and the shape of
every weight inferred from the configuration.

A hostile file of 23 KB can describe a layer of 16 GiB. The shapes are therefore inferred here,
bounded, and compared with the weights that the file really holds, before any memory is allocated.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from medres.errors import ArtefactError

Shape = tuple[int, ...]  # without the batch axis
MAX_UNITS, MAX_LAYERS, MAX_ELEMENTS, MAX_WINDOW, MAX_VIEWS = 65536, 8192, 1 << 28, 64, 5

_LAYERS = """
Functional InputLayer Conv2D Conv3D BatchNormalization GroupNormalization Activation ReLU Rescaling
Concatenate Add Multiply Average Identity Dropout Permute Reshape Dense ZeroPadding2D ZeroPadding3D
MaxPooling2D MaxPooling3D AveragePooling2D AveragePooling3D GlobalAveragePooling2D
GlobalAveragePooling3D Cropping2D Cropping3D
"""
_OTHERS = """
DTypePolicy VarianceScaling HeNormal HeUniform GlorotUniform GlorotNormal RandomNormal
TruncatedNormal Zeros Ones Constant L2 __keras_tensor__ __numpy__
"""
# The built-in Keras classes of which a medres model consists.
ALLOWED = frozenset((_LAYERS + _OTHERS).split())
# For messages: "Conv2D Conv3D" becomes "Conv2D/3D".
_SUPPORTED = ", ".join(
    name.replace("2D", "2D/3D") for name in _LAYERS.split() if not name.endswith("3D")
)
ACTIVATIONS = frozenset({"linear", "relu", "sigmoid", "softmax", None})
_PRINTABLE_NAME = re.compile(r"[\w.>/-]{1,60}")


def weight_shapes(config: dict[str, Any]) -> Counter[Shape]:
    """Shapes of the weights that a functional model's configuration (config.json) describes, each
    with the number of times it occurs.

    Raises ArtefactError, with these codes:
    unsupported_layer, unsupported_activation: a class or an activation that is not on the
        allow-list, or that is not built into Keras.
    graph_limits: more than 8192 layers; more than 65536 units or filters; a kernel, stride, pool or
        padding above 64; a feature map of more than 2^28 values.
    malformed_graph: a cycle; a missing layer; a layer that is called twice (a model within the
        outermost model may be called up to five times); a shape that does not fit.
    """
    _check_classes(config)
    if config.get("class_name") != "Functional":
        raise ArtefactError("the graph is not a functional Keras model", code="malformed_graph")
    weights: Counter[Shape] = Counter()
    try:
        _functional_shape(config["config"], None, weights)
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ):
        raise ArtefactError(
            "config.json does not describe a graph that Keras writes", code="malformed_graph"
        ) from None
    return weights


def _check_classes(config: Any) -> None:
    """Raise ArtefactError unless every class in the configuration is built into Keras and on the
    allow-list.
    """
    pending = [config]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        if not isinstance(node, dict):
            continue
        if "class_name" in node:
            module, name = node.get("module"), node["class_name"]
            foreign = not isinstance(name, str) or name not in ALLOWED
            foreign |= not (module is None or str(module).split(".")[0] == "keras")
            if foreign or node.get("registered_name") not in (None, name):
                raise ArtefactError(_unsupported(node), code="unsupported_layer")
        pending.extend(node.values())


def _unsupported(node: dict[str, Any]) -> str:
    """The message for a class that is not allowed. Names from the file are quoted only where they
    are short and harmless to print.
    """
    options = node.get("config")
    names = (
        node.get("registered_name") or node["class_name"],
        options.get("name") if isinstance(options, dict) else None,
    )
    kind, layer = (
        name if isinstance(name, str) and _PRINTABLE_NAME.fullmatch(name) else None
        for name in names
    )
    where = f" in `{layer}`" if layer else ""
    return f"unsupported layer{f' {kind}' if kind else ''}{where}; supported: {_SUPPORTED}"


def _functional_shape(
    config: dict[str, Any], outer_input: Shape | None, weights: Counter[Shape]
) -> Shape:
    """The output shape of a functional model with one input and one output. Its weights are added
    to `weights`. outer_input: shape of the input of a model within a model, else None.
    """
    layers = config["layers"]
    if len(layers) > MAX_LAYERS:
        raise ArtefactError(
            f"the graph has {len(layers)} layers; the limit is {MAX_LAYERS}", code="graph_limits"
        )
    shapes: dict[str, Shape] = {}
    for layer in layers:
        name, class_name, options = layer["name"], layer["class_name"], layer["config"]
        if name in shapes:
            raise ArtefactError("two layers have the same name", code="malformed_graph")
        if class_name == "InputLayer":
            shape = outer_input or tuple(options["batch_shape"][1:])
        else:
            # A KeyError means that an input is not computed yet: a cycle, or a missing layer.
            inputs, *others = [
                [shapes[source] for source in sources] for sources in _inputs_per_call(layer)
            ]
            # Only a model inside the outermost model may be called several times (test-time
            # augmentation): shared models within shared models would run 2^depth times.
            is_view = class_name == "Functional" and outer_input is None and len(others) < MAX_VIEWS
            if others and not (is_view and all(other == inputs for other in others)):
                raise ValueError
            if class_name == "Functional":
                shape = _functional_shape(options, inputs[0], weights)
            else:
                shape = _output_shape(class_name, options, inputs)
                weights.update(_layer_weights(class_name, options, inputs[0]))
        if not all(type(n) is int and n > 0 for n in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise ArtefactError(
                f"a feature map has an unknown size or more than {MAX_ELEMENTS} values",
                code="graph_limits",
            )
        shapes[name] = shape
    return shapes[_output_layer(config["output_layers"])]


def _output_layer(entry: Any) -> str:
    """The name in `output_layers`: Keras writes a flat list for one output, else a list of
    lists.
    """
    return entry[0] if isinstance(entry[0], str) else entry[0][0]


def _inputs_per_call(layer: dict[str, Any]) -> list[list[str]]:
    """Per call of a layer, the names of the layers whose outputs it receives. medres calls a layer
    once, and a model within a model once per view.
    """
    calls = []
    for node in layer["inbound_nodes"]:
        tensors = node["args"][0]
        tensors = tensors if isinstance(tensors, list) else [tensors]
        calls.append([tensor["config"]["keras_history"][0] for tensor in tensors])
    return calls


def _output_shape(class_name: str, config: dict[str, Any], inputs: Sequence[Shape]) -> Shape:
    """The output shape of one layer."""
    (shape, *_) = inputs
    if config.get("activation") not in ACTIVATIONS:
        raise ArtefactError(
            f"unsupported activation; supported: {', '.join(sorted(filter(None, ACTIVATIONS)))}",
            code="unsupported_activation",
        )
    if config.get("data_format", "channels_last") != "channels_last":
        raise ArtefactError(
            "unsupported data format channels_first: medres models are channels_last",
            code="unsupported_layer",
        )
    if class_name in ("Concatenate", "Add", "Multiply", "Average"):
        return _merged_shape(class_name, config, inputs)
    special: dict[str, Callable[[], Shape]] = {
        "Dense": lambda: (*shape[:-1], _unit_count(config["units"], "units")),
        "Permute": lambda: tuple(shape[i - 1] for i in config["dims"]),
        "Reshape": lambda: tuple(config["target_shape"]),
    }
    if class_name in special:
        return special[class_name]()
    if class_name.startswith("Conv"):
        return (
            *_sliding_shape(shape, config["kernel_size"], config["strides"], config),
            _unit_count(config["filters"], "filters"),
        )
    if class_name.startswith(("MaxPooling", "AveragePooling")):
        return (
            *_sliding_shape(
                shape, config["pool_size"], config["strides"] or config["pool_size"], config
            ),
            shape[-1],
        )
    if class_name.startswith("ZeroPadding"):
        paddings = (
            [(_window_size(a), _window_size(b)) for a, b in config["padding"]] if max(shape) else []
        )
        return (*(n + a + b for n, (a, b) in zip(shape, paddings, strict=False)), shape[-1])
    if class_name.startswith("Cropping"):
        croppings = [(_window_size(a), _window_size(b)) for a, b in config["cropping"]]
        return (*(n - a - b for n, (a, b) in zip(shape, croppings, strict=False)), shape[-1])
    if class_name.startswith("GlobalAveragePooling"):
        return (*[1] * (len(shape) - 1), shape[-1]) if config.get("keepdims") else shape[-1:]
    return shape


def _merged_shape(class_name: str, config: dict[str, Any], inputs: Sequence[Shape]) -> Shape:
    if class_name == "Concatenate":
        if config["axis"] not in (-1, len(inputs[0])) or len({shape[:-1] for shape in inputs}) > 1:
            raise ValueError
        return (*inputs[0][:-1], sum(shape[-1] for shape in inputs))
    return tuple(max(sizes) for sizes in zip(*inputs, strict=True))


def _sliding_shape(
    shape: Shape, kernel: Sequence[int], strides: Sequence[int], config: dict[str, Any]
) -> Shape:
    """Spatial sizes after a convolution or pooling."""
    dilation = config.get("dilation_rate") or [1] * len(kernel)
    sizes = []
    for n, k, s, d in zip(shape[:-1], kernel, strides, dilation, strict=True):
        reach = (_window_size(k) - 1) * _window_size(d) + 1
        sizes.append(
            -(-n // _window_size(s))
            if config["padding"] == "same"
            else (n - reach) // _window_size(s) + 1
        )
    return tuple(sizes)


def _layer_weights(class_name: str, config: dict[str, Any], shape: Shape) -> list[Shape]:
    """Shapes of the weights that Keras would create for one layer."""
    channels = shape[-1]
    if class_name.startswith("Conv"):
        filters = config["filters"]
        return [
            (*config["kernel_size"], channels // config["groups"], filters),
            *([(filters,)] if config["use_bias"] else []),
        ]
    if class_name == "Dense":
        return [(channels, config["units"]), *([(config["units"],)] if config["use_bias"] else [])]
    if class_name in ("BatchNormalization", "GroupNormalization"):
        moving = 2 if class_name == "BatchNormalization" else 0
        return [(channels,)] * (bool(config["center"]) + bool(config["scale"]) + moving)
    return []


def _unit_count(value: Any, what: str) -> int:
    """`value`, checked: the number of `what` (units, filters) of a layer."""
    if type(value) is not int or not 0 < value <= MAX_UNITS:
        raise ArtefactError(f"a layer has more than {MAX_UNITS} {what}", code="graph_limits")
    return value


def _window_size(value: Any) -> int:
    """`value`, checked: a side of a kernel, pool or padding, or a stride."""
    if type(value) is not int or not 0 <= value <= MAX_WINDOW:
        raise ArtefactError(
            f"a kernel, stride, pool or padding is above {MAX_WINDOW}", code="graph_limits"
        )
    return value
