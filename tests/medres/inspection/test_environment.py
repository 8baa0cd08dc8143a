from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import UID_dictionary

from data_pipelines.pixels import decoders
from data_pipelines.pixels.stored_values import NATIVE
from medres.cli.inspect_commands import doctor_lines
from medres.inspection import environment

SOUND: dict[str, Any] = {
    "version": "2.21.0",
    "keras": "3.15.1",
    "keras_backend": "tensorflow",
    "cuda_build": False,
    "cuda": None,
    "cudnn": None,
    "onednn": "default",
    "gpus": [],
}


def examine(**tensorflow: Any) -> dict[str, Any]:
    return environment.examine(ask=lambda: {**SOUND, **tensorflow})


def test_every_transfer_syntax_names_its_decoder() -> None:
    rows = {row["syntax"]: row for row in examine()["decoders"]}
    assert set(rows) == NATIVE | set(decoders.IMAGECODECS)
    for syntax, row in rows.items():
        assert UID_dictionary[syntax][0] in row["name"]
        if syntax not in NATIVE:
            installed = [d.name for d in decoders.decoders_for(syntax) if not d.missing]
            assert [row["used"], *row["others"]] == installed
    assert rows["1.2.840.10008.1.2.4.90"]["used"] == "imagecodecs.jpeg2k"


def test_a_syntax_without_decoder_is_a_problem_with_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = (decoders.Decoder("imagecodecs.jpeg2k", lambda *_: np.zeros(1), "imagecodecs"),)
    monkeypatch.setattr(decoders, "decoders_for", lambda syntax: gone)
    facts = examine()
    assert any(
        "JPEG 2000" in text and text.endswith("pip install imagecodecs")
        for text in facts["problems"]
    )
    assert any("CANNOT BE DECODED: pip install imagecodecs" in line for line in doctor_lines(facts))


def test_gpus_and_their_bf16_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [
        {"name": "H100", "compute_capability": [9, 0]},
        {"name": "T4", "compute_capability": [7, 5]},
    ]
    lines = "\n".join(doctor_lines(examine(cuda_build=True, cuda="12.5", cudnn="9", gpus=gpus)))
    assert "H100, compute capability 9.0, native bfloat16" in lines
    assert "T4, compute capability 7.5\n" in lines
    assert "CUDA 12.5" in lines
    monkeypatch.setattr(environment, "_nvidia", lambda: ["H100, 80 GB, 570"])
    assert any("TensorFlow does not use" in text for text in examine()["problems"])


def test_no_tensorflow_and_two_of_them_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = environment.examine(ask=lambda: {"error": "TensorFlow cannot be imported: x"})
    assert 'pip install "medres[cpu]"' in facts["problems"][0]
    assert "TensorFlow  TensorFlow cannot be imported: x" in doctor_lines(facts)
    monkeypatch.setattr(environment, "_version", lambda name: "2.21.0")
    assert any("overwrite each other" in text for text in examine()["problems"])


def test_a_tensorflow_that_fails_or_crashes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for code, cause in (
        ("raise ImportError('no libx')", "no libx"),
        ("import os; os.kill(os.getpid(), 11)", "signal 11"),
    ):
        monkeypatch.setattr(environment, "_TENSORFLOW_SCRIPT", code)
        assert cause in environment.ask_tensorflow()["error"]


def test_the_processor_is_read_from_the_system() -> None:
    processor = environment.processor()
    assert processor["usable"] >= 1
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    assert all(f" {flag}" in text for flag in processor["features"])
    amounts = environment.memory()
    assert (
        amounts["total_bytes"] is None
        or 0 < (amounts["available_bytes"] or 1) <= amounts["total_bytes"]
    )


def test_extras_are_those_of_the_package() -> None:
    facts = environment.extras()
    declared = set(metadata.metadata("medres").get_all("Provides-Extra") or [])
    assert set(facts) <= declared
    assert {"cpu", "gpu", "dev"} <= set(facts)
    assert facts["dev"]["pytest"] == pytest.__version__
    assert len(facts["cpu"]) == 1


@pytest.mark.long
def test_the_command_imports_no_tensorflow_itself() -> None:
    script = (
        "import sys\nfrom medres.inspection import environment\n"
        f"environment.ask_tensorflow = lambda: {SOUND!r}\n"
        "sys.argv = ['medres', 'doctor', '--json']\n"
        "import atexit; atexit.register(lambda: print('LOADED', {'tensorflow', 'keras'} & "
        "set(sys.modules), file=sys.stderr))\n"
        "from medres.__main__ import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.stderr.strip() == "LOADED set()"
    facts = json.loads(done.stdout)
    assert facts["tensorflow"] == SOUND
    assert facts["disk"]["free_bytes"] > 0


@pytest.mark.long
def test_tensorflow_answers_for_itself() -> None:
    versions = environment.ask_tensorflow()
    assert versions["keras_backend"] == "tensorflow"
    assert versions["version"] in {
        metadata.version(n) for n in ("tensorflow", "tensorflow-cpu") if environment._version(n)
    }
