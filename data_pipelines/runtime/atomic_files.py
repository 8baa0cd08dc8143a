"""Writing files so that a crash leaves the old file, the new file, or nothing: never half a file.

A temporary name in the same folder, fsync, rename, fsync of the folder (rename(2) is atomic within
a file system).
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from data_pipelines.errors import InputError


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` to `path`: a reader sees the old bytes or all of the new ones.

    mode: permissions of a new file before the umask. Raises OSError (a full disk, a missing
    folder); the temporary file is then removed, and an earlier `path` is untouched.
    """
    path = Path(path)
    # mkstemp creates the file with mode 0600
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=".partial"
    )
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def staged_folder(out: Path, *, what: str) -> Iterator[Path]:
    """Yield a temporary folder beside `out`. It becomes `out` if the block succeeds and is removed
    if it fails.

    what: the content, for the error message. Raises InputError (code output_exists) if `out` exists
    and is not an empty folder.
    """
    out = Path(out)
    require_new(out, what=what)
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".partial"))
    try:
        yield stage
        stage.chmod(0o777 & ~_umask())
        stage.replace(out)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    sync_folder(out.parent)


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_new(out: Path, *, what: str) -> None:
    """Raise InputError (code output_exists) unless `out` is absent or an empty folder."""
    out = Path(out)
    if out.is_dir() and not any(out.iterdir()):
        return
    if os.path.lexists(out):
        raise InputError(
            f"{out} exists already, but {what} is written to a new or empty folder only. Choose "
            f"another folder, or remove this one.",
            code="output_exists",
        )


def csv_bytes(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> bytes:
    r"""Return `rows` as a UTF-8 CSV with `columns` as the header.

    >>> csv_bytes([{"a": 1, "b": "x, y"}], ["a", "b"])
    b'a,b\n1,"x, y"\n'
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut. Does nothing on Windows, where folders
    cannot be opened.
    """
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
