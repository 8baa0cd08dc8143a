"""One read of a model file: a private copy, from which the file is hashed, verified and opened.

The path may be replaced at any moment, for instance by a deployment. Everything after the copy
therefore reads the copy, and never the path again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from medres.errors import ArtefactError

MAX_FILE = 1 << 30  # bytes
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """A private copy of a model file. name: file name of the original, for messages. path: of the
    copy. sha256: of its bytes.
    """

    name: str
    path: Path
    sha256: str


@contextlib.contextmanager
def private_copy(path: Path | str) -> Iterator[ModelFile]:
    """Read a model file once, into a temporary folder that only this user can open.

    Raises ArtefactError: wrong_suffix, no_such_file, not_readable, not_a_file, file_too_large,
    no_space.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ArtefactError(
            f"{path.name}: a medres model file ends in .keras, received "
            f"{path.suffix or 'no suffix'!r}",
            code="wrong_suffix",
        )
    with tempfile.TemporaryDirectory(prefix="medres-") as folder:
        copy = Path(folder) / "model.keras"
        with opened(path) as source, copy.open("wb") as target:
            sha256 = _copy_hashed(source, target, path.name)
        yield ModelFile(path.name, copy, sha256)


def opened(path: Path, *, limit: int = MAX_FILE) -> IO[bytes]:
    """A regular file of at most `limit` bytes, opened for reading; a pipe does not block. Raises
    ArtefactError (no_such_file, not_readable, not_a_file, file_too_large).
    """
    try:
        descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero in the name
        raise ArtefactError(f"{path.name}: no such file", code="no_such_file") from None
    except OSError as error:
        raise ArtefactError(
            f"{path.name}: cannot be opened ({error.strerror}): check its permissions",
            code="not_readable",
        ) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ArtefactError(
            f"{path.name}: not a regular file (a folder, a device or a pipe)", code="not_a_file"
        )
    if status.st_size > limit:
        os.close(descriptor)
        raise _too_large(path.name, limit)
    return os.fdopen(descriptor, "rb")


def _copy_hashed(source: IO[bytes], target: IO[bytes], name: str) -> str:
    """Copy a file in pieces; returns its SHA-256. The size is bounded again, since the file may
    grow meanwhile.
    """
    digest, size = hashlib.sha256(), 0
    try:
        while piece := source.read(_CHUNK):
            size += len(piece)
            if size > MAX_FILE:
                raise _too_large(name, MAX_FILE)
            digest.update(piece)
            target.write(piece)
        target.flush()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise no_space(name) from None
        raise ArtefactError(
            f"{name}: cannot be read to its end ({error.strerror})", code="not_readable"
        ) from None
    return digest.hexdigest()


def no_space(name: str) -> ArtefactError:
    """The error for a full disk while a model file is opened."""
    return ArtefactError(
        f"{name}: the folder for temporary files, {tempfile.gettempdir()}, is full; opening a "
        f"model needs twice its size there. Free some space, or set TMPDIR",
        code="no_space",
    )


def _too_large(name: str, limit: int) -> ArtefactError:
    return ArtefactError(f"{name}: larger than {limit >> 20:,} MiB", code="file_too_large")
