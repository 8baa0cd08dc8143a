"""Members of .zip and .tar archives, read in memory under paths such as a.zip!/x.dcm; nothing is
extracted to disk.
"""

from __future__ import annotations

import tarfile
import threading
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath

from data_pipelines.errors import DicomError, LimitExceeded, Unreadable
from data_pipelines.runtime.limits import active_limits

MARK = "!/"
#: names of archives that are opened
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_MEMBERS = 1_000_000
MAX_RATIO = 1100  # deflate reaches 1032: above it, members overlap
_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    KeyError,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
)
Archive = zipfile.ZipFile | tarfile.TarFile
_archives: dict[tuple[str, int, int], Archive] = {}
_lock = threading.RLock()


def is_archive(path: str) -> bool:
    """Whether a file is opened as an archive, by its name.

    >>> is_archive("a/B.ZIP"), is_archive("a.tar.gz"), is_archive("a.npz")
    (True, True, False)
    """
    return path.lower().endswith(SUFFIXES)


def members_of(path: str) -> dict[str, DicomError | None]:
    """Return the files in an archive in their order, each with why it cannot be read, or None.

    Codes: archive_encrypted, archive_nested (an archive in the archive), archive_member (a link, a
    device, a name that leads out of the archive, or one of several files of one name),
    limit_exceeded (a member above the limit of file size). Raises Unreadable (archive_unreadable)
    or LimitExceeded (too many members, or an implausible size) for the archive as a whole.
    """
    with _lock:
        return _members(path)


def _members(path: str) -> dict[str, DicomError | None]:
    try:
        archive = _opened(path)
        if isinstance(archive, zipfile.ZipFile):
            infos = [i for i in archive.infolist() if not i.is_dir()]
            members = [(i.filename, i.file_size, bool(i.flag_bits & 1), True) for i in infos]
        else:
            members = [(i.name, i.size, False, i.isreg()) for i in archive if not i.isdir()]
        size = Path(path).stat().st_size
    except _ERRORS as error:
        raise Unreadable(
            f"The archive cannot be read ({type(error).__name__}).", code="archive_unreadable"
        ) from None
    total = sum(member[1] for member in members)
    if len(members) > MAX_MEMBERS or total > MAX_RATIO * size + (1 << 20):
        raise LimitExceeded(
            f"The archive of {size} bytes claims {len(members)} files of {total} bytes."
        )
    counts, numbers = Counter(member[0] for member in members), Counter[str]()
    refusals: dict[str, DicomError | None] = {}
    for name, size, locked, regular in members:
        if counts[name] == 1:
            refusals[name] = _refusal(name, size, encrypted=locked, regular=regular)
        else:  # which of them a path means would be a guess
            numbers[name] += 1
            refusals[f"{name}#{numbers[name]}"] = Unreadable(
                "Several files of the archive have this name. Unpack it, and give the folder.",
                code="archive_member",
            )
    return refusals


def is_member(path: str | Path) -> bool:
    """Whether a path is that of a member of an archive."""
    archive_path, mark, _ = str(path).partition(MARK)
    return bool(mark) and is_archive(archive_path) and Path(archive_path).is_file()


def archive_or_file(path: str) -> list[str]:
    """The file that must exist so that a path can be read: of a member, its archive."""
    return [path.partition(MARK)[0] if MARK in path else path]


def source_bytes(path: str | Path) -> bytes | None:
    """Return the bytes of a member, None where the path is no path of a member. Raises Unreadable
    (archive_unreadable, archive_member) and LimitExceeded.
    """
    if not is_member(path):
        return None
    archive_path, _, name = str(path).partition(MARK)
    with _lock:
        return _member_bytes(archive_path, name)


def _member_bytes(path: str, name: str) -> bytes:
    limit = active_limits().file
    try:
        archive = _opened(path)
        file = (
            archive.open(name)
            if isinstance(archive, zipfile.ZipFile)
            else archive.extractfile(name)
        )
        if file is None:
            raise Unreadable("The member is no file.", code="archive_member")
        with file:
            data = file.read(limit + 1)
    except _ERRORS as error:
        raise Unreadable(
            f"The file cannot be read from its archive ({type(error).__name__}).",
            code="archive_unreadable",
        ) from None
    if len(data) > limit:
        raise LimitExceeded(f"The file has more than {limit} bytes, the limit.")
    return data


def _refusal(name: str, size: int, *, encrypted: bool, regular: bool) -> DicomError | None:
    limit = active_limits().file
    if encrypted:
        return Unreadable(
            "The file in the archive is encrypted. Unpack it, and give the folder.",
            code="archive_encrypted",
        )
    if not regular or ".." in PurePosixPath(name).parts or name.startswith("/"):
        return Unreadable(
            "A link, a device or a name that leads out of the archive is not read.",
            code="archive_member",
        )
    if is_archive(name):
        return Unreadable(
            "An archive in an archive is not opened. Unpack it, and give the folder.",
            code="archive_nested",
        )
    if size > limit:
        return LimitExceeded(f"The file has {size} bytes; the limit is {limit}.")
    return None


def _opened(path: str) -> Archive:
    """The archive, kept open for its next member until another one is opened."""
    status = Path(path).stat()
    key = (path, status.st_mtime_ns, status.st_size)
    if key not in _archives:
        for archive in _archives.values():
            archive.close()
        _archives.clear()
        is_zip = path.lower().endswith(".zip")
        _archives[key] = zipfile.ZipFile(path) if is_zip else tarfile.open(path)  # noqa: SIM115
    return _archives[key]
