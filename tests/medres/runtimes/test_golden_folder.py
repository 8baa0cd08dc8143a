"""The export folder is served without medres: by plain numpy and by JavaScript."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import util
from pathlib import Path
from types import ModuleType

import numpy as np
import pydicom
import pytest
from helpers import raises_code
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, JPEGBaseline8Bit

from medres.artefact.archive import Artefact
from medres.errors import ExportError
from medres.inference.exporting import export
from medres.runtimes.golden_folder import dicom_vectors, read_golden_folder, write_golden_folder

pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")
EXAMPLES = Path(__file__).parents[3] / "examples" / "serving"
NODE = shutil.which("node")
RADIOGRAPHS = {
    *("window", "monochrome1_rescale", "voi_lut", "monochrome1_voi_lut", "min_max_padding"),
    *("monochrome1_padding", "signed", "signed_12", "high_bit", "bytes", "modality_lut"),
    *("step_window", "large", "same_size"),
}


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = util.spec_from_file_location("preprocess", EXAMPLES / "preprocess.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def exported(upright_artefact: Artefact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(upright_artefact, "onnx", tmp_path_factory.mktemp("x") / "served").folder


@pytest.fixture(scope="module")
def exported_ct(ct_artefact: Artefact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(ct_artefact, "onnx", tmp_path_factory.mktemp("ct") / "served").folder


@pytest.fixture(params=["exported", "exported_ct"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def vectors_of(folder: Path) -> list[dict]:
    return json.loads((folder / "golden" / "index.json").read_text())["vectors"]


def test_the_index_names_every_file_with_its_hash(exported: Path) -> None:
    vectors = vectors_of(exported)
    assert {vector["name"] for vector in vectors} == RADIOGRAPHS
    for vector in vectors:
        for entry in (*vector["files"], vector["prepared"]):
            data = (exported / "golden" / entry["path"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        dataset = pydicom.dcmread(exported / "golden" / vector["files"][0]["path"])
        assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert vector["prepared"]["shape"] == [1, 32, 32]
        assert {*vector} >= {"probability", "novelty", "orientation"}
    photometric = {
        pydicom.dcmread(path).PhotometricInterpretation for path in exported.rglob("*.dcm")
    }
    assert photometric == {"MONOCHROME1", "MONOCHROME2"}


def test_serving_json_holds_limits_and_thresholds(
    exported: Path, upright_artefact: Artefact
) -> None:
    facts, card = json.loads((exported / "serving.json").read_text()), upright_artefact.card
    assert facts["thresholds"] == {"square": card.threshold("square", unit="study")}
    assert facts["outputs"]["novelty"]["refused_above"] == card.novelty_threshold
    assert facts["outputs"]["orientation"]["refused_above"] == 1.1
    assert facts["domain"]["tolerance"]["size"] == 2
    assert facts["preprocess"]["dtype"] == "uint16"
    assert np.float32(facts["preprocess"]["scale"]) == card.preprocess.scale
    model = exported / facts["model"]["file"]
    assert hashlib.sha256(model.read_bytes()).hexdigest() == facts["model"]["sha256"]


def test_plain_numpy_gives_the_same_integers_and_probabilities(
    folder: Path, reference: ModuleType
) -> None:
    spec = json.loads((folder / "serving.json").read_text())["preprocess"]
    for vector in vectors_of(folder):
        data = (folder / "golden" / vector["prepared"]["path"]).read_bytes()
        expected = np.frombuffer(data, spec["dtype"]).reshape(vector["prepared"]["shape"])
        prepared = reference.prepare(folder / "golden" / vector["files"][0]["path"], spec)
        assert np.array_equal(prepared[np.newaxis], expected), vector["name"]
        outputs = reference.probabilities(folder, reference.model_input(prepared, spec))
        assert outputs["probability"] == pytest.approx(np.array(vector["probability"]), abs=1e-6)


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_javascript_gives_the_same_integers_and_probabilities(
    folder: Path, reference: ModuleType, tmp_path: Path
) -> None:
    script, spec = EXAMPLES / "preprocess.mjs", json.loads((folder / "serving.json").read_text())
    done = subprocess.run([NODE, script, folder], capture_output=True, text=True)
    count = len(vectors_of(folder))
    assert done.returncode == 0, done.stderr
    assert f"{count} of {count} golden vectors are equal" in done.stdout
    vector, out = vectors_of(folder)[1], tmp_path / "out.bin"
    file = folder / "golden" / vector["files"][0]["path"]
    subprocess.run([NODE, script, folder, file, out], check=True)
    prepared = np.frombuffer(out.read_bytes(), spec["preprocess"]["dtype"]).reshape(
        vector["prepared"]["shape"][1:]
    )
    image = reference.model_input(prepared, spec["preprocess"])
    outputs = reference.probabilities(folder, image)
    assert outputs["probability"] == pytest.approx(np.array(vector["probability"]), abs=1e-6)


@pytest.mark.parametrize("program", ["preprocess.py", "preprocess.mjs"])
def test_a_vector_that_is_not_reproduced_is_named(
    exported: Path, tmp_path: Path, program: str
) -> None:
    """Without antialiasing, say: here one prepared value differs by one step."""
    if program.endswith("mjs") and NODE is None:
        pytest.skip("node is not installed")
    folder = tmp_path / "served"
    shutil.copytree(exported, folder)
    index = json.loads((folder / "golden" / "index.json").read_text())
    entry = next(v for v in index["vectors"] if v["name"] == "large")["prepared"]
    data = bytearray((folder / "golden" / entry["path"]).read_bytes())
    data[0] ^= 1
    (folder / "golden" / entry["path"]).write_bytes(data)
    entry["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "golden" / "index.json").write_text(json.dumps(index))
    command = [NODE if program.endswith("mjs") else sys.executable, EXAMPLES / program, folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines() if "differ" in line] == [
        "large"
    ]


@pytest.mark.parametrize("function", ["SIGMOID", "LINEAR_EXACT"])
@pytest.mark.parametrize("width", [300.0, 3000.5])
def test_the_references_know_every_window(
    function: str, width: float, reference: ModuleType, exported: Path, tmp_path: Path
) -> None:
    """The exponential of float32 depends on the library: one step of 65,535 is allowed."""
    from data_pipelines.preprocessing import prepared_study, spec_from

    dataset = pydicom.dcmread(exported / "golden" / "window.dcm")
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = 2000, width, function
    dataset.save_as(tmp_path / "a.dcm")
    spec = json.loads((exported / "serving.json").read_text())["preprocess"]
    expected = prepared_study([tmp_path / "a.dcm"], spec_from("xray-32")).pixels[0].astype(int)
    outputs = [reference.prepare(tmp_path / "a.dcm", spec)]
    if NODE is not None:
        command = [NODE, EXAMPLES / "preprocess.mjs", exported, tmp_path / "a.dcm", tmp_path / "b"]
        subprocess.run(command, check=True)
        outputs.append(np.fromfile(tmp_path / "b", "<u2").reshape(32, 32))
    for output in outputs:
        assert np.abs(output.astype(int) - expected).max() <= (function == "SIGMOID")


def in_big_endian(dataset: pydicom.Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()


def in_jpeg(dataset: pydicom.Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([dataset.PixelData])
    dataset["PixelData"].is_undefined_length = True


@pytest.mark.parametrize("program", ["preprocess.py", "preprocess.mjs"])
@pytest.mark.parametrize(
    "change",
    [
        in_big_endian,
        in_jpeg,
        lambda ds: setattr(ds, "PhotometricInterpretation", "RGB"),
        lambda ds: setattr(ds, "SamplesPerPixel", 3),
        lambda ds: setattr(ds, "NumberOfFrames", 2),
        lambda ds: setattr(ds, "RescaleSlope", 0),
        lambda ds: setattr(ds, "PixelData", ds.PixelData[:-2]),
    ],
)
def test_the_references_refuse_what_they_would_get_wrong(
    change: Callable, program: str, exported: Path, tmp_path: Path
) -> None:
    """No integers at all instead of wrong ones."""
    if program.endswith("mjs") and NODE is None:
        pytest.skip("node is not installed")
    dataset = pydicom.dcmread(exported / "golden" / "window.dcm")
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    change(dataset)
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset)
    command = [EXAMPLES / program, exported, tmp_path / "a.dcm"]
    if program.endswith("mjs"):
        command = [NODE, *command, tmp_path / "b"]
    else:
        command = [sys.executable, *command]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Error: " in done.stderr
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("unit", ["US", "MODALITY LUT", None])
def test_the_references_refuse_a_ct_that_is_not_in_hu(
    unit: str | None, reference: ModuleType, exported_ct: Path, tmp_path: Path
) -> None:
    index = vectors_of(exported_ct)[0]["files"][0]["path"]
    dataset = pydicom.dcmread(exported_ct / "golden" / index)
    if unit == "US":
        dataset.RescaleType = "US"
    elif unit is None:
        del dataset.RescaleSlope, dataset.RescaleIntercept
    else:
        table = pydicom.dcmread(exported_ct / "golden" / index)
        table.LUTDescriptor, table.LUTData = [2, 0, 16], b"\0\0\1\0"
        dataset.ModalityLUTSequence = [table]
    spec = json.loads((exported_ct / "serving.json").read_text())["preprocess"]
    with pytest.raises(ValueError, match="not in HU"):
        reference.require_supported(dataset, spec)


def test_the_references_import_neither_medres_nor_more_than_they_say() -> None:
    imports = re.findall(
        r"^ *(?:import|from) (\w+)", (EXAMPLES / "preprocess.py").read_text(), re.MULTILINE
    )
    allowed = {"__future__", "hashlib", "json", "sys", "pathlib"}
    assert {*imports} - allowed == {"numpy", "pydicom", "onnxruntime"}
    imports = re.findall(
        r'^import .* from "(.*)";', (EXAMPLES / "preprocess.mjs").read_text(), re.MULTILINE
    )
    assert len(imports) == 4
    assert all(name.startswith("node:") for name in imports)


def test_a_changed_folder_is_refused(ct_artefact: Artefact, tmp_path: Path) -> None:
    spec = ct_artefact.card.preprocess
    vectors = dicom_vectors(ct_artefact)
    write_golden_folder(vectors, ct_artefact, tmp_path)
    read = read_golden_folder(tmp_path, spec)
    for (prepared, outputs), vector in zip(read, vectors, strict=True):
        assert np.array_equal(prepared, vector.prepared)
        assert outputs["probability"] == pytest.approx(vector.outputs["probability"], abs=1e-9)
    (tmp_path / "golden" / "large.bin").write_bytes(b"\0" * 32 * 40 * 2)
    with raises_code(ExportError, "export_folder"):
        read_golden_folder(tmp_path, spec)
