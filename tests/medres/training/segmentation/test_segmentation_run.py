"""A segmenter from its work folder to masks: one run of two steps per epoch, shared by the
tests."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import keras
import numpy as np
import pandas as pd
import pytest
from annotated_cluster import check_on_a_cluster
from conftest import rewrite, write_cr
from helpers import Lines, raises_code, work_in_process
from helpers import medres as medres_command
from PIL import Image

import medres
from data_pipelines.annotations import read_label_map
from data_pipelines.annotations.dicom_seg import read_segmentation
from data_pipelines.annotations.label_map import ClassNames
from data_pipelines.cache.store import ensure_cache
from data_pipelines.ingestion.manifest import Manifest
from medres.artefact.archive import load, read_contents
from medres.artefact.golden_vectors import read_golden
from medres.artefact.masks import postprocessed
from medres.errors import ArtefactError, RefusedInput, TrainingError
from medres.inference.exporting import export
from medres.inference.masks.files import write_masks
from medres.inference.masks.scoring import _check_classes, evaluate_segmenter
from medres.inference.predictor import Predictor

OPTIONS: dict[str, Any] = {
    "task": "segmentation",
    "model": "resnet10",
    "width": 4,
    "stem": "small",
    "preset": "xray-32",
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
def run(mask_work: Path, tmp_path_factory: pytest.TempPathFactory, reported: Lines) -> Path:
    out = tmp_path_factory.mktemp("runs") / "masks"
    medres.train(mask_work, **OPTIONS, epochs=1, out=out, progress=reported)
    return out


def test_history_has_dice_and_the_card_its_classes(run: Path, reported: Lines) -> None:
    history = pd.read_csv(run / "history.csv")
    assert {"tune_loss", "tune_dice", "tune_dice_low", "tune_dice_high"} <= {*history}
    assert {"tune_dice_bright", "tune_dice_dark"} <= {*history}
    assert history["tune_dice"].between(0, 1).all()
    expected = "left out of segmentation: 1 samples not_annotated, 1 samples rejected"
    assert expected in reported.lines
    card = read_contents(run / "model.keras").card
    assert card.names == ["background", "bright", "dark"]
    assert card.task == "segmentation"
    assert card.segmentation is not None
    assert card.segmentation.patch is None
    assert len(card.segmentation.colors) == 3
    assert [rule.name for rule in card.segmentation.postprocess] == ["bright", "dark"]
    config = json.loads((run / "config.json").read_text())
    assert config["segmentation"]["loss"] == "dice_crossentropy"
    assert config["model"]["decoder"] == "unet"


def test_the_file_opens_in_plain_keras_and_has_golden_label_maps(run: Path) -> None:
    artefact = load(run / "model.keras")
    plain = keras.saving.load_model(run / "model.keras")
    images = np.random.default_rng(0).random((2, 32, 32, 1)).astype("float32")
    outputs = np.asarray(plain(images))
    assert outputs.shape == (2, 32, 32, 3)
    np.testing.assert_allclose(outputs.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(artefact.model(images)), outputs)
    contents = read_contents(run / "model.keras")
    inputs, golden = read_golden(contents.members["golden.npz"])
    assert inputs.shape[1:] == (32, 32)
    assert golden.shape[1:] == (32, 32, 3)


def test_golden_label_maps_that_do_not_follow_from_the_outputs(run: Path, tmp_path: Path) -> None:
    import io

    from hostile import members_of, write

    members = members_of(run / "model.keras")
    arrays = dict(np.load(io.BytesIO(members["golden.npz"])))
    arrays["labels"] = (arrays["labels"] + 1) % 3
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    members["golden.npz"] = buffer.getvalue()
    path = write(tmp_path / "changed.keras", members)
    with raises_code(ArtefactError, "golden_shape"):
        read_contents(path)


def test_a_prediction_lies_on_the_grid_of_the_image(
    run: Path, mask_work: Path, tmp_path: Path
) -> None:
    table = Manifest.load(mask_work).table
    row = table[table["mask_state"] == "annotated"].iloc[0]
    with medres.load(run / "model.keras", isolate=False) as predictor:
        prediction = predictor.predict(Path(row["source"]) / row["path"])
        assert prediction.refused is None
        mask = prediction.mask
        assert mask is not None
        assert mask.labels.shape == (40, 40)
        assert mask.labels.dtype == np.uint8
        assert mask.names == ("background", "bright", "dark")
        assert prediction.probabilities == {}
        refused = predictor.predict(tmp_path)  # no file
        out = tmp_path / "out"
        summary = write_masks([prediction, refused], predictor.card, out)
    assert summary["answered"] == 1
    assert summary["refused"] == {"no_file": 1}
    assert summary["task"] == "segmentation"
    np.testing.assert_array_equal(np.array(Image.open(out / "00001.png")), mask.labels)
    assert np.array(Image.open(out / "00001_overlay.png")).shape == (32, 32, 3)
    written = json.loads((out / "predictions.json").read_text())
    assert written["studies"][0]["masks"][0]["voxels"] == mask.counts


def test_the_command_writes_a_segmentation_that_equals_the_mask(
    run: Path, mask_work: Path, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom", reason="the extra medres[results] is not installed")
    table = Manifest.load(mask_work).table
    row = table[table["mask_state"] == "annotated"].iloc[0]
    image, out = Path(row["source"]) / row["path"], tmp_path / "out"
    done = medres_command("predict", run / "model.keras", image, "--out", out)
    assert done.exit_code == 0, done.output
    assert "DICOM and FHIR objects: 4 files" in done.stdout
    written = json.loads((out / "predictions.json").read_text())
    assert written["task"] == "segmentation"
    (path,) = out.glob("*_segmentation_1.dcm")
    assert path.name in written["studies"][0]["objects"]
    raw = read_segmentation(path, ClassNames()).label_map
    labels = np.array(Image.open(out / "00001.png"))
    for value, name in enumerate(("bright", "dark"), start=1):
        stored = raw.plane(name)[0] if name in raw.classes and len(raw.layers[0]) else labels < 0
        np.testing.assert_array_equal(stored, labels == value)
    done = medres_command("predict", run / "model.keras", image, "--no-dicom", "--out", out / "no")
    assert sorted(each.suffix for each in (out / "no").iterdir()) == [".json", ".png", ".png"]


def test_a_cluster_writes_the_same_masks(
    run: Path, mask_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_on_a_cluster(run, mask_work, tmp_path, monkeypatch)


def test_training_and_serving_see_the_same_pixels(run: Path, mask_work: Path) -> None:
    """The label map of the predictor is that of the cached image, post-processed."""
    from data_pipelines.cache.tf_dataset import eval_batches, join_masks
    from data_pipelines.preprocessing.original_grid import restored_labels
    from data_pipelines.preprocessing.resize import fit_within

    cache = ensure_cache(mask_work, "xray-32", masks=True)
    manifest, targets = join_masks(Manifest.load(mask_work), cache)
    artefact = load(run / "model.keras")
    inputs, _, _ = next(iter(eval_batches(cache, targets, 1, "test")))
    labels = np.asarray(artefact.model(inputs["image"]))[0].argmax(axis=-1).astype(np.uint8)
    assert artefact.card.segmentation is not None
    labels = postprocessed(labels, artefact.card.segmentation.postprocess)
    row = manifest.table.iloc[int(inputs["key"][0, 1])]
    mask = Predictor(artefact, isolate=False).predict(Path(row["source"]) / row["path"]).mask
    assert mask is not None
    axes = fit_within((40, 40), (1.0, 1.0), (32, 32))
    np.testing.assert_array_equal(mask.labels, restored_labels(labels, axes))


def test_evaluation_has_one_case_for_each_annotated_test_image(
    run: Path, mask_work: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(mask_work, work)
    table = Manifest.load(work).table
    rewrite(work, table.assign(sex=["FM"[i % 2] for i in range(len(table))]))
    other = tmp_path / "other.keras"  # the same model
    shutil.copy(run / "model.keras", other)
    found = evaluate_segmenter(run / "model.keras", work, compare=[other], subgroups=["sex"])
    table = Manifest.load(work).table
    test = table[(table["split"] == "test") & (table["mask_state"] == "annotated")]
    assert found.report.n_cases == len(test)
    provenance = found.numbers["provenance"]
    model = hashlib.sha256((run / "model.keras").read_bytes()).hexdigest()
    assert (provenance["model_sha256"], provenance["split"]) == (model, "test")
    assert set(found.numbers["findings"]) == {"bright", "dark"}
    # Dice by hand on one case
    with medres.load(run / "model.keras", isolate=False) as predictor:
        dice = []
        for row in test.itertuples():
            mask = predictor.predict(Path(str(row.source)) / str(row.path)).mask
            assert mask is not None
            truth = read_label_map(work, str(row.image)).plane("bright")[0]
            answer = mask.labels == 1
            dice.append(2 * (truth & answer).sum() / (truth.sum() + answer.sum()))
    assert found.numbers["findings"]["bright"]["dice"]["estimate"] == pytest.approx(np.mean(dice))
    rows = [row for row in found.numbers["comparisons"] if row["metric"] == "dice"]
    assert [(row["a"], row["b"]) for row in rows] == [("model", "other")] * 2
    assert [row["difference"]["estimate"] for row in rows] == [0, 0]
    assert provenance["compared_sha256"] == [model]
    subgroups = found.numbers["findings"]["bright"]["subgroups"]
    counts = {row["level"]: row["n_cases"] for row in subgroups}
    assert counts == test["sex"].value_counts().to_dict()
    assert (work / "test_openings.csv").read_text().count("\n") == 3  # each model opens it


def test_masks_of_other_classes_are_refused(run: Path) -> None:
    card = read_contents(run / "model.keras").card
    with raises_code(ArtefactError, "other_labels", "bright, dark"):
        _check_classes(card, SimpleNamespace(mask_classes=("dark", "bright")))  # type: ignore[arg-type]


def test_what_is_for_classifiers_is_refused(run: Path, mask_work: Path) -> None:
    from medres.inference.scoring import score

    with raises_code(ArtefactError, "segmenter"):
        score(run / "model.keras", mask_work)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"decoder": "fpn"}, "other_task"),
        ({"task": "segmentation", "calibration": "none"}, "other_task"),
        ({"task": "segmentation", "mixup": 0.2}, "other_task"),
        ({"task": "segmentation", "class_weights": "balanced"}, "other_task"),
        ({"task": "segmentation", "class_weights": {"lung": 2.0}}, "unknown_finding"),
        ({"task": "segmentation", "patch": (64, 64)}, "bad_patch"),
        ({"task": "segmentation", "flips": ((2,),)}, "bad_flips"),
        ({"flips": ((1,),)}, "other_task"),
        ({"task": "segmentation", "monitor": "auc"}, "unknown_monitor"),
        ({"task": "segmentation", "metrics": ["accuracy"]}, "bad_metrics"),
        ({"task": "segmentation", "loss": "focal", "smoothing": 0.1}, "other_task"),
    ],
)
def test_settings_that_do_not_fit_the_task(
    mask_work: Path, tmp_path: Path, options: dict[str, Any], code: str
) -> None:
    base = {name: value for name, value in OPTIONS.items() if name != "task"}
    with raises_code(TrainingError, code):
        medres.train(mask_work, out=tmp_path / "run", progress=Lines(), **{**base, **options})


@pytest.mark.long  # one more run, and exports to ONNX and OpenVINO
def test_a_network_that_sees_patches(mask_work: Path, tmp_path: Path) -> None:
    options = OPTIONS | {"patch": (16, 16), "deep_supervision": True, "epochs": 1}
    options |= {"flips": ((1,), (0, 1))}
    run = medres.train(mask_work, **options, out=tmp_path / "run", progress=Lines())
    artefact = load(run.artefact)
    assert len(artefact.model.outputs) == 1
    assert artefact.card.novelty_threshold is not None
    assert artefact.card.segmentation is not None
    assert artefact.card.segmentation.flips == [[1], [0, 1]]
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["segmentation"]["deep_supervision"] is True
    table = Manifest.load(mask_work).table
    row = table[table["split"] == "tune"].iloc[0]
    path = Path(row["source"]) / row["path"]
    with medres.load(run.artefact, isolate=False) as predictor:
        expected = predictor.predict(path)
    assert expected.mask is not None
    formats: tuple[Literal["onnx", "openvino"], ...] = ("onnx", "openvino")
    for engine in formats:
        exported = export(artefact, engine, tmp_path / engine)
        assert exported.difference <= 1e-5
        serving = json.loads((exported.folder / "serving.json").read_text())
        assert serving["input"]["shape"] == [None, 16, 16, 1]
        assert serving["segmentation"]["windows"]["sides"] == [16, 16]
        assert serving["segmentation"]["flips"] == [[1], [0, 1]]
        opened = {"engine": engine, "exported": exported.folder, "isolate": False}
        with medres.load(run.artefact, **opened) as predictor:
            answer = predictor.predict(path)
        assert answer.refused is None
        assert answer.mask is not None
        np.testing.assert_array_equal(answer.mask.labels, expected.mask.labels)
        assert answer.novelty == pytest.approx(expected.novelty, rel=1e-3)
    with raises_code(RefusedInput, "no_saliency_of_masks"):
        expected.saliency()
    stripes = np.zeros((40, 40))
    stripes[::2] = 4000
    write_cr(tmp_path / "odd.dcm", stripes, patient="ODD", study="9")
    assert Predictor(artefact, isolate=False).predict(tmp_path / "odd.dcm").code in (
        "out_of_distribution",
        "rotated",
    )


@pytest.mark.long  # three runs, two of them compiled from scratch
def test_an_interrupted_run_ends_bit_equal(mask_work: Path, tmp_path: Path) -> None:
    from medres.training.loop import Loop

    options = OPTIONS | {"augment": "chest_xray", "patch": (16, 16), "ema": 0.9, "epochs": 2}
    whole = medres.train(mask_work, **options, out=tmp_path / "whole", progress=Lines())
    step, calls = Loop._finish_epoch, []

    def killed(self: Loop, epoch: int, row: dict[str, Any]) -> None:
        step(self, epoch, row)
        calls.append(epoch)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_finish_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            medres.train(mask_work, **options, out=tmp_path / "cut", progress=Lines())
    resumed = medres.train(mask_work, **options, out=tmp_path / "cut", progress=Lines())
    columns = [name for name in whole.history if name.startswith(("loss", "grad", "tune"))]
    pd.testing.assert_frame_equal(whole.history[columns], resumed.history[columns])
    a, b = (load(each.artefact).model for each in (whole, resumed))
    for x, y in zip(a.weights, b.weights, strict=True):
        np.testing.assert_array_equal(x.numpy(), y.numpy())
    assert read_contents(whole.artefact).card.sides == (16, 16)


@pytest.mark.long  # trains until it has learned
def test_it_learns_the_squares(mask_work: Path, tmp_path: Path) -> None:
    options = OPTIONS | {"width": 8, "epochs": 40, "learning_rate": 0.005, "monitor": "dice"}
    run = medres.train(mask_work, **options, out=tmp_path / "run", progress=Lines())
    assert run.history["tune_dice"].max() > 0.8
