"""A detector from its work folder to boxes: one run of three steps, shared by the tests."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from annotated_cluster import check_on_a_cluster
from helpers import Lines, raises_code, work_in_process
from PIL import Image

import medres
from data_pipelines.annotations.boxes import read_boxes
from data_pipelines.ingestion.manifest import Manifest
from medres.artefact import summary
from medres.artefact.archive import load, read_contents
from medres.artefact.boxes import boxes_of_outputs
from medres.errors import ArtefactError, RefusedInput, TrainingError
from medres.inference.boxes.files import write_boxes
from medres.inference.boxes.scoring import _check_classes, evaluate_detector

OPTIONS: dict[str, Any] = {
    "task": "detection",
    "model": "resnet10",
    "width": 4,
    "stem": "small",
    "preset": "xray-20",
    "levels": (3, 4),
    "channels": 8,
    "head_depth": 1,
    "batch_size": 4,
    "augment": "none",
    "precision": "float32",
    "seed": 3,
}


@pytest.fixture(scope="module", autouse=True)
def _here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        work_in_process(patch)
        yield


@pytest.fixture(scope="module")
def reported() -> Lines:
    return Lines()


@pytest.fixture(scope="module")
def run(box_work: Path, tmp_path_factory: pytest.TempPathFactory, reported: Lines) -> Path:
    out = tmp_path_factory.mktemp("runs") / "boxes"
    medres.train(box_work, **OPTIONS, epochs=1, out=out, progress=reported)
    return out


def test_history_has_ap_and_froc_and_the_card_its_thresholds(run: Path, reported: Lines) -> None:
    history = pd.read_csv(run / "history.csv")
    ends = ("", "_low", "_high")
    expected = {f"tune_{name}{end}" for name in ("ap50", "froc") for end in ends}
    assert expected | {"tune_loss", "tune_ap50_bright", "tune_ap50_dark"} <= {*history}
    assert history[["tune_ap50", "tune_froc"]].stack().between(0, 1).all()
    assert "left out of detection: 1 samples not_annotated, 1 samples rejected" in reported.lines
    card = read_contents(run / "model.keras").card
    assert (card.task, card.names) == ("detection", ["bright", "dark"])
    assert card.detection is not None
    assert card.detection.strides == [2, 4]
    assert card.output_shape == (10 * 10 + 5 * 5, 7)
    assert [(p.finding, p.unit, p.split) for p in card.operating_points] == [
        ("bright", "box", "tune"),
        ("dark", "box", "tune"),
    ]
    config = json.loads((run / "config.json").read_text())
    assert config["detection"] == {"fp_per_image": 1.0}
    assert config["monitor"] == "ap50:max"
    assert config["model"]["levels"] == [3, 4]
    assert "AP50" in (run / "training.html").read_text()


def test_the_file_opens_in_plain_keras_and_has_golden_boxes(run: Path, tmp_path: Path) -> None:
    artefact = load(run / "model.keras")
    plain = keras.saving.load_model(run / "model.keras")
    images = np.random.default_rng(0).random((2, 20, 20, 1)).astype("float32")
    raw = np.asarray(plain(images))
    np.testing.assert_array_equal(np.asarray(artefact.model(images)), raw)
    shown = "\n".join(summary.lines(artefact))
    assert "boxes in each image" in shown
    assert f"bright >= {artefact.card.box_thresholds['bright']:.4g} per box" in shown
    assert "pooling" not in shown
    first, second = medres.decode(raw, artefact.card.decoding)
    assert len(first) + len(second) == len(boxes_of_outputs(raw, artefact.card.decoding))
    contents = read_contents(run / "model.keras")
    golden = dict(np.load(io.BytesIO(contents.members["golden.npz"])))
    expected = boxes_of_outputs(golden["outputs"], artefact.card.decoding)
    np.testing.assert_array_equal(golden["boxes"], expected)
    assert len(expected)
    from hostile import members_of, write

    members = members_of(run / "model.keras")
    golden["boxes"][0, 1] += 1
    buffer = io.BytesIO()
    np.savez(buffer, **golden)
    members["golden.npz"] = buffer.getvalue()
    with raises_code(ArtefactError, "golden_shape", "boxes"):
        read_contents(write(tmp_path / "changed.keras", members))


def test_boxes_are_in_the_pixels_of_the_original_image(
    run: Path, box_work: Path, tmp_path: Path
) -> None:
    row = Manifest.load(box_work).table.iloc[0]
    with medres.load(run / "model.keras", isolate=False) as predictor:
        prediction = predictor.predict(Path(row["source"]) / row["path"])
        assert prediction.refused is None
        raw = np.asarray(
            predictor.artefact.model(prediction.previews[0].image[None, ..., None] / 65535)
        )
        found = medres.decode(raw[0], predictor.card.decoding)
        # 20 pixels of the preset are 40 of the image
        corners = [[b.x_min, b.y_min, b.x_max, b.y_max] for b in prediction.boxes]
        np.testing.assert_allclose(corners, 2 * found.corners, atol=1e-3)
        assert [box.score for box in prediction.boxes] == pytest.approx(
            found.scores.tolist(), abs=1e-5
        )
        thresholds = predictor.card.box_thresholds
        assert prediction.thresholds == thresholds
        for box in prediction.boxes:
            assert box.is_positive == (box.score >= thresholds[box.label])
            assert box.sop_instance_uid == prediction.sop_instance_uids[0]
            assert box.frame == 0
        positive = {box.label for box in prediction.positive_boxes}
        assert prediction.decisions == {name: name in positive for name in ("bright", "dark")}
        refused = predictor.predict(tmp_path)  # no file
        assert (refused.code, refused.boxes) == ("no_file", [])
        with raises_code(RefusedInput, "nothing_to_explain"):
            prediction.saliency("bright")
        out = tmp_path / "out"
        summary = write_boxes([prediction, refused], predictor.card, out)
    assert (summary["task"], summary["answered"]) == ("detection", 1)
    assert summary["refused"] == {"no_file": 1}
    assert summary["images"][0]["width"] == 40
    coco = json.loads((out / "coco_results.json").read_text())
    assert len(coco) == len(prediction.boxes)
    first = prediction.boxes[0]
    assert coco[0]["bbox"] == pytest.approx(
        [first.x_min, first.y_min, first.x_max - first.x_min, first.y_max - first.y_min]
    )
    assert np.array(Image.open(out / "00001_overlay.png")).shape[1] >= 384
    written = json.loads((out / "predictions.json").read_text())
    assert len(written["studies"][0]["boxes"]) == len(coco)


def test_a_cluster_writes_the_same_boxes(
    run: Path, box_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_on_a_cluster(run, box_work, tmp_path, monkeypatch)


def test_evaluation_has_the_boxes_of_the_predictor(
    run: Path, box_work: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(box_work, work)
    lines = Lines()
    found = evaluate_detector(run / "model.keras", work, progress=lines, replicates=40)
    table = Manifest.load(work).table
    test = table[(table["split"] == "test") & (table["box_state"] == "annotated")]
    count = found.report.n
    assert (count["images"], count["patients"]) == (len(test), len(test))
    assert count["boxes"] == sum(len(read_boxes(work, name)) for name in test["image"])
    with medres.load(run / "model.keras", isolate=False) as predictor:
        predictions = [
            predictor.predict(Path(source) / path)
            for source, path in zip(test["source"], test["path"], strict=True)
        ]
    assert count["predictions"] == sum(len(one.boxes) for one in predictions)
    point = found.numbers["findings"]["bright"]["operating_points"][0]
    assert point["origin"] == "frozen"
    threshold = read_contents(run / "model.keras").card.box_thresholds["bright"]
    assert point["threshold"] == threshold
    positive = [box for one in predictions for box in one.positive_boxes if box.label == "bright"]
    assert point["tp"] + point["fp"] <= len(positive)
    assert "not among the cases: 1 samples not_annotated, 1 samples rejected" in lines.lines
    assert (work / "test_openings.csv").read_text().count("\n") == 2


def test_boxes_of_other_classes_are_refused(run: Path) -> None:
    card = read_contents(run / "model.keras").card
    with raises_code(ArtefactError, "other_labels", "bright, dark"):
        _check_classes(card, SimpleNamespace(box_classes=("dark", "bright")))  # type: ignore[arg-type]


def test_what_is_for_classifiers_is_refused(run: Path, box_work: Path, tmp_path: Path) -> None:
    from medres.inference.scoring import score

    with raises_code(ArtefactError, "detector"):
        score(run / "model.keras", box_work)
    with raises_code(ArtefactError, "no_detector"):
        _ = read_contents(run / "model.keras").card.model_copy(update={"detection": None}).decoding


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"levels": (3, 4)}, "other_task"),
        ({"task": "detection", "calibration": "none"}, "other_task"),
        ({"task": "detection", "decoder": "fpn"}, "other_task"),
        ({"task": "detection", "mixup": 0.2}, "other_task"),
        ({"task": "detection", "recipe": "small"}, "other_task"),
        ({"task": "detection", "monitor": "auc"}, "unknown_monitor"),
        ({"task": "detection", "metrics": ["accuracy"]}, "bad_metrics"),
    ],
)
def test_settings_that_do_not_fit_the_task(
    box_work: Path, tmp_path: Path, options: dict[str, Any], code: str
) -> None:
    names = ("task", "levels", "channels", "head_depth")
    base = {name: value for name, value in OPTIONS.items() if name not in names}
    with raises_code(TrainingError, code):
        medres.train(box_work, out=tmp_path / "run", progress=Lines(), **{**base, **options})


def test_detection_has_defaults_of_its_own() -> None:
    from medres.training.config.options import resolve_settings

    options, recipe = resolve_settings({"task": "detection"}, {"epochs": 3})
    assert (options.monitor, recipe.name, recipe.batch_size) == ("ap50", "detection", 8)
    options, recipe = resolve_settings({"task": "detection"}, {"recipe": "paper"})
    assert recipe.name == "paper"


@pytest.mark.long  # three runs, two of them compiled from scratch
def test_an_interrupted_run_ends_bit_equal(box_work: Path, tmp_path: Path) -> None:
    from medres.training.loop import Loop

    options = OPTIONS | {"augment": "detection", "ema": 0.9, "epochs": 2}
    whole = medres.train(box_work, **options, out=tmp_path / "whole", progress=Lines())
    step, calls = Loop._finish_epoch, []

    def killed(self: Loop, epoch: int, row: dict[str, Any]) -> None:
        step(self, epoch, row)
        calls.append(epoch)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_finish_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            medres.train(box_work, **options, out=tmp_path / "cut", progress=Lines())
    resumed = medres.train(box_work, **options, out=tmp_path / "cut", progress=Lines())
    columns = [name for name in whole.history if name.startswith(("loss", "grad", "tune"))]
    pd.testing.assert_frame_equal(whole.history[columns], resumed.history[columns])
    a, b = (load(each.artefact).model for each in (whole, resumed))
    for x, y in zip(a.weights, b.weights, strict=True):
        np.testing.assert_array_equal(x.numpy(), y.numpy())


@pytest.mark.long  # trains until it has learned
def test_it_learns_the_squares(box_work: Path, tmp_path: Path) -> None:
    options = OPTIONS | {"width": 8, "epochs": 60, "learning_rate": 0.005, "preset": "xray-40"}
    run = medres.train(box_work, **options, out=tmp_path / "run", progress=Lines())
    assert run.history["tune_ap50"].max() > 0.6


@pytest.mark.long  # builds the network twice
def test_folds_have_a_report_of_their_held_out_patients(
    run: Path, box_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medres.training.cross_validation import folds
    from medres.training.cross_validation.folds import FoldRun, cross_validate

    def trained(fold_run: FoldRun, *_: object) -> None:
        shutil.copytree(run, fold_run.out)

    monkeypatch.setattr(folds, "_run", trained)  # which takes minutes
    with raises_code(TrainingError, "no_ensemble"):
        cross_validate(box_work, out=tmp_path / "seeds", seeds=2, **OPTIONS)
    found = cross_validate(box_work, out=tmp_path / "folds", folds=2, progress=Lines(), **OPTIONS)
    assert found.artefact is None
    estimates = [one["macro"]["ap50"]["estimate"] for one in found.summary["folds"]]
    assert found.summary["ap50"] == pytest.approx(np.mean(estimates))
    assert [one["fold"] for one in found.summary["folds"]] == [0, 1]
    first, second = (Manifest.load(one.work).table for one in found.runs)
    held_out = [set(table.loc[table["split"] == "test", "patient"]) for table in (first, second)]
    assert not held_out[0] & held_out[1]
    for table in (first, second):  # each split has images with boxes
        assert (table.groupby("split")["boxes:bright"].sum() > 0).all()
    assert {"tune_ap50", "tune_froc", "tune_loss"} <= {*found.summary["runs"][0]}
    for one in found.runs:
        assert (one.out / "report" / "report.html").is_file()
    assert json.loads((found.out / "summary.json").read_text()) == found.summary
