"""The one place that says which TensorFlow is here, before Keras or TensorFlow is imported."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from types import ModuleType

from data_pipelines.errors import BackendError

_NAMES = ("tensorflow", "tensorflow-cpu")


def require_tensorflow() -> ModuleType:
    """Import and return TensorFlow, with Keras set to use it.

    Raises BackendError, one sentence with the fix, where no TensorFlow is installed, or both
    `tensorflow` and `tensorflow-cpu` are (they write the same folder, and the second silently
    breaks the first).
    """
    installed = [name for name in _NAMES if _version(name) is not None]
    if not installed:
        raise BackendError(
            'TensorFlow is not installed: run pip install "medres[cpu]", or "medres[gpu]" on a '
            "machine with an NVIDIA GPU"
        )
    if len(installed) == 2:
        raise BackendError(
            "both tensorflow and tensorflow-cpu are installed and overwrite each other: run pip "
            "uninstall -y tensorflow tensorflow-cpu, "
            'then pip install "medres[cpu]" or "medres[gpu]"'
        )
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _without_start_up_lines() if "tensorflow" not in sys.modules else contextlib.nullcontext():
        import keras  # noqa: F401
        import tensorflow

    return tensorflow


@contextlib.contextmanager
def _without_start_up_lines() -> Iterator[None]:
    """Hold back what native libraries write to standard error before their log level is set; show
    it if the import fails.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            try:
                yield
            except BaseException:
                held.seek(0)
                os.write(kept, held.read())
                raise
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
