from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from data_pipelines.runtime.hosts import host_name, install_command, repair_command, stacked

PYPROJECT = tomllib.loads(
    (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
)["project"]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ""),
        ({"COLAB_GPU": "0"}, "colab"),
        ({"COLAB_RELEASE_TAG": "x", "KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, "kaggle"),
        ({"CONDA_PREFIX": "/opt/conda/envs/a"}, "conda"),
        ({"CONDA_PREFIX": "/opt/conda"}, ""),  # conda is active, and this is a venv
    ],
)
def test_the_host_is_known_by_its_variables(environ: dict, expected: str) -> None:
    assert host_name(environ, prefix="/opt/conda/envs/a") == expected


@pytest.mark.parametrize(
    ("host", "system", "named", "unnamed"),
    [
        ("colab", "linux", '%pip install "medres[gpu]"', "NVIDIA"),
        ("kaggle", "linux", "restart the session", "NVIDIA"),
        ("conda", "linux", "python -m pip install", "%pip"),
        ("", "linux", "medres[gpu]", "Windows"),
        ("", "darwin", "medres[cpu]", "medres[gpu]"),
        ("", "win32", "WSL2", "medres[gpu]"),
    ],
)
def test_the_command_fits_the_host(host: str, system: str, named: str, unnamed: str) -> None:
    command = install_command(host, system)
    assert named in command
    assert unnamed not in command


def test_two_tensorflows_are_one_too_many() -> None:
    assert stacked(["keras", "tensorflow-cpu"]) == stacked([]) == []
    assert stacked(["tensorflow", "tensorflow-intel"]) == []  # one package in two parts
    names = stacked(["tf-nightly", "tensorflow"])
    assert names == ["tensorflow", "tf-nightly"]
    assert "%pip uninstall -y tensorflow tf-nightly, then run %pip" in repair_command(
        names, "colab", "linux"
    )


def test_the_package_alone_brings_no_tensorflow() -> None:
    """Colab and Kaggle have one: pip install medres must not put another into the same folder."""
    extras = PYPROJECT["optional-dependencies"]
    for requirement in [*PYPROJECT["dependencies"], *extras["viz"]]:
        assert not re.match(r"tensorflow(\W|$)|tensorflow-|tf-nightly", requirement)
    assert {re.match(r"[\w-]+", text)[0] for text in extras["viz"]} == {"pydot", "tensorboard"}  # type: ignore[index]
