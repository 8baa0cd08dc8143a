"""Where Python runs, and how TensorFlow is installed there: pure functions of the environment
variables and of the names of installed packages.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping

#: All of them write the folder `tensorflow`. On Windows, older releases of tensorflow need
#: tensorflow-intel, which is therefore no second one.
TENSORFLOWS = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-gpu",
    "tensorflow-macos",
    "tensorflow-rocm",
    "intel-tensorflow",
    "tf-nightly",
    "tf-nightly-cpu",
)


def host_name(environ: Mapping[str, str], prefix: str = sys.prefix) -> str:
    """ "kaggle", "colab", "conda" (the environment of this Python) or "".

    >>> host_name({"COLAB_RELEASE_TAG": "release-colab_20260101"})
    'colab'
    """
    if "KAGGLE_KERNEL_RUN_TYPE" in environ:  # first: its images are made from those of Colab
        return "kaggle"
    if "COLAB_RELEASE_TAG" in environ or "COLAB_GPU" in environ:
        return "colab"
    return "conda" if environ.get("CONDA_PREFIX") == prefix else ""


def install_command(host: str, system: str = sys.platform) -> str:
    """How TensorFlow is installed with medres, for a host and a system ("linux", "darwin",
    "win32").

    >>> install_command("", "darwin")
    'run pip install "medres[cpu]"'
    """
    if host in ("colab", "kaggle"):
        return (
            'run %pip install "medres[gpu]" in a session with a GPU, %pip install "medres[cpu]" in '
            "any other, then restart the session"
        )
    pip = "python -m pip" if host == "conda" else "pip"
    command = f'run {pip} install "medres[cpu]"'
    if system == "linux":
        command += ', or "medres[gpu]" on a machine with an NVIDIA GPU'
    if system == "win32":
        command += " (on Windows TensorFlow uses no GPU: install in WSL2 for one)"
    return command


def stacked(installed: Collection[str]) -> list[str]:
    """The packages that overwrite each other: two or more TensorFlows, else none.

    >>> stacked(["tensorflow", "tensorflow-cpu", "keras"])
    ['tensorflow', 'tensorflow-cpu']
    """
    names = [name for name in TENSORFLOWS if name in installed]
    return names if len(names) > 1 else []


def repair_command(names: Collection[str], host: str, system: str = sys.platform) -> str:
    """How one of several TensorFlows is put in place of all."""
    pip = "%pip" if host in ("colab", "kaggle") else "pip"
    listed = " ".join(names)
    return f"run {pip} uninstall -y {listed}, then {install_command(host, system)}"
