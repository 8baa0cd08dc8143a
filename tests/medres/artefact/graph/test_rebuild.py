"""Networks of medres are built from the card, and their graph in the file must be the same."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import raises_code
from hostile import in_config, in_settings, members_of, write

from medres.artefact import archive, first_load, golden_vectors
from medres.artefact.archive import load
from medres.artefact.graph import rebuild
from medres.artefact.graph_check import Graph
from medres.errors import ArtefactError


@pytest.fixture
def members(tiny_run: Path) -> dict[str, bytes]:
    return members_of(tiny_run / "model.keras")


def test_a_network_of_medres_is_not_read_from_the_file(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = keras.saving.load_model(tiny_run / "model.keras")
    monkeypatch.setattr(keras.saving, "load_model", None)
    monkeypatch.setattr(first_load, "require_pass", None)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = load(tiny_run / "model.keras").model
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    images = np.random.default_rng(0).random((3, 32, 32, 1)).astype("float32")
    assert np.array_equal(model(images), expected(images))


@pytest.mark.parametrize(
    "change",
    [
        in_config('"epsilon": 1e-05', '"epsilon": 0.1'),
        in_config('"activation": "sigmoid"', '"activation": "tanh"'),
        in_config('"trainable": true', '"trainable": false'),
        in_settings(version="2"),
        in_settings(windows=[[0.0, 1.0]]),
        in_settings(width=None),
    ],
)
def test_a_graph_of_which_any_part_differs_from_the_settings_is_refused(
    members, change, tmp_path: Path
) -> None:
    with raises_code(ArtefactError, "graph_mismatch", "model.keras"):
        load(write(tmp_path / "model.keras", change(members)))


def test_equal_configurations_may_differ_in_what_means_nothing() -> None:
    layer = {"name": "a", "class_name": "ReLU", "config": {"x": 1, "y": None}}
    graph = {"config": {"layers": [layer]}}
    same = json.loads(json.dumps(graph))
    same["config"]["layers"][0]["config"] = {"x": 1, "shared_object_id": 5}
    rebuild.check_equal(graph, same)
    same["config"]["layers"][0]["config"]["x"] = 2
    with raises_code(ArtefactError, "graph_mismatch", "ReLU"):
        rebuild.check_equal(graph, same)


def test_models_may_have_another_name_and_layers_may_not() -> None:
    def graph(outer: str, inner: str, relu: str = "relu") -> dict:
        net = {"name": inner, "layers": [{"name": relu, "class_name": "ReLU", "config": {}}]}
        layers = [
            {"name": inner, "class_name": "Functional", "config": net},
            {"name": "mean", "config": {"name": "mean"}, "inbound_nodes": [[inner, 0, 0]]},
        ]
        return {"config": {"name": outer, "layers": layers}}

    built = graph("resnet10_width8_views", "resnet10_width8")
    rebuild.check_equal(built, graph("resnet10_views", "resnet10"))
    for other in (
        graph("resnet10_views", "resnet10", relu="relu2"),
        graph("resnet10", "resnet10"),
        graph("mean", "resnet10"),
        graph("relu", "resnet10"),
    ):
        with raises_code(ArtefactError, "graph_mismatch"):
            rebuild.check_equal(built, other)


def test_the_views_of_an_image_may_have_the_names_of_version_0_1(members, tmp_path: Path) -> None:
    card = archive.read_contents(write(tmp_path / "model.keras", members)).card
    settings = {**card.training["config"], "after": {"views": 5}}
    card = card.model_copy(update={"training": {**card.training, "config": settings}})
    built = json.loads(rebuild.logit_model(card).to_json())
    old = json.loads(json.dumps(built).replace("resnet10_small_width8", "resnet10_small"))
    assert old != built
    rebuild.check_equal(built, old)


@pytest.fixture
def other(members, tmp_path: Path) -> Path:
    """The same file as one with a backbone of somebody's own."""
    own = in_settings(variant="backbone", backbone_sha256="0" * 64)
    return write(tmp_path / "other.keras", own(members))


def test_another_graph_is_opened_once_in_a_limited_process(
    other: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls, original = [], golden_vectors.outputs_in_plain_keras

    def counted(*arguments):
        calls.append(arguments[3])
        return original(*arguments)

    monkeypatch.setattr(golden_vectors, "outputs_in_plain_keras", counted)
    first, again = load(other), load(other)
    assert first.sha256 == again.sha256
    assert len(calls) == 1
    assert (2 << 30) < calls[0].memory < (3 << 30)
    other.write_bytes(write(other, in_settings(a=1)(members_of(other))).read_bytes())
    load(other)
    assert len(calls) == 2


def test_a_refusal_of_the_limited_process_is_not_remembered(
    other: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        golden_vectors, "outputs_in_plain_keras", lambda *arguments: np.zeros((2, 1), "f4")
    )
    monkeypatch.setattr(archive, "require_tensorflow", None)  # not opened here
    for _ in range(2):
        with raises_code(ArtefactError, "outputs_differ", "other.keras"):
            load(other)


def test_limits_follow_the_cost_of_the_graph() -> None:
    limits = first_load.limits_of(Graph(alive=1 << 20, multiply_adds=10**12), 2)
    assert limits.memory == (2 << 30) + 24 * (1 << 20)
    assert limits.seconds == 120 + 2000


def test_the_process_keeps_to_its_limits(tiny_run: Path) -> None:
    """In a fresh Python, where the function is not replaced."""
    import subprocess
    import sys

    script = f"""
from pathlib import Path
from medres.artefact.archive import read_contents
from medres.artefact.golden_vectors import ProcessLimits, outputs_in_plain_keras
from medres.errors import ArtefactError
path = Path({str(tiny_run / "model.keras")!r})
contents = read_contents(path)
for limits in (ProcessLimits(1 << 20, 300.0), ProcessLimits(2 << 30, 0.5)):
    try:
        outputs_in_plain_keras(path, contents.inputs, contents.card.preprocess, limits)
    except ArtefactError as error:
        print(error.code)
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("memory is limited on Linux only")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["keras_cannot_open"] * 2
