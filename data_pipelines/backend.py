"""The one place that says which TensorFlow is here, before Keras or TensorFlow is imported."""

from __future__ import annotations

import os
from importlib import metadata
from types import ModuleType

from data_pipelines.errors import BackendError

_NAMES = ("tensorflow", "tensorflow-cpu")


def require_tensorflow() -> ModuleType:
    """Import and return TensorFlow, with Keras set to use it.

    Raises BackendError, one sentence with the fix, where no TensorFlow is installed, or both `tensorflow` and `tensorflow-cpu`
    are (they write the same folder, and the second silently breaks the first).
    """
    installed = [name for name in _NAMES if _version(name) is not None]
    if not installed:
        raise BackendError(
            'TensorFlow is not installed: run pip install "medres[cpu]", or "medres[gpu]" on a machine with an NVIDIA GPU'
        )
    if len(installed) == 2:
        raise BackendError(
            "both tensorflow and tensorflow-cpu are installed and overwrite each other: run pip uninstall -y tensorflow tensorflow-cpu, "
            'then pip install "medres[cpu]" or "medres[gpu]"'
        )
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow

    return tensorflow


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
