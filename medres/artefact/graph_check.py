"""Check the graph of a Keras model without Keras: only layers and options of an allow-list, the
shape of every weight and feature map inferred from the configuration, and what opening costs.

A hostile file of 23 KB can describe a layer of 16 GiB. The shapes are therefore inferred here,
bounded, and compared with the weights that the file really holds, before any memory is allocated.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from medres.artefact.graph.options import (
    LAYERS,
    MERGES,
    MODELS,
    check_classes,
    check_model_options,
    check_options,
    title,
)
from medres.artefact.graph.shapes import Shape, layer_cost
from medres.errors import ArtefactError

MAX_LAYERS, MAX_ELEMENTS, MAX_VIEWS, MAX_DEPTH = 8192, 1 << 28, 5, 16
MAX_CALLS = 8  # of one layer that several feature maps share, as the levels of a detector do
MAX_ALIVE = 1 << 31  # values of all feature maps of the reference images: 8 GiB
MAX_MULTIPLY_ADDS = 1 << 42  # for the reference images: about two minutes on a small machine
_FAULTS = (
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
_LAYER_KEYS = {"module", "class_name", "config", "registered_name", "name", "inbound_nodes"}
_KERAS_KEYS = {"build_config", "compile_config"}
_TENSOR_KEYS = {"module", "class_name", "config", "registered_name"}


@dataclass
class Graph:
    """What the graph of a model costs.

    weights: the shapes of its weights, with the number of times each occurs. alive: the values of
    the feature maps that exist at once for one image (Keras keeps those of a model until its last
    layer has run). multiply_adds: for one image. layers: their number. calls: of them, where a
    layer that is shared counts as often as it is called.
    """

    weights: Counter[Shape] = field(default_factory=Counter)
    alive: int = 0
    multiply_adds: int = 0
    layers: int = 0
    calls: int = 0

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) * count for shape, count in self.weights.items())


def checked_graph(config: dict[str, Any]) -> Graph:
    """The cost of the functional model that a configuration (config.json) describes.

    Raises ArtefactError, with these codes:
    unsupported_layer, unsupported_activation, unsupported_option: a class, an activation or another
        option that is not on the allow-list, or that is not built into Keras.
    graph_limits: more than 8192 layers, or calls of layers; more than 65536 units or filters; a
        kernel, stride, pool or padding above 64; a feature map of more than 2^28 values.
    malformed_graph: a cycle; a missing layer; a layer that is called more than eight times, or on
        maps for which its weights would differ; a model that is called more than five times, on
        maps of different shapes, or within another model more than once; a shape that does not fit,
        or that differs from the one that the file states.
    """
    check_classes(config)
    if config.get("class_name") != "Functional":
        raise ArtefactError("the graph is not a functional Keras model", code="malformed_graph")
    graph = Graph()
    try:
        _check_keys(config, _LAYER_KEYS | _KERAS_KEYS)
        _check_unbuilt(config)
        graph.alive = _model(config, None, graph, 0)[1]
    except _FAULTS:
        raise ArtefactError(
            "config.json does not describe a graph that Keras writes", code="malformed_graph"
        ) from None
    return graph


def weight_shapes(config: dict[str, Any]) -> Counter[Shape]:
    """The shapes of the weights alone. Raises ArtefactError as `checked_graph` does."""
    return checked_graph(config).weights


def check_cost(graph: Graph, images: int) -> None:
    """Raise ArtefactError (graph_limits) where opening the model, which computes `images` reference
    images, needs more memory or time than a file may cost.
    """
    if graph.alive * images > MAX_ALIVE or graph.multiply_adds * images > MAX_MULTIPLY_ADDS:
        raise ArtefactError(
            f"the reference images need {graph.alive * images:.1e} values of feature maps and "
            f"{graph.multiply_adds * images:.1e} multiply-adds; the limits are {MAX_ALIVE:.1e} and "
            f"{MAX_MULTIPLY_ADDS:.1e}",
            code="graph_limits",
        )


def _check_keys(node: dict[str, Any], allowed: set[str]) -> None:
    for key in node:
        if key not in allowed:
            raise ArtefactError(
                f"{title(node)}: a key beside the options is unknown", code="unsupported_option"
            )


def _check_unbuilt(model: dict[str, Any]) -> None:
    """A model is built by its layers: Keras writes no shape for it, or that of its input, which
    `_model` compares; and medres models are not compiled.
    """
    if model.get("compile_config") not in (None, {}):
        raise ArtefactError(
            "the model in the file is compiled; medres models are not", code="unsupported_option"
        )


def _model(
    node: dict[str, Any], outer: Shape | None, graph: Graph, depth: int
) -> tuple[Shape, int]:
    """The output shape of a model with one input and one output, and the values that are alive
    while it runs. Its costs are added to `graph`. outer: the shape of the input of a model within a
    model, else None.
    """
    if depth > MAX_DEPTH:
        raise ValueError
    check_model_options(node)
    layers = node["config"]["layers"]
    graph.layers += len(layers)
    if graph.layers > MAX_LAYERS:
        raise ArtefactError(
            f"the graph has {graph.layers} layers; the limit is {MAX_LAYERS}", code="graph_limits"
        )
    if node["class_name"] == "Sequential":
        return _chain(node, outer, graph, depth)
    return _functional(node, outer, graph, depth)


def _functional(
    node: dict[str, Any], outer: Shape | None, graph: Graph, depth: int
) -> tuple[Shape, int]:
    config = node["config"]
    shapes: dict[str, list[Shape]] = {}  # of the outputs of each layer, by call
    inputs: list[str] = []
    alive = inner_alive = 0
    for layer in config["layers"]:
        name = layer["name"]
        if name in shapes or layer["config"].get("name") != name:
            raise ArtefactError(
                f"{title(layer)}: its name is not unique in the graph", code="malformed_graph"
            )
        if layer["class_name"] == "InputLayer":
            inputs.append(name)
            outputs = [_input_shape(layer, outer)]
        else:
            outputs, inside = _called(layer, shapes, graph, depth)
            inner_alive = max(inner_alive, inside)
        shapes[name] = [_bounded(shape) for shape in outputs]
        alive += sum(map(math.prod, outputs))
    if [_endpoint(config["input_layers"])] != inputs:
        raise ValueError
    _check_build_shape(node, shapes[inputs[0]])
    return shapes[_endpoint(config["output_layers"])][0], alive + inner_alive


def _chain(
    node: dict[str, Any], outer: Shape | None, graph: Graph, depth: int
) -> tuple[Shape, int]:
    """A Sequential model: each layer takes the output of the one before it."""
    first, *layers = node["config"]["layers"]
    shape = _bounded(_input_shape(first, outer))
    _check_build_shape(node, [shape])
    stated = node["config"].get("build_input_shape")
    if stated not in (None, [None, *shape]):
        raise ValueError
    alive = math.prod(shape)
    inner_alive = 0
    for layer in layers:
        _check_keys(layer, _LAYER_KEYS | _KERAS_KEYS)
        (shape,), inside = _layer(layer, [[shape]], graph, depth)
        _bounded(shape)
        alive += math.prod(shape)
        inner_alive = max(inner_alive, inside)
    return shape, alive + inner_alive


def _input_shape(layer: dict[str, Any], outer: Shape | None) -> Shape:
    _check_keys(layer, _LAYER_KEYS | {"build_config"})
    if (
        layer["class_name"] != "InputLayer"
        or layer.get("build_config")
        or (layer.get("inbound_nodes") not in (None, []))
    ):
        raise ValueError
    check_options(layer)
    stated = tuple(layer["config"]["batch_shape"][1:])
    if outer is None:
        return stated
    if len(stated) != len(outer) or any(
        n not in (None, m) for n, m in zip(stated, outer, strict=True)
    ):
        raise ValueError
    return outer


def _called(
    layer: dict[str, Any], shapes: dict[str, list[Shape]], graph: Graph, depth: int
) -> tuple[list[Shape], int]:
    """A layer of a functional model, whose inputs are outputs of earlier layers: the shape that
    each of its calls gives, and the values alive inside it if it is a model.
    """
    _check_keys(layer, _LAYER_KEYS | _KERAS_KEYS)
    # A KeyError or IndexError means that an input is not computed yet: a cycle, or a missing layer.
    calls = [list(_inputs(node, shapes)) for node in layer["inbound_nodes"]]
    graph.calls += len(calls)
    if graph.calls > MAX_LAYERS:
        raise ArtefactError(
            f"the graph has more than {MAX_LAYERS} calls of layers", code="graph_limits"
        )
    return _layer(layer, calls, graph, depth)


def _layer(
    layer: dict[str, Any], calls: Sequence[Sequence[Shape]], graph: Graph, depth: int
) -> tuple[list[Shape], int]:
    """The output shape of each call of a layer, and the values alive inside it if it is a model.
    calls: the shapes of the inputs of each.
    """
    class_name = layer["class_name"]
    if class_name in MODELS:
        return _inner_model(layer, calls, graph, depth)
    is_known = class_name in LAYERS and "compile_config" not in layer
    if not (is_known and 0 < len(calls) <= MAX_CALLS):
        raise ValueError
    check_options(layer)
    costs = [layer_cost(class_name, layer["config"], inputs) for inputs in calls]
    if any(cost.weights != costs[0].weights for cost in costs):
        raise ValueError
    _check_build_shape(layer, calls[0])
    graph.weights.update(costs[0].weights)
    graph.multiply_adds += sum(cost.multiply_adds for cost in costs)
    return [cost.shape for cost in costs], 0


def _inner_model(
    layer: dict[str, Any], calls: Sequence[Sequence[Shape]], graph: Graph, depth: int
) -> tuple[list[Shape], int]:
    """A model within a model. Only one inside the outermost model may be called several times
    (test-time augmentation): shared models within shared models would run 2^depth times.
    """
    inputs, *others = calls
    is_view = depth == 0 and len(others) < MAX_VIEWS
    if others and not (is_view and all(other == inputs for other in others)):
        raise ValueError
    _check_unbuilt(layer)
    before = graph.multiply_adds
    (shape,) = inputs
    output, alive = _model(layer, shape, graph, depth + 1)
    graph.multiply_adds += len(others) * (graph.multiply_adds - before)
    return [output] * len(calls), alive


def _bounded(shape: Shape) -> Shape:
    if not all(type(n) is int and n > 0 for n in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise ArtefactError(
            f"a feature map has an unknown size or more than {MAX_ELEMENTS} values",
            code="graph_limits",
        )
    return shape


def _check_build_shape(layer: dict[str, Any], inputs: Sequence[Shape]) -> None:
    """Keras builds the weights of a layer for the shape in `build_config`: it must be that of its
    inputs. A model that takes images of any size states None for the sizes.
    """
    build = layer.get("build_config")
    if build in (None, {}):
        return
    stated = build["input_shape"]
    if set(build) != {"input_shape"}:
        raise ValueError
    expected = [[None, *shape] for shape in inputs]
    if layer["class_name"] not in MERGES:
        (stated, expected) = [stated], expected[:1]
    if layer["class_name"] in MODELS and stated == [None]:
        return
    if not (isinstance(stated, list) and len(stated) == len(expected)) or any(
        not _fits(s, e) for s, e in zip(stated, expected, strict=True)
    ):
        raise ArtefactError(
            f"{title(layer)}: the shape in build_config is not that of its input",
            code="malformed_graph",
        )


def _fits(stated: Any, expected: list[int | None]) -> bool:
    """Whether a shape in the file is `expected`, or leaves spatial sizes open."""
    return (
        isinstance(stated, list)
        and len(stated) == len(expected)
        and stated[0] is None
        and all(
            s is None or (type(s) is int and s == e) for s, e in zip(stated, expected, strict=False)
        )
        and stated[-1] == expected[-1]
    )


def _endpoint(entry: Any) -> str:
    """The layer in `input_layers` or `output_layers`: Keras writes a flat list for one tensor, else
    a list of lists.
    """
    (layer, call, index) = entry if isinstance(entry[0], str) else entry[0]
    if (call, index) != (0, 0) or (not isinstance(entry[0], str) and len(entry) > 1):
        raise ValueError
    return layer


def _inputs(node: dict[str, Any], shapes: dict[str, list[Shape]]) -> Iterator[Shape]:
    """The shapes of the tensors of one call of a layer."""
    (tensors,) = node["args"]
    flags = node["kwargs"]
    if set(node) != {"args", "kwargs"} or not set(flags) <= {"mask", "training"}:
        raise ValueError
    if any(type(value) not in (bool, type(None)) for value in flags.values()):
        raise ValueError
    for tensor in tensors if isinstance(tensors, list) else [tensors]:
        source, call, index = tensor["config"]["keras_history"]
        if (
            set(tensor) - _TENSOR_KEYS
            or set(tensor["config"]) != {"shape", "dtype", "keras_history"}
            or tensor["config"]["dtype"] not in ("float32", "bfloat16", "float16")
            or type(call) is not int
            or call < 0
            or index != 0
            or not _fits(tensor["config"]["shape"], [None, *shapes[source][call]])
        ):
            raise ValueError
        yield shapes[source][call]
