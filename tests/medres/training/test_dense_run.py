"""A DenseNet wherever a ResNet is: trained, saved, rebuilt from its card, explained, exported."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import raises_code
from hostile import in_config, in_settings, members_of, write

import medres
from data_pipelines.ingestion.manifest import Manifest
from medres.artefact import first_load
from medres.artefact.archive import load
from medres.errors import ArtefactError, ModelError
from medres.explain import METHODS
from medres.inference.exporting import export

OPTIONS = {
    "model": "densenet_bc10_k4",
    "stem": "cifar",
    "preset": "xray-32",
    "batch_size": 8,
    "seed": 3,
}


@pytest.fixture(scope="module")
def dense_run(tiny_work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "dense"
    medres.train(tiny_work, **OPTIONS, epochs=1, out=out)
    return out


def test_its_file_is_rebuilt_from_the_settings_on_the_card(
    dense_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((dense_run / "config.json").read_text())
    assert config["model"]["variant"] == "densenet_bc10_k4"
    expected = keras.saving.load_model(dense_run / "model.keras")
    assert expected.get_layer("stage3_layer1_concat").output.shape[-1] == 5 + 4
    monkeypatch.setattr(keras.saving, "load_model", None)
    monkeypatch.setattr(first_load, "require_pass", None)
    images = np.random.default_rng(0).random((3, 32, 32, 1)).astype("float32")
    assert np.array_equal(load(dense_run / "model.keras").model(images), expected(images))


@pytest.mark.parametrize(
    "change",
    [
        in_config('"epsilon": 1e-05', '"epsilon": 0.1'),
        in_settings(variant="densenet10_k4"),
        in_settings(variant="densenet_bc10_k5"),
        in_settings(variant="densenet_bc16_k4"),
        in_settings(variant="densenet_bc99994_k4"),
        in_settings(variant=f"densenet{'9' * 60}_k4"),
        in_settings(stem="small"),
        in_settings(version="2"),
        in_settings(width=16),
    ],
)
def test_a_graph_that_differs_from_the_settings_is_refused(
    dense_run: Path, change, tmp_path: Path
) -> None:
    members = change(members_of(dense_run / "model.keras"))
    with raises_code(ArtefactError, "graph_mismatch", "model.keras"):
        load(write(tmp_path / "model.keras", members))


def test_it_predicts_and_is_explained(dense_run: Path, tiny_work: Path) -> None:
    predictor = medres.load(dense_run / "model.keras")
    row = Manifest.load(tiny_work).table.iloc[0]
    prediction = predictor.predict([Path(row.source) / row.path])
    assert 0 <= prediction.probabilities["square"] <= 1
    for method in METHODS:
        values = prediction.saliency("square", method=method).values
        assert np.isfinite(values).all()
        assert np.ptp(values) > 0 or method.startswith("gradcam")  # which is 0 where none is > 0


def test_it_is_exported_to_onnx(dense_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    made = export(load(dense_run / "model.keras"), "onnx", tmp_path / "onnx")
    assert made.difference <= 5e-6


def test_options_that_only_resnets_have_are_refused_before_training(
    tiny_work: Path, tmp_path: Path
) -> None:
    with raises_code(ModelError, "incompatible_options", "DenseNet"):
        medres.train(tiny_work, **OPTIONS, version="2", epochs=1, out=tmp_path / "run")
    with raises_code(ModelError, "incompatible_options", "stochastic_depth"):
        medres.train(tiny_work, **OPTIONS, stochastic_depth=0.2, epochs=1, out=tmp_path / "run")
    with raises_code(ModelError, "incompatible_options", "recipes"):
        medres.train(tiny_work, **OPTIONS, recipe="modern", epochs=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_densenet_121_is_trained_saved_opened_and_used(tiny_work: Path, tmp_path: Path) -> None:
    options = OPTIONS | {"model": "densenet121", "stem": "imagenet", "preset": "xray-64"}
    run = medres.train(tiny_work, **options, epochs=1, out=tmp_path / "run")
    row = Manifest.load(tiny_work).table.iloc[0]
    prediction = medres.load(run.artefact).predict([Path(row.source) / row.path])
    assert 0 <= prediction.probabilities["square"] <= 1
    model = keras.saving.load_model(run.artefact)
    assert model.get_layer("stage4").output.shape[1:] == (2, 2, 1024)
