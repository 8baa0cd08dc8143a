from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import fails, medres, raises_code

from data_pipelines.errors import InputError
from data_pipelines.preprocessing.spec import spec_from
from medres.artefact.archive import Artefact, load
from medres.errors import ExportError
from medres.inference import exporting as room
from medres.inference.exporting import agree, check_inputs, export, runtime
from medres.inference.parity_report import PathResult, _from_files, parity, require
from medres.progress import ProgressReporter
from medres.runtimes import formats
from medres.runtimes.formats import FORMATS, without_warnings

NEEDS = {"onnx": "onnxruntime", "openvino": "openvino", "saved_model": "tensorflow"}
# OpenVINO takes longest; by default test_formats and test_engines compare its numbers.
FORMATS_HERE = [
    pytest.param(name, marks=[pytest.mark.long] if name == "openvino" else []) for name in FORMATS
]


@pytest.fixture(scope="module")
def artefact(tiny_run: Path) -> Artefact:
    return load(tiny_run / "model.keras")


def test_the_check_images_are_many_and_unlike(artefact: Artefact) -> None:
    images = check_inputs(artefact.card)
    assert images.shape == (16, 32, 32)
    assert images.dtype == np.uint16
    outputs = np.asarray(artefact.model(images[..., np.newaxis] / np.float32(65535)))
    assert len(np.unique(outputs)) >= 12


@pytest.mark.parametrize("format", FORMATS_HERE)
def test_an_exported_model_gives_the_same_probabilities_and_carries_its_card(
    artefact: Artefact, tmp_path: Path, format
) -> None:
    pytest.importorskip(NEEDS[format])
    made = export(artefact, format, tmp_path / "new" / "model")
    assert made.difference <= 5e-6
    images = np.random.default_rng(0).random((3, 32, 32, 1)).astype(np.float32)
    with without_warnings():
        run = runtime(format, made.path)
    for some in (images, images[:1]):
        assert run(some) == pytest.approx(np.asarray(artefact.model(some)), abs=1e-5)
    card = tmp_path / "new" / "model" / "medres.json"
    if format == "onnx":
        import onnx

        (text,) = (p.value for p in onnx.load(made.path).metadata_props if p.key == "medres.json")
    else:
        text = card.read_text()
    assert json.loads(text)["names"] == ["square"]
    with raises_code(InputError, "output_exists"):
        export(artefact, format, tmp_path / "new" / "model")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["model"]


@pytest.mark.long
def test_openvino_can_be_given_the_name_of_its_xml(artefact: Artefact, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    made = export(artefact, "openvino", tmp_path / "net.xml")
    assert made.path == tmp_path / "net.xml"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "net.bin",
        "net.medres.json",
        "net.serving",
        "net.xml",
    ]


def test_nothing_is_kept_where_the_numbers_differ(
    artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {"probability": 0.5, "novelty": 1.0, "orientation": 1.0}

    def open_wrong(format: str, path: Path):
        return lambda images: {
            name: np.full((len(images), 1) if name == "probability" else len(images), value)
            for name, value in wrong.items()
            if name in expected
        }

    expected = room.served_graph(artefact, artefact.model)[1]
    monkeypatch.setattr(room, "open_graph", open_wrong)
    with raises_code(ExportError, "export_differs"):
        export(artefact, "saved_model", tmp_path / "out" / "model")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_decision_that_differs_is_as_bad_as_a_number(artefact: Artefact) -> None:
    threshold = artefact.card.operating_points[0].threshold
    want = np.array([[threshold]])
    with raises_code(ExportError, "decision_differs"):
        agree(want - 1e-9, want, artefact.card, "onnx")
    assert agree(want + 1e-9, want, artefact.card, "onnx") == pytest.approx(1e-9)
    classes = replace(
        artefact, card=artefact.card.model_copy(update={"task": "multiclass", "names": ["a", "b"]})
    ).card
    with raises_code(ExportError, "decision_differs"):
        agree(np.array([[0.500001, 0.499999]]), np.array([[0.499999, 0.500001]]), classes, "onnx")


def test_unknown_formats_and_missing_packages_are_named(
    artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raises_code(ExportError, "unknown_format", "onnx"):
        export(artefact, "magic", tmp_path / "a")  # type: ignore[arg-type]
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with raises_code(ExportError, "package_missing", "medres[export]"):
        export(artefact, "onnx", tmp_path / "a")


def test_an_optimised_export_has_no_normalization_left(artefact: Artefact, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    import onnx

    made = export(artefact, "onnx", tmp_path / "fast", optimise=True)
    assert made.difference <= 1e-5
    kinds = [node.op_type for node in onnx.load(made.path).graph.node]
    assert "BatchNormalization" not in kinds


def test_one_cohort_gives_the_same_probabilities_everywhere(
    tiny_run: Path, tiny_work: Path
) -> None:
    results = parity(tiny_run / "model.keras", tiny_work, formats=["saved_model"])
    assert [r.name for r in results] == ["plain Keras", "Predictor, from the files", "saved_model"]
    assert all(r.holds and r.images > 0 for r in results)
    assert results[1].difference <= 1e-7
    require(results)
    with raises_code(ExportError, "parity", "plain Keras"):
        require([replace(results[0], difference=1e-3)])
    with raises_code(ExportError, "parity", "onnx"):
        require([PathResult("onnx", 3, float("nan"), True, 1e-5)])


def test_no_single_file_is_predicted_for_a_stack_or_a_volume() -> None:
    """One slice without its neighbors has another probability, correctly."""
    from types import SimpleNamespace

    for preset in ("ct25d-32", "ctvol-16"):
        card = SimpleNamespace(preprocess=spec_from(preset), names=["a", "b"])
        indices, outputs = _from_files(
            SimpleNamespace(card=card), None, ["image"], ProgressReporter()
        )  # type: ignore[arg-type]
        assert (indices, outputs.shape) == ([], (0, 2))


@pytest.mark.long  # a fresh TensorFlow; test_formats opens a SavedModel with TensorFlow alone
def test_the_saved_model_runs_where_medres_and_keras_are_not_imported(
    artefact: Artefact, tmp_path: Path
) -> None:
    export(artefact, "saved_model", tmp_path / "served")
    script = f"""
import sys
import numpy, tensorflow as tf
served = tf.saved_model.load({str(tmp_path / "served")!r})
answer = served.serve(numpy.full((1, 32, 32, 1), 0.25, "float32"))
print(float(answer[0, 0]), "medres" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )
    value, medres_there = done.stdout.split()
    assert float(value) == pytest.approx(
        float(artefact.model(np.full((1, 32, 32, 1), 0.25))[0, 0]), abs=1e-6
    )
    assert medres_there == "False"
    shutil.rmtree(tmp_path / "served")


def test_the_command_says_what_to_serve_it_with(tiny_run: Path, tmp_path: Path) -> None:
    model, out = tiny_run / "model.keras", tmp_path / "served"
    done = medres("export", model, "--format", "saved_model", "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["path"], result["folder"]) == (str(out), str(out))
    assert (out / "golden" / "index.json").is_file()
    again = fails(medres("export", model, "--format", "saved_model", "--out", out))
    assert "already exists" in again
