from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import fails, raises_code
from helpers import medres as medres_command

import medres
from data_pipelines.errors import InputError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.runtime.atomic_files import file_sha256
from medres.artefact import archive
from medres.errors import ExportError
from medres.inference import engines
from medres.inference.exporting import export

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
pytest.importorskip("tf2onnx")
ENGINES = ("onnx", "openvino")


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> Path:
    return tiny_run / "model.keras"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A user's cache folder in which the model was converted for every engine."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        for engine in ENGINES:
            medres.load(model, engine=engine)
    return folder


@pytest.fixture(autouse=True)
def _user_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(scope="module")
def studies(tiny_work: Path) -> list[str]:
    table = Manifest.load(tiny_work).table
    return [str(Path(row["source"]) / row["path"]) for _, row in table.head(6).iterrows()]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gives_the_same_predictions(
    model: Path, studies: list[str], engine: str
) -> None:
    expected, predictor = medres.load(model), medres.load(model, engine=engine)
    assert predictor.artefact.golden_difference <= 1e-5
    assert predictor.artefact.sha256 == expected.artefact.sha256
    for study in studies:
        a, b = expected.predict(study), predictor.predict(study)
        assert (a.refused, a.decisions) == (b.refused, b.decisions)
        assert b.probabilities == pytest.approx(a.probabilities, abs=1e-5)
        assert b.novelty == pytest.approx(a.novelty, rel=1e-3)
    with ThreadPoolExecutor(8) as pool:
        again = list(pool.map(lambda study: predictor.predict(study).probabilities, studies * 8))
    assert again == [predictor.predict(study).probabilities for study in studies] * 8


def test_the_command_takes_an_engine(model: Path, studies: list[str], tmp_path: Path) -> None:
    answers = [
        json.loads(medres_command("predict", model, studies[0], "--json", *engine).stdout)[0]
        for engine in ((), ("--engine", "onnx"))
    ]
    assert answers[0]["decisions"] == answers[1]["decisions"]
    assert answers[1]["probabilities"] == pytest.approx(answers[0]["probabilities"], abs=1e-5)
    wrong = medres_command("predict", model, studies[0], "--engine", "abacus")
    assert "abacus" in fails(wrong)
    drawn = ("--saliency", tmp_path / "maps", "--engine", "onnx")
    assert medres_command("predict", model, studies[0], *drawn).exit_code == 2


@pytest.mark.long
def test_unlike_and_rotated_images_are_refused(model: Path, upright: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (1, 32, 32)) * 65535
    for engine in ENGINES:
        predictor = medres.load(model, engine=engine)
        assert predictor.decide(noise.astype(np.uint16)).code == "out_of_distribution"
    ramp = np.linspace(10000, 60000, 32)[:, np.newaxis] * np.ones((1, 32, 32))
    predictor = medres.load(upright, engine="openvino")
    assert predictor.decide(ramp.astype(np.uint16)[:, ::-1]).code == "rotated"


