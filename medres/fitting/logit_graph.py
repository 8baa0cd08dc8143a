"""From a model that was fitted by hand to a float32 graph of layers, from an image to logits, that
a medres file can hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from data_pipelines.preprocessing.spec import PreprocessSpec
from medres.artefact.graph.options import MODULES
from medres.backbones.batch_norm_fusion import built_in_twin
from medres.backbones.build import functional
from medres.backbones.inlining import flat_copy
from medres.errors import ModelError
from medres.tasks import Task
from medres.training.network import HEAD

Outputs = Literal["logits", "probabilities"]
ALONE = ("Activation", "Softmax", "Sigmoid")  # layers and operations that are an activation alone
LINEAR = keras.activations.linear
PROBABILITY = ("sigmoid", "softmax")
# Layers after a sigmoid that move its values and do not change them.
MOVES = ("Activation", "Flatten", "Identity", "Reshape", "Dropout")
# Layers that augment or add noise in training, and do nothing in a prediction.
TRAINING_ONLY = frozenset(
    {
        *("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom"),
        *("RandomContrast", "RandomBrightness", "GaussianNoise", "GaussianDropout"),
    }
)
# Names by which a medres file knows the parts that it adds to a graph.
TAKEN = ("image", "pooled", HEAD, "views", "calibration", "probability")


class End(NamedTuple):
    """How a model ends: the last layer or operation that computes, and its activation ("linear" for
    none, the class's name for a layer that has no such option). head: the layer that gives the
    logits, if nothing else follows it than this end. moved: whether layers of `MOVES` follow.
    """

    activation: str
    operation: Any
    head: Any
    moved: bool

    @property
    def layer(self) -> keras.Layer | None:
        return self.operation if isinstance(self.operation, keras.Layer) else None


def logit_graph(
    model: keras.Model, spec: PreprocessSpec, task: Task, outputs: int, given: Outputs | None = None
) -> keras.Model:
    """A float32 copy of a fitted model, from images of `spec` in model units to logits (batch,
    outputs). The input of its layer `logits` is taken as the features of an image.

    A final sigmoid or softmax is removed, a linear end gives logits. given: what the model gives
        where its end does not say so. Nested models become their layers, and layers that act in
        training only are left out.
    Raises ModelError (codes not_a_model, subclassed_model, not_built, several_inputs,
        several_outputs, custom_layer, weights_not_finite, input_mismatch, unclear_outputs,
        wrong_activation, wrong_outputs, and those of `flat_copy`).
    """
    model = savable_model(model)
    _require_input(model, spec)
    end = _end_of(model)
    strip = _is_probability(end, given, task)
    last = model.outputs[0]
    if strip and _operation(last) is end.operation and end.layer is None:  # keras.ops.sigmoid
        model = functional(model.inputs[0], _input(last), model.name)
        end, strip = _end_of(model), False

    def changes(layer: keras.Layer) -> dict[str, Any] | None:
        return _changes(layer, end, strip)

    image = keras.Input(tuple(spec.shape), name="image", dtype="float32")
    logits = flat_copy(model, image, nested=True, changes=changes)
    if logits.shape[1:] != (outputs,):
        raise ModelError(
            f"the model gives outputs of shape {tuple(logits.shape)}, and the labels of the work "
            f"folder need (None, {outputs}): one output per "
            f"{'class' if task.exclusive else 'finding'}",
            code="wrong_outputs",
        )
    graph = functional(image, logits, model.name)
    if any(layer.name == HEAD for layer in graph.layers):
        return graph
    head = keras.layers.Identity(dtype="float32", name=HEAD)
    return functional(image, head(logits), model.name)


def savable_model(model: keras.Model) -> keras.Model:
    """The model, or that of which it is a `fused_training_copy`. Raises ModelError for what
    `logit_graph` refuses in any model, whatever its images are.
    """
    _require_functional(model)
    model = built_in_twin(model)
    _require_plain_layers(model)
    _require_finite(model)
    return model


def _changes(layer: keras.Layer, end: End, strip: bool) -> dict[str, Any] | None:
    """The options that the copy of a layer has instead of its own; None: it is left out."""
    kind = type(layer).__name__
    if kind in TRAINING_ONLY or (strip and layer is end.layer and kind in ALONE):
        return None
    changed: dict[str, Any] = {"dtype": "float32"}
    if strip and layer is end.layer:
        changed["activation"] = "linear"
    is_linear = getattr(layer, "activation", None) is LINEAR
    is_stripped = strip and layer is end.layer
    if layer is end.head and kind == "Dense" and not end.moved and (is_linear or is_stripped):
        return changed | {"name": HEAD}
    is_features = layer.name == "pooled" and kind.startswith("Global")
    if not is_features and (layer.name in TAKEN or layer.name.endswith("_pooled")):
        changed["name"] = f"{layer.name}_layer"
    return changed


def _require_functional(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"expected a Keras model, received {type(model).__name__}", code="not_a_model"
        )
    image = keras.Input((1,))
    kinds = (keras.Sequential, type(keras.Model(image, image)))  # Keras does not export the latter
    kind = next((kind for kind in kinds if isinstance(model, kind)), None)
    if kind is None or type(model).call is not kind.call:
        raise ModelError(
            f"{type(model).__name__} is a subclassed model, whose computation is Python code: a "
            f"medres file holds layers. Build it with keras.Model(inputs, outputs)",
            code="subclassed_model",
        )
    if not hasattr(model, "inputs"):
        raise ModelError(
            f"the Sequential model {model.name!r} has no input shape yet: begin it with "
            f"keras.Input(shape), or fit it first",
            code="not_built",
        )
    for what, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
        if len(tensors) != 1:
            names = ", ".join(getattr(model, f"{what[:-1]}_names", [])) or str(len(tensors))
            raise ModelError(
                f"the model has {len(tensors)} {what} ({names}): a medres file takes one image and "
                f"gives one vector. Save keras.Model(model.input, one output)",
                code=f"several_{what}",
            )


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    """All layers, those of nested models in their place."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def _require_plain_layers(model: keras.Model) -> None:
    for layer in _layers(model):
        module = type(layer).__module__
        known = MODULES.get(type(layer).__name__) == module or module.startswith("keras.src.layers")
        if not known or type(layer).__name__ == "Lambda":
            raise ModelError(
                f"layer {layer.name!r} is a {type(layer).__name__} from {module}: a medres file "
                f"opens with plain Keras, so it holds Keras' own layers only, and no Lambda",
                code="custom_layer",
            )


def _require_finite(model: keras.Model) -> None:
    for layer in _layers(model):
        for variable in layer.weights:
            if not np.isfinite(np.asarray(variable.numpy(), np.float64)).all():
                raise ModelError(
                    f"layer {layer.name!r}: the weight {variable.name!r} has values that are not "
                    f"finite: fit again with a lower learning rate",
                    code="weights_not_finite",
                )


def takes_images_of(model: keras.Model, spec: PreprocessSpec) -> bool:
    """Whether the input of a model with one input has the shape of the images of a spec."""
    given, expected = tuple(model.inputs[0].shape), tuple(spec.shape)
    return len(given) == 1 + len(expected) and all(
        size in (None, wanted) for size, wanted in zip(given[1:], expected, strict=True)
    )


def _require_input(model: keras.Model, spec: PreprocessSpec) -> None:
    given, expected = tuple(model.inputs[0].shape), tuple(spec.shape)
    is_float = "float" in keras.backend.standardize_dtype(model.inputs[0].dtype)
    if not (takes_images_of(model, spec) and is_float):
        raise ModelError(
            f"the model takes {model.inputs[0].dtype} images of shape {given}, and preset "
            f"{spec.name} gives float32 images of shape {(None, *expected)}: fit the model on "
            f"medres.data(work, preset) with the same preset",
            code="input_mismatch",
        )


def _operation(tensor: Any) -> Any:
    """The layer or operation that gives a symbolic tensor."""
    return tensor._keras_history.operation


def _input(tensor: Any) -> Any:
    """The first input of the operation that gives a symbolic tensor."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index].input_tensors[0]


def _end_of(model: keras.Model) -> End:
    tensor, moved = _computed(model.outputs[0])
    end = head = _operation(tensor)
    if type(end).__name__ in ALONE:
        tensor, moved_before = _computed(_input(tensor))
        head, moved = _operation(tensor), moved or moved_before
    return End(_activation(end), end, head, moved)


def _computed(tensor: Any) -> tuple[Any, bool]:
    """The tensor from which this one is made by layers that act in training only or that only move
    values, within nested models; and whether it was moved.
    """
    moved = False
    while True:
        operation = _operation(tensor)
        kind = type(operation).__name__
        if isinstance(operation, keras.Model):
            tensor = operation.outputs[0]
        elif kind in TRAINING_ONLY or (
            kind in MOVES and getattr(operation, "activation", None) in (None, LINEAR)
        ):
            moved = moved or kind not in ("Activation", "Dropout", "Identity", *TRAINING_ONLY)
            tensor = _input(tensor)
        else:
            return tensor, moved


def _activation(operation: Any) -> str:
    kind = type(operation).__name__
    if kind in ("Softmax", "Sigmoid"):  # the layer, and operations of keras.ops
        return kind.lower()
    if not hasattr(operation, "activation"):
        return kind
    return getattr(operation.activation, "__name__", kind)


def _is_probability(end: End, given: Outputs | None, task: Task) -> bool:
    """Whether the end is a sigmoid or softmax that the copy leaves out."""
    if given not in (None, "logits", "probabilities"):
        raise ModelError(
            f"outputs={given!r}: give 'logits' or 'probabilities'", code="unclear_outputs"
        )
    if given == "logits":
        return False
    if end.activation in PROBABILITY and (not end.moved or given == "probabilities"):
        if end.activation != task.activation:
            raise ModelError(
                f"the model ends in a {end.activation}, and labels of the task {task.name} need a "
                f"{task.activation}",
                code="wrong_activation",
            )
        return True
    if end.activation == "linear" and given is None:
        return False
    raise ModelError(
        f"the model ends in {end.activation!r}, which is neither linear nor directly a sigmoid or "
        f"softmax: say outputs='logits', or outputs='probabilities' where a sigmoid or softmax "
        f"gives the values",
        code="unclear_outputs",
    )
