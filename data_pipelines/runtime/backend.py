"""Checks which TensorFlow is installed before Keras or TensorFlow is imported."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from types import ModuleType

from data_pipelines.errors import BackendError
from data_pipelines.runtime.hosts import (
    TENSORFLOWS,
    host_name,
    install_command,
    repair_command,
    stacked,
)


def require_tensorflow() -> ModuleType:
    """Import and return TensorFlow, with Keras set to use it.

    Raises BackendError, one sentence with the fix, if no TensorFlow is installed (code
    no_tensorflow), or if two are, such as `tensorflow` and `tensorflow-cpu` (code two_tensorflows:
    they write the same folder, and the second silently breaks the first).
    """
    installed = [name for name in TENSORFLOWS if _version(name) is not None]
    if not installed:
        raise BackendError(
            f"TensorFlow is not installed: {install_command(host_name(os.environ))}",
            code="no_tensorflow",
        )
    if stacked(installed):
        raise BackendError(
            f"{' and '.join(installed)} are installed and overwrite each other: "
            f"{repair_command(installed, host_name(os.environ))}",
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


@functools.cache  # a look into the file system, for each prediction
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