@pytest.fixture(scope="module")
def upright(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model file with a distribution of upright images."""
    from medres.artefact.feature_distance import fit_novelty
    from medres.artefact.orientation import thumbnails

    images = np.random.default_rng(4).random((40, 32, 32, 1)).astype(np.float32)
    images *= np.linspace(0.2, 1, 32, dtype=np.float32)[:, np.newaxis, np.newaxis]
    artefact = archive.load(model)
    path = tmp_path_factory.mktemp("upright") / "model.keras"
    archive.save(
        path,
        artefact.model,
        artefact.card,
        artefact.novelty,
        fit_novelty(thumbnails(images).reshape(len(images), -1)),
    )
    return path


def test_a_second_opening_needs_no_tensorflow(model: Path, studies: list[str]) -> None:
    script = f"""
import sys, medres
predictor = medres.load({str(model)!r}, engine="openvino")
print(predictor.predict({studies[0]!r}).probabilities["square"])
print(sorted({{"tensorflow", "keras"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    probability, modules = done.stdout.split("\n")[:2]
    assert float(probability) == pytest.approx(
        medres.load(model).predict(studies[0]).probabilities["square"], abs=1e-5
    )
    assert modules == "[]"


def test_saliency_needs_tensorflow_and_says_so(model: Path, studies: list[str]) -> None:
    prediction = medres.load(model, engine="onnx").predict(studies[0])
    with raises_code(ExportError, "engine_without_gradients", 'engine="tensorflow"'):
        prediction.saliency()


def test_an_export_folder_is_taken(model: Path, tmp_path: Path, studies: list[str]) -> None:
    artefact = archive.load(model)
    made = export(artefact, "onnx", tmp_path / "served")
    predictor = medres.load(model, engine="onnx", exported=made.folder)
    assert predictor.predict(studies[0]).refused is None
    with raises_code(ExportError, "export_folder", "openvino"):
        medres.load(model, engine="openvino", exported=made.folder)
    named = export(artefact, "onnx", tmp_path / "net.onnx")
    assert named.folder == tmp_path / "net.serving"
    assert medres.load(model, engine="onnx", exported=named.folder).card.names == ["square"]
    (tmp_path / "empty").mkdir()
    with raises_code(ExportError, "export_folder"):
        medres.load(model, engine="onnx", exported=tmp_path / "empty")
    facts = json.loads((made.folder / "serving.json").read_text())
    facts["model"]["exported_from_sha256"] = "0" * 64
    (made.folder / "serving.json").write_text(json.dumps(facts))
    with raises_code(ExportError, "other_model"):
        medres.load(model, engine="onnx", exported=made.folder)


def test_an_export_with_other_numbers_is_refused(model: Path, cache: Path, tmp_path: Path) -> None:
    """The weights of the export are not those of the model file, but it claims to be its export."""
    (made,) = (cache / "medres" / "engines" / file_sha256(model)).glob("openvino-*")
    served = shutil.copytree(made, tmp_path / "served")
    kernel = archive.load(model).model.get_layer("logits").kernel.numpy()
    data = (served / "model.bin").read_bytes()
    assert data.count(kernel.tobytes()) == 1
    (served / "model.bin").write_bytes(data.replace(kernel.tobytes(), (-kernel).tobytes()))
    with raises_code(ExportError, "engine_differs"):
        medres.load(model, engine="openvino", exported=served)


@pytest.mark.long
def test_a_damaged_cached_export_is_made_again(
    model: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    engines_of_model = tmp_path / "cache" / "medres" / "engines" / file_sha256(model)
    (folder,) = engines_of_model.glob("openvino-*")
    data = bytearray((folder / "model.bin").read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    (folder / "model.bin").write_bytes(data)
    assert medres.load(model, engine="openvino").artefact.golden_difference <= 1e-5
    assert (folder / "model.bin").read_bytes() != data
    assert [path for path in folder.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.long
def test_an_unwritable_cache_is_no_obstacle(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert medres.load(model, engine="openvino").card.names == ["square"]


def test_wrong_requests_are_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raises_code(InputError, "unknown_engine", "openvino"):
        medres.load(model, engine="torch")  # type: ignore[arg-type]
    with raises_code(InputError, "unused_export"):
        medres.load(model, exported=tmp_path)
    monkeypatch.setattr("medres.runtimes.formats.importlib.util.find_spec", lambda name: None)
    with raises_code(ExportError, "package_missing", "medres[export]"):
        medres.load(model, engine="onnx")


@pytest.mark.parametrize(
    ("variables", "platform", "expected"),
    [
        ({"XDG_CACHE_HOME": "/x"}, "linux", "/x/medres"),
        ({"HOME": "/home/a"}, "linux", "/home/a/.cache/medres"),
        ({"HOME": "/home/a"}, "darwin", "/home/a/Library/Caches/medres"),
        ({"HOME": "/home/a", "LOCALAPPDATA": "/l"}, "win32", "/l/medres/cache"),
    ],
)
def test_the_cache_folder_is_that_of_the_system(
    variables: dict[str, str], platform: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(engines.sys, "platform", platform)
    assert engines.cache_root() == Path(expected)
