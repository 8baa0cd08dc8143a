"""The process of a model: its answers, and what a crash or a hang costs."""

from __future__ import annotations

import base64
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import raises_code
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

import medres
from medres.errors import ArtefactError, ServeError
from medres.results.identity import result_uid
from medres.serve.model_process import ModelOptions, ModelProcess, run_model
from medres.serve.parts import Objects, Part

FAKE = """
import json, os, sys, time
facts = dict(sha256="s", preprocessing_sha256="p", signer=None, card={"domain": {}})
if "refused" in sys.argv[1]:
    print(json.dumps({"error": "no", "code": "not_finite"}), flush=True)
    raise SystemExit
print(json.dumps({"model": facts}), flush=True)
for line in sys.stdin:
    folder = json.loads(line)["folder"]
    if folder == "hang":
        time.sleep(60)
    if folder == "die":
        os._exit(1)
    print(json.dumps({"result": [{"pid": os.getpid()}]}), flush=True)
"""
COMMAND = (sys.executable, "-S", "-c", FAKE)


def process(path: str = "model.keras") -> ModelProcess:
    return ModelProcess(ModelOptions(path), command=COMMAND)


@pytest.mark.parametrize(("folder", "code"), [("die", "model_crashed"), ("hang", "time_limit")])
def test_a_crash_or_a_hang_costs_one_answer(folder: str, code: str) -> None:
    model = process()
    (first,) = model.predict(Path("study"), 20)
    with raises_code(ServeError, code):
        model.predict(Path(folder), 0.2)
    (second,) = model.predict(Path("study"), 20)
    assert first["pid"] != second["pid"]
    model.close()


def test_a_refused_model_file_is_told_with_its_code() -> None:
    with raises_code(ArtefactError, "not_finite"):
        process("refused.keras")


def mark(prediction: Any, predictor: Any, part: Part) -> Objects:
    """A maker: one object per prediction."""
    made, source = Dataset(), dcmread(part.files[0])
    made.file_meta = source.file_meta
    made.SOPClassUID = source.SOPClassUID
    made.SOPInstanceUID = result_uid(part.key, "report")
    made.StudyInstanceUID = source.StudyInstanceUID
    made.TextValue = json.dumps([prediction.probabilities, part.revision, len(part.files)])
    return Objects([made], [])


def test_the_process_answers_as_the_predictor_does(
    tiny_work: Path, tiny_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    for number, image in enumerate((tiny_work.parent / "images").glob("TINY001*")):
        shutil.copyfile(image, folder / f"{number}.dcm")
    answers: list[Any] = []
    order = {"folder": str(folder), "out": str(tmp_path / "out"), "key": "k", "revision": 3}
    requests = [
        {"verb": "predict", "folder": str(folder)},
        {"verb": "make", **order, "predecessor": None},
        {"verb": "predict", "folder": str(tmp_path / "nothing")},
        {"verb": "draw", "folder": str(folder)},
    ]
    maker = f"{__name__}:mark"
    sys.modules.setdefault(__name__, sys.modules[mark.__module__])
    options = ModelOptions(str(tiny_run / "model.keras"), maker=maker)
    run_model(options, map(json.dumps, requests), lambda value: answers.append(json.dumps(value)))
    hello, predicted, made, refused, drawn = map(json.loads, answers)
    with medres.load(tiny_run / "model.keras", isolate=False) as predictor:
        expected = predictor.predict(folder)
        saliency = expected.saliency()
        assert hello["model"]["sha256"] == predictor.artefact.sha256
        assert hello["model"]["preprocessing_sha256"] == predictor.card.preprocess.sha256
    (prediction,) = predicted["result"]
    assert prediction["probabilities"] == expected.probabilities
    assert prediction["thresholds"] == expected.thresholds
    assert made["result"] == [{"sop": result_uid("k", "report"), "file": "0000.dcm", "role": ""}]
    assert (tmp_path / "out" / "0000.dcm").stat().st_size > 0
    assert refused["result"][0]["code"] == "unreadable"
    (drawing,) = drawn["result"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawing["png"]))), int)
    plain = np.rint(255 * saliency.picture)[..., np.newaxis]
    assert (pixels != plain).any(axis=2).sum() > 0
    np.testing.assert_array_equal((pixels != plain).any(axis=2)[saliency.values <= 0], False)
    assert (drawing["prediction"], drawing["part"]) == (0, 0)
