"""Files in object stores, by URL (s3://, gs:// and whatever fsspec reads); needs the extra
`stores`. The paths of a source are texts: ROOT joined with a path, for folders and for URLs.
"""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from data_pipelines.errors import InputError

_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_LOCAL = "file://"
_BLOCK = 4 << 20

#: size, time of change in nanoseconds (or a checksum of the store's own), and inode
FileState = tuple[int, int, int]


def is_url(path: str | Path) -> bool:
    """Whether a path is the URL of a file or folder in an object store.

    >>> is_url("s3://bucket/x.dcm"), is_url("/data/x.dcm"), is_url("file:///data/x.dcm")
    (True, False, False)
    """
    text = str(path)
    return _URL.match(text) is not None and not text.startswith(_LOCAL)


def local_path(source: str | Path) -> str | Path:
    """A path as it is, and file:///data as /data.

    >>> local_path("file:///data/x.dcm")
    '/data/x.dcm'
    """
    return source.removeprefix(_LOCAL) if isinstance(source, str) else source


def require_local(path: str | Path, what: str) -> None:
    """Raise InputError (code needs_local_folder) for a URL: TensorFlow reads caches from folders,
    and a rename is atomic in folders only. what: for the message, such as "the work folder".
    """
    if is_url(path) or re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):  # a Path folds the slashes
        raise InputError(
            f"{what} {path} is in an object store. Give a folder of this machine or of mounted "
            f"storage; sources alone may be in an object store.",
            code="needs_local_folder",
        )


def joined(root: str, path: str) -> str:
    """ROOT/PATH as text, which is faster than a Path for each of many files."""
    return os.path.join(root, path)  # noqa: PTH118


def state_of(path: str) -> FileState | None:
    """Size, time of change and inode of a file; None where it is not there. Of an object, the
    checksum of its description stands for the time.
    """
    if is_url(path):
        info = _info(path)
        if info is None:
            return None
        version = info.get("ETag") or info.get("etag") or info.get("LastModified") or ""
        return int(info.get("size") or 0), zlib.crc32(str(version).encode()), 0
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def exists(path: str) -> bool:
    """Whether a file, a folder or an object is seen by this machine."""
    return _info(path) is not None if is_url(path) else os.path.exists(path)  # noqa: PTH110


def opened_url(path: str) -> BinaryIO:
    """Open an object to read its bytes. Raises OSError."""
    try:
        return _file_system(path).open(path, "rb", block_size=_BLOCK, cache_type="none")
    except InputError as error:
        raise OSError(str(error)) from None
    except Exception as error:  # noqa: BLE001  each store has its own; their text may hold keys
        raise OSError(type(error).__name__) from None


def list_url(source: str) -> tuple[str, tuple[str, ...]]:
    """The root of a URL, and the sorted paths below it of all objects that are no folder marks; of
    a single object, its parent and its name.

    Raises InputError: no_source (nothing is there), no_store_package (the package for this kind of
    URL is missing), store_unreachable (the store refuses or does not answer), store_in_memory.
    """
    root = source.rstrip("/")
    if root.partition("://")[0] == "memory":
        raise InputError(
            f"{source} is in the memory of one process; the decode workers do not see it. Give a "
            f"folder or an object store.",
            code="store_in_memory",
        )
    try:
        system = _file_system(root)
        system.invalidate_cache()
        if system.isfile(root):
            parent, _, name = root.rpartition("/")
            return parent, (name,)
        below = str(system._strip_protocol(root))
        names = system.find(below)
    except InputError:
        raise
    except FileNotFoundError:
        names = []
    except Exception as error:  # noqa: BLE001  as above
        raise InputError(
            f"{source} cannot be listed ({type(error).__name__}). Check the address, the "
            f"permissions of your account, and the network.",
            code="store_unreachable",
        ) from None
    paths = sorted(name[len(below) :].strip("/") for name in names if not name.endswith("/"))
    if not any(paths):
        raise InputError(f"{source} has no object. Check the URL.", code="no_source")
    return root, tuple(path for path in paths if path)


def _info(path: str) -> dict[str, Any] | None:
    try:
        return dict(_file_system(path).info(path))
    except Exception:  # noqa: BLE001  as above: what cannot be asked for is not there
        return None


def _file_system(path: str) -> Any:
    """Raises InputError (no_store_package)."""
    name = path.partition("://")[0]
    try:
        import fsspec

        return fsspec.filesystem(name)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{name}:// needs a package that is not installed ({type(error).__name__}): run "
            f'pip install "medres[stores]".',
            code="no_store_package",
        ) from None
