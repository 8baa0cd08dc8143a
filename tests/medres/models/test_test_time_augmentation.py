"""Test-time augmentation is part of the saved model, with its weights there once."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import raises_code

import medres
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.preparation import to_model_units
from medres.artefact.archive import load
from medres.artefact.graph_check import weight_shapes
from medres.errors import ArtefactError
from medres.explain import saliency_map
from medres.inference.exporting import _with_folded_norm, agree, check_inputs, export
from medres.inference.scoring import score_split
from medres.models.test_time_augmentation import core_of, with_views


@pytest.fixture(scope="module")
def run(tiny_work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "views"
    settings = {
        "model": "resnet10",
        "preset": "xray-32",
        "width": 8,
        "epochs": 2,
        "batch_size": 8,
        "seed": 3,
    }
    medres.train(tiny_work, out=out, views=5, **settings)
    return out


def shifted(images: np.ndarray, down: int, right: int, empty: float) -> np.ndarray:
    """The slow way, on the second and third axis from the end but one: written out pixel by
    pixel.
    """
    out = np.full_like(images, empty)
    rows, cols = images.shape[-3:-1]
    for row in range(rows):
        for col in range(cols):
            if 0 <= row - down < rows and 0 <= col - right < cols:
                out[..., row, col, :] = images[..., row - down, col - right, :]
    return out


@pytest.mark.parametrize(
    ("shape", "windows", "empty", "step"),
    [
        ((32, 32, 1), None, 0.0, (1, 1)),
        ((64, 96, 1), ["lung"], -1024.0, (2, 3)),
        ((8, 32, 16, 1), ["bone"], -1024.0, (1, 1)),
    ],
)
def test_five_views_are_the_mean_of_the_logits_of_shifted_copies(
    shape, windows, empty, step
) -> None:
    net = medres.classifier("resnet10", shape, 2, windows=windows, width=8, stem="small")
    images = (
        np.random.default_rng(0)
        .uniform(min(empty, 0), 1 if windows is None else 800, (3, *shape))
        .astype("float32")
    )
    down, right = step
    views = [images] + [
        shifted(images, d * down, r * right, empty) for d in (-1, 1) for r in (-1, 1)
    ]
    want = np.mean([net(view, training=False) for view in views], axis=0)
    assert np.asarray(with_views(net, 5, empty)(images, training=False)) == pytest.approx(
        want, abs=1e-5
    )
    assert with_views(net, 1, empty) is net


def test_weights_are_kept_once_and_the_answer_is_the_same_everywhere(
    run: Path, tiny_run: Path, tiny_work: Path
) -> None:
    sizes = [
        zipfile.ZipFile(r / "model.keras").getinfo("model.weights.h5").file_size
        for r in (run, tiny_run)
    ]
    assert sizes[0] < 1.1 * sizes[1]
    predictor = medres.load(run / "model.keras")
    assert predictor.card.training["config"]["after"]["views"] == 5
    scores, _ = score_split(run / "model.keras", tiny_work, "tune")
    known = scores.set_index("image")["score"]
    table = Manifest.load(tiny_work).table.set_index("image").loc[known.index]
    for image, row in list(table.iterrows())[:3]:
        found = predictor.predict(Path(row["source"]) / row["path"])
        assert found.refused is None
        assert found.probabilities["square"] == pytest.approx(known[image], abs=1e-6)
        assert found.novelty is not None


def test_a_folded_copy_and_a_map_of_it(run: Path) -> None:
    predictor = medres.load(run / "model.keras")
    model = predictor.artefact.model
    light = _with_folded_norm(model)
    assert len(core_of(light).layers) < len(core_of(model).layers)
    given = to_model_units(check_inputs(predictor.card), predictor.card.preprocess)
    want, found = (np.asarray(m(given, training=False)) for m in (model, light))
    assert agree(found, want, predictor.card, "folded") < 1e-5
    seen = saliency_map(model, given[0], method="gradcam++")
    assert seen.shape == given.shape[1:-1]
    assert np.isfinite(seen).all()
    assert seen.max() > 0


@pytest.mark.long
@pytest.mark.parametrize("form", ["onnx", "openvino", "saved_model"])
def test_exports_hold_all_views(run: Path, tmp_path: Path, form: str) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    made = export(load(run / "model.keras"), form, tmp_path / f"model.{form}", optimise=True)
    assert made.difference < 1e-5


@pytest.mark.long
def test_an_ensemble_of_such_models_looks_at_five_views_too(
    tiny_work: Path, tmp_path: Path
) -> None:
    made = medres.cross_validate(
        tiny_work,
        out=tmp_path / "seeds",
        folds=1,
        seeds=2,
        model="resnet10",
        preset="xray-32",
        width=8,
        epochs=1,
        batch_size=8,
        views=5,
    )
    model = medres.load(made.artefact).artefact.model
    assert core_of(model) is not model
    assert sum(layer.name.endswith("_pooled") for layer in core_of(model).layers) == 2


def test_a_shared_layer_counts_once_and_views_of_different_sizes_are_refused(run: Path) -> None:
    image = keras.Input((8, 8, 1))
    conv = keras.layers.Conv2D(1, 3, padding="same")
    twice = keras.Model(image, keras.layers.Add()([conv(image), conv(keras.layers.ReLU()(image))]))
    config = {"class_name": "Functional", **json.loads(twice.to_json())}
    assert sum(weight_shapes(config).values()) == 2  # kernel and bias of the shared layer, once
    whole = json.loads(zipfile.ZipFile(run / "model.keras").read("config.json"))
    assert sum(weight_shapes(whole).values()) > 10
    (inner,) = [layer for layer in whole["config"]["layers"] if layer["class_name"] == "Functional"]
    cut = next(layer for layer in whole["config"]["layers"] if layer["class_name"] == "Cropping2D")
    cut["config"]["cropping"] = [[5, 0], [0, 1]]  # a view of another size
    with pytest.raises(ArtefactError):
        weight_shapes(whole)
    assert len(inner["inbound_nodes"]) == 5


def test_a_model_within_a_model_is_called_five_times_at_most_and_at_the_top_alone() -> None:
    def calling(inner: keras.Model, times: int) -> keras.Model:
        image = keras.Input((8, 8, 1))
        return keras.Model(image, keras.layers.Average()([inner(image) for _ in range(times)]))

    def checked(model: keras.Model) -> int:
        return sum(
            weight_shapes({"class_name": "Functional", **json.loads(model.to_json())}).values()
        )

    image = keras.Input((8, 8, 1))
    net = keras.Model(image, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(image)))
    assert checked(calling(net, 5)) == 2
    for bad in (calling(net, 6), calling(calling(net, 2), 2)):
        with raises_code(ArtefactError, "malformed_graph"):
            checked(bad)
