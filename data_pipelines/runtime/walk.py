"""Lists the files of a folder without following anything: links, pipes and devices are listed but
never opened.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.errors import InputError


@dataclass(frozen=True)
class Walk:
    """files: paths of regular files relative to `root`, in posix form, sorted. others: (path,
    reason) of everything that is not a regular file.
    """

    root: Path
    files: tuple[str, ...]
    others: tuple[tuple[str, str], ...]


def walk_files(source: Path | str) -> Walk:
    """List everything below a folder, or one file. Raises InputError (code no_source) if `source`
    is neither.

    Reasons of `others`: symbolic_link, special_file (a pipe, socket or device), unreadable_folder,
    file_name (not UTF-8).
    """
    source = Path(source)
    if source.is_file():
        return Walk(source.parent.resolve(), (source.name,), ())
    if not source.is_dir():
        raise InputError(
            f"{source} is neither a folder nor a file. Check the path.", code="no_source"
        )
    root = source.resolve()
    files: list[str] = []
    others: list[tuple[str, str]] = []

    def unreadable(error: OSError) -> None:
        others.append((_relative(root, str(error.filename)), "unreadable_folder"))

    for folder, folders, names in os.walk(root, onerror=unreadable, followlinks=False):
        for name in [*names, *(f for f in folders if Path(folder, f).is_symlink())]:
            path = os.path.join(folder, name)  # noqa: PTH118  a Path per file is slow in large folders
            relative = _relative(root, path)
            reason = _reason(path)
            if reason is None:
                files.append(relative)
            else:
                others.append((relative, reason))
    return Walk(root, tuple(sorted(files)), tuple(sorted(others)))


def _relative(root: Path, path: str) -> str:
    """Posix path below root; bytes that are not UTF-8 are written as backslash escapes."""
    relative = Path(path).relative_to(root).as_posix()
    return relative.encode("utf-8", "backslashreplace").decode()


def _reason(path: str) -> str | None:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "file_name"
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return "symbolic_link"
    return None if stat.S_ISREG(mode) else "special_file"
