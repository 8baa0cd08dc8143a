"""Checks which TensorFlow is installed before Keras or TensorFlow is imported."""

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

    Raises BackendError, one sentence with the fix, if no TensorFlow is installed (code
    no_tensorflow), or if both `tensorflow` and `tensorflow-cpu` are (code two_tensorflows: they
    write the same folder, and the second silently breaks the first).
    """
    installed = [name for name in _NAMES if _version(name) is not None]
    if not installed:
        raise BackendError(
            'TensorFlow is not installed: run pip install "medres[cpu]", or "medres[gpu]" on a '
            "machine with an NVIDIA GPU",
            code="no_tensorflow",
        )
    if len(installed) == 2:
        raise BackendError(
            "both tensorflow and tensorflow-cpu are installed and overwrite each other: run pip "
            'uninstall -y tensorflow tensorflow-cpu, then pip install "medres[cpu]" or '
            '"medres[gpu]"',
            code="two_tensorflows",
        )
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _without_startup_lines() if "tensorflow" not in sys.modules else contextlib.nullcontext():
        import keras  # noqa: F401
        import tensorflow

    return tensorflow


@contextlib.contextmanager
def _without_startup_lines() -> Iterator[None]:
    """Hold back what native libraries write to standard error before their log level is set; show
    it only if the import fails.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with tempfile.TemporaryFile() as output:
            os.dup2(output.fileno(), 2)
            try:
                yield
            except BaseException:
                output.seek(0)
                os.write(stderr, output.read())
                raise
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
