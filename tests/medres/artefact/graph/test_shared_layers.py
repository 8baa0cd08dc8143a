"""A layer that several feature maps share, as the heads of a detector: its weights count once, its
work for each map; and what a hostile file could make of that is refused.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import Any

import keras
import pytest
from helpers import raises_code

from medres.artefact import graph_check
from medres.artefact.graph_check import checked_graph
from medres.errors import ArtefactError

L = keras.layers


def config_of(model: keras.Model) -> dict[str, Any]:
    return json.loads(json.dumps(keras.saving.serialize_keras_object(model)))


def pooled_twice() -> keras.Model:
    """One convolution on maps of 8 x 8 and 4 x 4, joined along the positions."""
    image = keras.Input((8, 8, 3), name="image")
    shared = L.Conv2D(5, 3, padding="same", name="shared")
    maps = [shared(image), shared(L.AveragePooling2D(2, name="half")(image))]
    flat = [L.Reshape((-1, 5), name=f"flat{i}")(x) for i, x in enumerate(maps)]
    return keras.Model(image, L.Concatenate(axis=1, name="raw")(flat))


def test_weights_count_once_and_work_for_each_map() -> None:
    model = pooled_twice()
    graph = checked_graph(config_of(model))
    assert graph.weights == Counter(tuple(v.shape) for v in model.weights)
    assert graph.layers == 6
    assert graph.calls == 6
    convolution = (64 + 16) * 9 * 3 * 5
    pool_and_join = 16 * 3 * 4 + 80 * 5 * 2
    assert graph.multiply_adds == convolution + pool_and_join
    assert graph.alive == 64 * 3 + 16 * 3 + (64 + 16) * 5 * 3


def changed(change: Any) -> dict[str, Any]:
    config = copy.deepcopy(config_of(pooled_twice()))
    layers = {layer["name"]: layer for layer in config["config"]["layers"]}
    change(layers)
    return config


def history(layer: dict[str, Any], node: int, tensor: list[Any]) -> None:
    layer["inbound_nodes"][node]["args"][0]["config"]["keras_history"] = tensor


def too_often(layers: dict[str, Any]) -> None:
    layers["shared"]["inbound_nodes"] *= 5  # ten calls


def other_channels(layers: dict[str, Any]) -> None:
    """The second map has another number of channels, for which the kernel does not exist."""
    layers["half"] |= {"class_name": "Conv2D"}
    layers["half"]["config"] = copy.deepcopy(layers["shared"]["config"])
    layers["half"]["config"] |= {"name": "half", "filters": 4, "strides": [2, 2]}
    layers["shared"]["inbound_nodes"][1]["args"][0]["config"]["shape"][-1] = 4


@pytest.mark.parametrize(
    "change",
    [
        too_often,
        other_channels,
        lambda layers: layers["shared"].update(inbound_nodes=[]),
        lambda layers: history(layers["flat1"], 0, ["shared", 2, 0]),
        lambda layers: history(layers["flat1"], 0, ["shared", -1, 0]),
        lambda layers: history(layers["flat1"], 0, ["shared", True, 0]),
        lambda layers: history(layers["shared"], 1, ["shared", 1, 0]),  # a cycle
        lambda layers: history(layers["shared"], 1, ["image", 0, 0]),  # of another shape
        lambda layers: layers["raw"]["config"].update(axis=0),
        lambda layers: layers["raw"]["config"].update(axis=2),  # 64 and 16 positions
        lambda layers: layers["raw"]["config"].update(axis=3),
    ],
)
def test_calls_that_do_not_fit_are_refused(change: Any) -> None:
    checked_graph(changed(lambda layers: None))
    with raises_code(ArtefactError, "malformed_graph"):
        checked_graph(changed(change))


def test_the_calls_are_bounded_as_the_layers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_check, "MAX_LAYERS", 6)
    checked_graph(config_of(pooled_twice()))
    with raises_code(ArtefactError, "graph_limits"):
        checked_graph(
            changed(
                lambda layers: layers["shared"].update(
                    inbound_nodes=layers["shared"]["inbound_nodes"] * 2
                )
            )
        )


def test_models_within_models_are_still_not_shared() -> None:
    """Sharing twice at each depth would cost 2^depth."""
    image = keras.Input((8, 8, 3))
    inner = keras.Model(image, L.ReLU()(image))
    twice = keras.Model(image, L.Add()([inner(image), inner(L.ELU()(image))]))
    with raises_code(ArtefactError, "malformed_graph"):
        checked_graph(config_of(keras.Model(image, twice(image))))
