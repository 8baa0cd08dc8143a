"""Build the network of a medres model again from the settings on its card, instead of reading it
from the file: the file's graph must then be equal to the built one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from data_pipelines.errors import SpecError
from medres.artefact.card import Card
from medres.artefact.graph.options import SHARED, title
from medres.artefact.graph_check import MAX_LAYERS
from medres.backbones.dense.spec import DenseNetSpec
from medres.backbones.spec import ResNetSpec
from medres.backbones.variants import network_options, network_spec
from medres.errors import ArtefactError, MedresError
from medres.tasks import task_named

if TYPE_CHECKING:
    import keras

_STAGE = re.compile(r"stage(\d+)(?:_|$)")
_FAULTS = (MedresError, SpecError, KeyError, TypeError, ValueError, AttributeError)
#: Keys that Keras versions write or omit without a meaning.
_SILENT = {SHARED, "build_config", "compile_config"}


def is_own_network(card: Card) -> bool:
    """Whether the card's settings describe the whole graph: not for a backbone of people's own and
    for an ensemble, which are built from other models.
    """
    config = card.training.get("config")
    return (
        isinstance(config, dict)
        and isinstance(config.get("model"), dict)
        and config["model"].get("backbone_sha256") is None
        and "ensemble" not in config
    )


def check_settings(card: Card, graph: dict[str, Any]) -> None:
    """Raise ArtefactError (graph_mismatch, golden_shape) unless the sizes in the settings are those
    of the graph (config.json, checked). Building a network then costs what the file's graph costs.
    Without TensorFlow.
    """
    try:
        sizes = dict(_sizes(graph))
        outputs = task_named(card.task).outputs(len(card.names))
        expected = [None, *card.input_shape], outputs
        if (sizes.get("image"), sizes.get("logits")) != expected:
            raise ArtefactError(
                f"the card states images of shape {card.input_shape} and {outputs} outputs, "
                f"and the graph has others",
                code="golden_shape",
            )
        last = _last_stage(sizes) if card.detection is not None else None
        is_same = all(
            sizes.get(name) == size
            for name, size in _expected_sizes(card)
            if last is None or _stage(name) <= last
        )
    except ArtefactError:
        raise
    except _FAULTS as error:
        raise _mismatch(f"the settings describe no network ({type(error).__name__})") from None
    if not is_same:
        raise _mismatch("its layers have other sizes")


def _sizes(graph: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The name and the number of filters or units of each layer; the shape of each input."""
    for layer in graph["config"]["layers"]:
        options = layer["config"]
        if "layers" in options:
            yield from _sizes(layer)
        yield layer["name"], options.get("filters", options.get("units"))
        if layer["class_name"] == "InputLayer":
            yield layer["name"], options["batch_shape"]


def _last_stage(sizes: dict[str, Any]) -> int:
    """The last stage of a detector's backbone in its graph: those that are coarser than its levels
    are not in it.
    """
    return max(map(_stage, sizes))


def _stage(name: str) -> int:
    """The number of the stage of a layer; 0 for others."""
    match = _STAGE.match(name)
    return int(match[1]) if match else 0


def _expected_sizes(card: Card) -> Iterator[tuple[str, Any]]:
    network = card.training["config"]["model"]
    spec = _spec(network)
    if sum(spec.depths) > MAX_LAYERS:
        raise ValueError
    for number in range(len(network["windows"] or ())):
        yield f"window{number + 1}", None
    yield from spec.convolutions()


def _spec(network: dict[str, Any]) -> ResNetSpec | DenseNetSpec:
    return network_spec(network["variant"], **network_options(network))


def logit_model(card: Card) -> keras.Model:
    """The network of the settings with initial weights: images in model units -> logits, the mean
    over the views of an image if the settings say so. Raises ArtefactError (graph_mismatch).
    """
    import keras

    from medres.models import classifier, detector, segmenter, with_views
    from medres.models.detection import head_options

    config, network = card.training["config"], card.training["config"]["model"]
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("float32")
        if card.detection is not None:
            return detector(
                network["variant"],
                card.input_shape,
                list(card.names),
                windows=network["windows"],
                scaling=network.get("image_scaling"),
                **head_options(network),
                **network_options(network),
            )
        if card.segmentation is not None:
            return segmenter(
                network["variant"],
                card.input_shape,
                list(card.names),
                decoder=network["decoder"],
                windows=network["windows"],
                scaling=network.get("image_scaling"),
                **network_options(network),
            )
        model = classifier(
            network["variant"],
            tuple(card.preprocess.shape),
            list(card.names),
            task=card.task,
            windows=network["windows"],
            scaling=network.get("image_scaling"),
            **network_options(network),
        )
        return with_views(model, config["after"]["views"], card.preprocess.fill)
    except _FAULTS as error:
        raise _mismatch(f"the settings describe no network ({type(error).__name__})") from None
    finally:
        keras.config.set_dtype_policy(policy)


def check_equal(built: dict[str, Any], stated: dict[str, Any]) -> None:
    """Raise ArtefactError (graph_mismatch) unless two configurations (config.json) say the same.

    Identities of objects in memory, shapes for which a layer was built (compared with its inputs by
    the graph check), options without a value, and the names of models (in 0.1 they did not have the
    width) do not count.
    """
    built = _plain(built, _model_names(built))
    stated = _plain(stated, _model_names(stated))
    if built == stated:
        return
    by_name = {layer["name"]: layer for layer in stated["config"]["layers"]}
    for layer in built["config"]["layers"]:
        if by_name.get(layer["name"]) != layer:
            raise _mismatch(f"{title(layer)} is another layer or missing")
    raise _mismatch("it has further layers or another order")


def _model_names(graph: dict[str, Any]) -> dict[str, str]:
    """The name of the model and of each model inside it -> one that tells only its position."""
    inner = [layer for layer in graph["config"]["layers"] if "layers" in layer["config"]]
    models = [graph["config"], *(layer["config"] for layer in inner)]
    return {model.get("name", ""): f"model {number}" for number, model in enumerate(models)}


def _plain(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: _plain(item, names)
            for key, item in value.items()
            if item is not None and key not in _SILENT
        }
    if isinstance(value, list):
        return [_plain(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def _mismatch(fault: str) -> ArtefactError:
    return ArtefactError(
        f"the graph is not the network that the settings on the card describe: {fault}. Copy the "
        f"file again from its source, or open it with the version of medres that wrote it",
        code="graph_mismatch",
    )
