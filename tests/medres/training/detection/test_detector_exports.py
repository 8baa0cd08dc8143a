"""A detector in other runtimes gives the boxes of the model file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import Lines, raises_code, work_in_process

import medres
from data_pipelines.ingestion.manifest import Manifest
from medres.artefact.archive import load, read_contents
from medres.artefact.boxes import comparable
from medres.artefact.card import Card
from medres.errors import ExportError
from medres.inference.exporting import agree, export, same_decisions


@pytest.fixture(scope="module")
def model(box_work: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        work_in_process(patch)
        run = medres.train(
            box_work,
            task="detection",
            model="resnet10",
            width=4,
            stem="small",
            preset="xray-20",
            levels=(3, 4),
            channels=8,
            head_depth=1,
            batch_size=4,
            augment="none",
            precision="float32",
            epochs=1,
            out=tmp_path_factory.mktemp("runs") / "run",
            progress=Lines(),
        )
        yield run.artefact


def raw_maps(card: Card) -> np.ndarray:
    rng = np.random.default_rng(0)
    raw = rng.normal(0, 2, (2, *card.output_shape)).astype(np.float32)
    raw[..., :4] = np.abs(raw[..., :4]) * 3
    return raw


@pytest.mark.long  # trains the model of this file
def test_raw_maps_are_compared_in_strides_and_probabilities(model: Path) -> None:
    card = read_contents(model).card
    raw = raw_maps(card)
    assert agree(raw, raw, card, "onnx") == 0
    values = comparable(raw, card.decoding)
    np.testing.assert_allclose(values[:, :100, 0], np.log1p(raw[:, :100, 0] / 2), rtol=1e-6)
    np.testing.assert_allclose(values[:, 100:, 0], np.log1p(raw[:, 100:, 0] / 4), rtol=1e-6)
    np.testing.assert_allclose(values[..., 4:], 1 / (1 + np.exp(-raw[..., 4:])), rtol=1e-5)
    far = raw.copy()
    far[0, 3, 0] += 0.1
    with raises_code(ExportError, "export_differs"):
        agree(far, raw, card, "onnx")


@pytest.mark.long  # trains the model of this file
def test_another_positive_box_is_another_decision(model: Path) -> None:
    card = read_contents(model).card
    raw = raw_maps(card)
    assert same_decisions(raw + 1e-7, raw, card)
    fewer = raw.copy()
    fewer[0, :, 5] = -20  # no box of the first class in the first image
    assert not same_decisions(fewer, raw, card)
    assert not same_decisions(raw, fewer, card)


@pytest.mark.long  # converts the network
@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_the_same_boxes_in_other_runtimes(
    model: Path, box_work: Path, tmp_path: Path, engine: str
) -> None:
    pytest.importorskip("tf2onnx")
    pytest.importorskip("openvino")
    folder = export(load(model), engine, tmp_path / engine).folder  # type: ignore[arg-type]
    facts = json.loads((folder / "serving.json").read_text())
    card = read_contents(model).card
    assert facts["outputs"]["raw"]["shape"] == [None, *card.output_shape]
    assert facts["detection"]["strides"] == [2, 4]
    assert facts["thresholds"] == card.box_thresholds
    assert "novelty" in facts["outputs"]
    row = Manifest.load(box_work).table.iloc[0]
    path = Path(row["source"]) / row["path"]
    ours = medres.load(model, isolate=False).predict(path)
    other = medres.load(model, engine=engine, exported=folder, isolate=False)  # type: ignore[arg-type]
    theirs = other.predict(path)
    assert len(ours.boxes) == len(theirs.boxes) > 0
    for a, b in zip(ours.boxes, theirs.boxes, strict=True):
        assert (a.label, a.is_positive) == (b.label, b.is_positive)
        corners = ([box.x_min, box.y_min, box.x_max, box.y_max] for box in (a, b))
        np.testing.assert_allclose(*corners, atol=0.01)
        assert a.score == pytest.approx(b.score, abs=1e-5)
    assert ours.novelty == pytest.approx(theirs.novelty, rel=1e-3)
