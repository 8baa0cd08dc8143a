"""Named weights. There is no network in the tests: the files are made here, registered with their
own hash, and downloaded from a folder (file://) and from a server on this machine.
"""

from __future__ import annotations

import dataclasses
import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import medres as command
from helpers import raises_code
from torch_files import as_torch, randomised, write_pth

import medres
from data_pipelines.runtime.atomic_files import file_sha256
from medres.artefact.archive import load, save, with_probability
from medres.artefact.card import Card
from medres.backbones.build import resnet
from medres.backbones.weights import table
from medres.backbones.weights.cached_files import cached_path, weights_file
from medres.backbones.weights.load import load_pretrained
from medres.errors import TrainingError, WeightsError
from medres.models.classification import classifier
from medres.training.calibration.scaling import identity
from medres.training.config.options import configuration, preprocessing, resolve_settings
from medres.training.network import build_classifier

MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
Published = tuple[table.NamedWeights, keras.Model]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model]:
    """A file as torchvision publishes it, of a narrow network, and that network."""
    model = randomised(resnet(18, (32, 32, 3), width=4))
    return write_pth(tmp_path_factory.mktemp("site") / "new.pth", as_torch(model, {})), model


@pytest.fixture
def published(
    source: tuple[Path, keras.Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Published:
    """The only row of the table: "imagenet" for resnet18, at file://; and an empty cache."""
    path, model = source
    row = dataclasses.replace(
        table.named_weights("imagenet", "resnet18"),
        url=path.as_uri(),
        sha256=file_sha256(path)[:8],
    )
    monkeypatch.setattr(table, "WEIGHTS", (row,))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return row, model


def as_torchvision_sees(images: np.ndarray) -> np.ndarray:
    """Values 0..1 in one or three channels as normalized RGB."""
    rgb = np.repeat(images, 3 // images.shape[-1], axis=-1)
    return ((rgb - MEAN) / DEVIATION).astype("float32")


def stage4(model: keras.Model, images: np.ndarray) -> np.ndarray:
    core = keras.Model(model.inputs[0], model.get_layer("stage4").output)
    return np.asarray(core(images.astype("float32")))


def pictures(channels: int) -> np.ndarray:
    return np.random.default_rng(3).random((2, 32, 32, channels))


def assert_same_features(got: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(got - expected).max() / np.abs(expected).max() < 1e-4


@pytest.mark.parametrize("channels", [1, 3, 2])
def test_display_values_give_the_features_of_the_source_up_to_the_border(
    published: Published, channels: int
) -> None:
    """All pixels of the last feature map, the zeros around the image included."""
    model = classifier(18, (32, 32, channels), 2, width=4, weights="imagenet")
    images = pictures(channels) if channels == 3 else np.repeat(pictures(1), channels, axis=-1)
    expected = stage4(
        published[1], as_torchvision_sees(images[..., :3] if channels == 3 else images[..., :1])
    )
    assert_same_features(stage4(model, images), expected)


@pytest.mark.parametrize("windows", [["lung"], ["lung", (40, 400)], ["lung", "bone", (40, 400)]])
def test_windows_of_ct_reach_the_source_as_pictures(published: Published, windows: list) -> None:
    """Where every window shows the same value, the features are those of that gray picture."""
    model = classifier(18, (32, 32, 1), 2, width=4, windows=windows, weights="imagenet")
    hounsfield = np.where(pictures(1) < 0.5, -3000.0, 3000.0)  # black and white in each window
    gray = (hounsfield > 0).astype("float64")
    assert_same_features(stage4(model, hounsfield), stage4(published[1], as_torchvision_sees(gray)))


def test_a_backbone_receives_values_from_minus_one_to_one(published: Published) -> None:
    model = resnet(18, (32, 32, 1), width=4, weights="imagenet")
    expected = stage4(published[1], as_torchvision_sees(pictures(1)))
    assert_same_features(stage4(model, 2 * pictures(1) - 1), expected)


@pytest.mark.parametrize("scaling", [None, "imagenet"])  # of an image 0..1, and of the kind rgb
def test_color_is_normalized_once(published: Published, scaling: str | None) -> None:
    model = classifier(18, (32, 32, 3), 2, width=4, scaling=scaling, weights="imagenet")
    images = pictures(3)
    assert_same_features(stage4(model, images), stage4(published[1], as_torchvision_sees(images)))


@pytest.mark.parametrize(
    ("preset", "names"),
    [
        ("rgb-32", {"image_scaling": "imagenet"}),
        ("xray-32", {"input_scaling": "imagenet"}),
        ("mr-32", {"image_scaling": "none", "input_scaling": "imagenet"}),
    ],
)
def test_a_run_normalizes_once_and_its_file_is_built_again_from_its_card(
    published: Published,
    preset: str,
    names: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = {"model": "resnet18", "width": 4, "weights": "imagenet"}
    options, recipe = resolve_settings(None, start)
    spec = preprocessing(preset, None)
    config = configuration(options, recipe, spec)
    assert {k: v for k, v in config["model"].items() if k.endswith("scaling")} == names
    model = build_classifier(config["model"], spec, ["a", "b"], "multilabel")
    load_pretrained(model, weights_file("imagenet", "resnet18").path)
    images = pictures(spec.shape[-1])
    # One standard deviation of MR is white, its opposite black.
    seen = (images + 1) / 2 if preset.startswith("mr") else images
    assert_same_features(stage4(model, images), stage4(published[1], as_torchvision_sees(seen)))

    served = with_probability(model, identity(2, "none"), "multilabel")
    card = Card(
        task="multilabel", names=["a", "b"], preprocess=spec, unit="image", pooling="max",
        calibration=vars(identity(2, "none")), operating_points=[], versions={},
        training={"config": config},
    )  # fmt: skip
    save(tmp_path / "model.keras", served, card)
    monkeypatch.setattr(keras.saving, "load_model", None)
    rebuilt = load(tmp_path / "model.keras").model
    assert np.array_equal(rebuilt(images.astype("float32")), served(images.astype("float32")))


def test_volumes_take_inflated_filters(published: Published) -> None:
    model = resnet(18, (32, 32, 32, 1), width=4, weights="imagenet")
    assert model.get_layer("stem_conv").kernel.shape == (7, 7, 7, 3, 4)


def test_the_download_is_verified_recorded_and_not_repeated(
    published: Published, source: tuple[Path, keras.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    row, _ = published
    file, digest = weights_file("imagenet", "resnet18"), file_sha256(source[0])
    assert file == (
        cached_path(row),
        "imagenet resnet18: torchvision, IMAGENET1K_V1",
        digest,
        "imagenet",
    )
    assert sorted(p.name for p in file.path.parent.iterdir()) == [row.file, f"{row.file}.sha256"]
    assert (file.path.parent / f"{row.file}.sha256").read_text() == f"{digest}  {row.file}\n"
    monkeypatch.setattr(keras.utils, "get_file", None)
    assert weights_file("imagenet", "resnet18") == file
    file.path.write_bytes(file.path.read_bytes() + b" ")
    with raises_code(WeightsError, "wrong_hash", str(file.path), digest):
        weights_file("imagenet", "resnet18")


@pytest.fixture
def server(source: tuple[Path, keras.Model]) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(source[0].parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sha256": "00000000"}, "wrong_hash"),
        ({"url": "absent.pth"}, "download_failed"),
        ({"url": "http://127.0.0.1:1/new.pth"}, "download_failed"),  # no server: as without network
    ],
)
def test_a_failed_download_leaves_nothing(
    published: Published, server: str, monkeypatch: pytest.MonkeyPatch, changes: dict, code: str
) -> None:
    url = changes.get("url", "new.pth")
    changes["url"] = url if "://" in url else f"{server}/{url}"
    row = dataclasses.replace(published[0], **changes)
    monkeypatch.setattr(table, "WEIGHTS", (row,))
    place = cached_path(row)
    with raises_code(WeightsError, code, row.file):
        classifier(18, (32, 32, 1), 2, width=4, weights="imagenet")
    if code == "download_failed":
        with raises_code(WeightsError, code, f"put it here: {place}", "45 MB"):
            weights_file("imagenet", "resnet18")
    assert list(place.parent.iterdir()) == []


def test_from_a_server(
    published: Published,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    row = dataclasses.replace(published[0], url=f"{server}/new.pth")
    monkeypatch.setattr(table, "WEIGHTS", (row,))
    assert weights_file("imagenet", "resnet18").path.read_bytes()[:2] == b"PK"
    assert capsys.readouterr().out == ""  # the progress goes to standard error: --json stays JSON


class TestRefusals:
    def test_a_network_without_such_weights(self, published: Published) -> None:
        with raises_code(WeightsError, "no_such_weights", "resnet34", "resnet18"):
            resnet(34, (32, 32, 3), weights="imagenet")

    def test_weights_that_people_must_fetch(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        place = str(tmp_path / "models" / "resnet_10_23dataset.pth")
        with raises_code(WeightsError, "not_in_cache", place, "MIT", "MedicalNet"):
            resnet(10, (32, 32, 32, 1), weights="medicalnet")

    def test_a_scaling_beside_the_one_in_the_graph(self, published: Published) -> None:
        model = resnet(18, (32, 32, 1), width=4, input_scaling="imagenet")
        with raises_code(WeightsError, "scaling"):
            load_pretrained(model, as_torch(published[1], {}), scaling="imagenet")

    @pytest.mark.parametrize("more", [{"scaling": "imagenet"}, {"backbone": "0" * 64}])
    def test_settings_of_a_run_that_do_not_go_with_a_name(self, more: dict) -> None:
        backbone = more.pop("backbone", None)
        options, recipe = resolve_settings(None, {"weights": "imagenet", **more})
        with raises_code(TrainingError, "bad_setting", "imagenet"):
            configuration(options, recipe, preprocessing("xray-32", None), backbone=backbone)


def test_the_published_names_hold_the_published_digits() -> None:
    rows = [row for row in table.WEIGHTS if row.url is not None]
    assert all(row.file.endswith(f"-{row.sha256}.pth") for row in rows)
    assert {row.variant for row in rows if row.name == "imagenet"} >= {
        *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
        *(f"densenet{depth}" for depth in (121, 169, 201)),
    }


def test_the_command_lists_them(published: Published) -> None:
    row, _ = published
    assert "not cached" in command("weights").stdout
    weights_file("imagenet", "resnet18")
    listed = json.loads(command("weights", "--json").stdout)
    assert [(r["name"], r["cached"], r["path"]) for r in listed] == [
        ("imagenet", True, str(cached_path(row)))
    ]
    assert {"terms", "source", "megabytes", "url", "sha256"} <= set(listed[0])


@pytest.mark.long  # a run, its file opened again
def test_a_run_states_its_weights_and_its_file_opens(
    published: Published, tiny_work: Path, tmp_path: Path, source: tuple[Path, keras.Model]
) -> None:
    run = medres.train(
        tiny_work, out=tmp_path / "run", preset="xray-32", epochs=1, width=4, batch_size=8,
        model="resnet18", weights="imagenet", precision="float32",
    )  # fmt: skip
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["weights_sha256"] == file_sha256(source[0])
    assert config["weights_source"] == "imagenet resnet18: torchvision, IMAGENET1K_V1"
    assert (config["model"]["stem"], config["model"]["input_scaling"]) == ("imagenet", "imagenet")
    loaded = medres.load(run.artefact)
    assert loaded.card.training["config"]["weights_source"] == config["weights_source"]
    assert keras.saving.load_model(run.artefact).get_layer("rgb").output.shape[-1] == 3


def test_against_torchvision_where_it_is_installed(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.resnet18(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    model = classifier(18, (64, 64, 1), 1000, input_scaling="imagenet")
    load_pretrained(model, tmp_path / "resnet18.pth")
    gray = np.random.default_rng(0).random((2, 64, 64, 1)).astype("float32")
    with torch.no_grad():
        expected = network(torch.from_numpy(as_torchvision_sees(gray).transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(np.asarray(model(gray)), expected.numpy(), atol=1e-4)
