"""What a Keras configuration would build, worked out without Keras: only layers of a closed list,
and the shape of every weight.

A hostile file can ask for a layer of 16 GiB in 23 KB. So the shapes are inferred here, bounded, and
compared with the weights that the file really holds, before anything is allocated.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from medres.errors import ArtefactError

Shape = tuple[int, ...]  # without the batch
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
# The built-in classes that a medres model is made of.
ALLOWED = frozenset((_LAYERS + _OTHERS).split())
ACTIVATIONS = frozenset({"linear", "relu", "sigmoid", "softmax", None})


def weight_shapes(config: dict[str, Any]) -> Counter[Shape]:
    """Shapes of the weights of a functional model's configuration (config.json), each with how
    often it occurs.

    Raises ArtefactError for: a class or activation off the closed list, or one that is no built-in
    of Keras; a cycle or a missing layer; a layer that is called twice, but for a model within the
    outermost one (five times at most); more than 8192 layers; more than 65536 units or filters;
    kernels, paddings and pools over 64; a feature map of more than 2^28 values; a shape that does
    not fit.
    """
    _check_classes(config)
    if config.get("class_name") != "Functional":
        raise ArtefactError("its graph is no functional model")
    found: Counter[Shape] = Counter()
    try:
        _functional(config["config"], None, found)
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ):
        raise ArtefactError("its graph is not one that Keras writes") from None
    return found


def _check_classes(config: Any) -> None:
    """Walk the configuration: every class a built-in of Keras and on the closed list."""
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
                raise ArtefactError(
                    "it holds a layer that medres does not build; such a file is not opened"
                )
        pending.extend(node.values())


def _functional(config: dict[str, Any], given: Shape | None, found: Counter[Shape]) -> Shape:
    """The output shape of a functional model with one input and one output; its weights are counted
    into `found`.
    """
    layers = config["layers"]
    if len(layers) > MAX_LAYERS:
        raise ArtefactError(f"a graph of more than {MAX_LAYERS} layers")
    shapes: dict[str, Shape] = {}
    for layer in layers:
        name, kind, options = layer["name"], layer["class_name"], layer["config"]
        if name in shapes:
            raise ArtefactError("two layers of one name")
        if kind == "InputLayer":
            shape = given or tuple(options["batch_shape"][1:])
        else:
            # A KeyError: not yet computed, so a cycle or a gap.
            inputs, *others = [[shapes[source] for source in call] for call in _calls(layer)]
            # Views are of the outermost model: shared models within shared models would run 2^depth
            # times.
            viewed = kind == "Functional" and given is None and len(others) < MAX_VIEWS
            if others and not (viewed and all(other == inputs for other in others)):
                raise ValueError
            if kind == "Functional":
                shape = _functional(options, inputs[0], found)
            else:
                shape = _output(kind, options, inputs)
                found.update(_weights(kind, options, inputs[0]))
        if not all(type(n) is int and n > 0 for n in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise ArtefactError(
                f"a feature map of a size that is unknown or beyond {MAX_ELEMENTS} values"
            )
        shapes[name] = shape
    return shapes[_first(config["output_layers"])]


def _first(places: Any) -> str:
    """The layer of `output_layers`, which Keras writes flat for one output and as a list of lists
    else.
    """
    return places[0] if isinstance(places[0], str) else places[0][0]


def _calls(layer: dict[str, Any]) -> list[list[str]]:
    """Names of the layers whose outputs a layer takes, a call. medres calls a layer once, and a
    model within a model for each view.
    """
    found = []
    for node in layer["inbound_nodes"]:
        tensors = node["args"][0]
        tensors = tensors if isinstance(tensors, list) else [tensors]
        found.append([tensor["config"]["keras_history"][0] for tensor in tensors])
    return found


def _output(kind: str, c: dict[str, Any], inputs: Sequence[Shape]) -> Shape:
    """The output shape of one layer."""
    (shape, *_) = inputs
    if c.get("activation") not in ACTIVATIONS:
        raise ArtefactError("an activation that medres does not use")
    if c.get("data_format", "channels_last") != "channels_last":
        raise ArtefactError("a layer whose channels come first")
    if kind in ("Concatenate", "Add", "Multiply", "Average"):
        return _merged(kind, c, inputs)
    special: dict[str, Callable[[], Shape]] = {
        "Dense": lambda: (*shape[:-1], _size(c["units"], "units")),
        "Permute": lambda: tuple(shape[i - 1] for i in c["dims"]),
        "Reshape": lambda: tuple(c["target_shape"]),
    }
    if kind in special:
        return special[kind]()
    if kind.startswith("Conv"):
        return (*_slid(shape, c["kernel_size"], c["strides"], c), _size(c["filters"], "filters"))
    if kind.startswith(("MaxPooling", "AveragePooling")):
        return (*_slid(shape, c["pool_size"], c["strides"] or c["pool_size"], c), shape[-1])
    if kind.startswith("ZeroPadding"):
        pads = [(_small(a), _small(b)) for a, b in c["padding"]] if max(shape) else []
        return (*(n + a + b for n, (a, b) in zip(shape, pads, strict=False)), shape[-1])
    if kind.startswith("Cropping"):
        cuts = [(_small(a), _small(b)) for a, b in c["cropping"]]
        return (*(n - a - b for n, (a, b) in zip(shape, cuts, strict=False)), shape[-1])
    if kind.startswith("GlobalAveragePooling"):
        return (*[1] * (len(shape) - 1), shape[-1]) if c.get("keepdims") else shape[-1:]
    return shape


def _merged(kind: str, c: dict[str, Any], inputs: Sequence[Shape]) -> Shape:
    if kind == "Concatenate":
        if c["axis"] not in (-1, len(inputs[0])) or len({shape[:-1] for shape in inputs}) > 1:
            raise ValueError
        return (*inputs[0][:-1], sum(shape[-1] for shape in inputs))
    return tuple(max(sizes) for sizes in zip(*inputs, strict=True))


def _slid(shape: Shape, kernel: Sequence[int], strides: Sequence[int], c: dict[str, Any]) -> Shape:
    """Spatial sizes after a kernel or pool that moves over them."""
    dilation = c.get("dilation_rate") or [1] * len(kernel)
    out = []
    for n, k, s, d in zip(shape[:-1], kernel, strides, dilation, strict=True):
        reach = (_small(k) - 1) * _small(d) + 1
        out.append(-(-n // _small(s)) if c["padding"] == "same" else (n - reach) // _small(s) + 1)
    return tuple(out)


def _weights(kind: str, c: dict[str, Any], shape: Shape) -> list[Shape]:
    """The weights of one layer, as Keras would make them."""
    channels = shape[-1]
    if kind.startswith("Conv"):
        out = c["filters"]
        return [
            (*c["kernel_size"], channels // c["groups"], out),
            *([(out,)] if c["use_bias"] else []),
        ]
    if kind == "Dense":
        return [(channels, c["units"]), *([(c["units"],)] if c["use_bias"] else [])]
    if kind in ("BatchNormalization", "GroupNormalization"):
        moving = 2 if kind == "BatchNormalization" else 0
        return [(channels,)] * (bool(c["center"]) + bool(c["scale"]) + moving)
    return []


def _size(value: Any, what: str) -> int:
    if type(value) is not int or not 0 < value <= MAX_UNITS:
        raise ArtefactError(f"a layer with more than {MAX_UNITS} {what}")
    return value


def _small(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_WINDOW:
        raise ArtefactError(f"a kernel, stride, pool or padding over {MAX_WINDOW}")
    return value
