"""What all machines of a cluster must have in common: the code, the source files and the work
folder. A machine that differs is an error; it never turns files into damaged ones.

Nothing compares the clocks of two machines: time limits are measured within one process, and the
modification time of a file is that which the storage holds.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import platform
import secrets
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from data_pipelines.errors import EngineError
from data_pipelines.runtime.object_stores import exists

#: Packages that decide what is in a file
_READERS = (
    *("medres", "numpy", "pydicom", "pillow", "nibabel", "imagecodecs"),
    *("pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle"),
    *("pyjpegls", "python-gdcm"),
)
_MARKER = ".shared-"


@functools.cache
def code_version(package: str = "data_pipelines") -> str:
    """A hash of the source code of an installed package and of the versions of the decoders."""
    spec = importlib.util.find_spec(package)
    digest = hashlib.sha256()
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        root = Path(folder)
        code = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.py")}
        digest.update(repr(sorted(code.items())).encode())
    for name in _READERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            digest.update(f"{name} {metadata.version(name)}\n".encode())
    return digest.hexdigest()


def code_versions() -> dict[str, str]:
    """`code_version` of both packages."""
    return {name: code_version(name) for name in ("data_pipelines", "medres")}


def require_same_code(versions: dict[str, str]) -> None:
    """Raise EngineError (other_version) unless this machine has the same code and decoders."""
    if versions != code_versions():
        raise EngineError(
            f"{this_machine()} has other code or decoders than the machine that started the "
            f"command (medres {_medres_version()} there). Install the same versions of medres and "
            f"of its packages on every machine: pip install -c constraints.txt medres.",
            code="other_version",
        )


def require_files(paths: Iterable[str]) -> None:
    """Raise EngineError (source_not_shared) for the first path that does not exist here."""
    for path in paths:
        if not exists(path):
            raise not_shared(path)


def not_shared(path: str) -> EngineError:
    """The error of a machine that does not see a source."""
    return EngineError(
        f"{this_machine()} does not see {os.path.dirname(path) or path}. Mount the "  # noqa: PTH120
        f"sources at the same path on every machine, or read them from an object store.",
        code="source_not_shared",
    )


@contextlib.contextmanager
def shared_marker(folder: Path) -> Iterator[str]:
    """A file with a random name in `folder`, for the time of the block: a machine that does not see
    it has another folder at that path. Yields its path.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    marker = folder / f"{_MARKER}{secrets.token_hex(8)}"
    marker.touch(mode=0o600)
    try:
        yield str(marker)
    finally:
        marker.unlink(missing_ok=True)


def shared_unless(
    needless: bool, folder: Path | None
) -> contextlib.AbstractContextManager[str | None]:
    """As `shared_marker`, None where no marker is needed, or there is no folder."""
    return contextlib.nullcontext() if needless or folder is None else shared_marker(folder)


def require_marker(marker: str) -> None:
    """Raise EngineError (work_not_shared) unless the file of `shared_marker` is seen here."""
    if not Path(marker).exists():
        raise EngineError(
            f"{this_machine()} does not see the work folder beside {Path(marker).parent}. Put the "
            f"work folder on storage that every machine mounts at the same path.",
            code="work_not_shared",
        )


def this_machine() -> str:
    """The name of this machine, for messages."""
    return f"the machine {platform.node() or 'without a name'}"


def _medres_version() -> str:
    try:
        return metadata.version("medres")
    except metadata.PackageNotFoundError:
        return "without a version"
