"""Lists the files of a folder, each once: links are followed inside the folder only, pipes and
devices are never opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
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


def walk_files(source: Path | str, *, follow_links: bool = False) -> Walk:
    """List everything below a folder, or one file; of a DICOMDIR, its folder. Raises InputError
    (code no_source) if `source` is neither.

    Each file on disk is listed once, under the name that is not a link and not in a hidden folder.
    A link to a file inside `source` counts as a name of it; a link to somewhere else is followed
    only with `follow_links`. Loops end where a folder occurs again. Reasons of `others`:
    symbolic_link (not followed, or another name of a listed file), same_file (a hard link to a
    listed file), broken_link, special_file (a pipe, socket or device), unreadable_folder, file_name
    (not UTF-8).
    """
    source = Path(source)
    if source.is_file() and source.name.upper() == "DICOMDIR":
        source = source.parent
    if source.is_file():
        return Walk(source.parent.resolve(), (source.name,), ())
    if not source.is_dir():
        raise InputError(
            f"{source} is neither a folder nor a file. Check the path.", code="no_source"
        )
    root = source.resolve()
    names: dict[tuple[int, int], list[tuple[bool, bool, str]]] = {}
    others: list[tuple[str, str]] = []
    for path, is_link, target in _entries(root, follow_links, others):
        relative = _relative(root, path)
        is_hidden = any(part.startswith(".") for part in relative.split("/")[:-1])
        names.setdefault((target.st_dev, target.st_ino), []).append((is_hidden, is_link, relative))
    for same in names.values():
        same.sort()
        others += [(path, "symbolic_link" if link else "same_file") for _, link, path in same[1:]]
    files = sorted(same[0][2] for same in names.values())
    return Walk(root, tuple(files), tuple(sorted(others)))


def _entries(
    root: Path, follow_links: bool, others: list[tuple[str, str]]
) -> Iterator[tuple[str, bool, os.stat_result]]:
    """Path, whether it is a link, and status of every regular file; the rest goes to `others`."""
    folders, seen = [str(root)], {_identity(root.stat())}
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            others.append((_relative(root, str(error.filename)), "unreadable_folder"))
            continue
        for entry in listed:
            reason, target = _target(entry, root, follow_links)
            if target is None:
                others.append((_relative(root, entry.path), reason))
            elif not stat.S_ISDIR(target.st_mode):
                yield entry.path, entry.is_symlink(), target
            elif _identity(target) not in seen:
                seen.add(_identity(target))
                folders.append(entry.path)
            elif entry.is_symlink():
                others.append((_relative(root, entry.path), "symbolic_link"))


def _target(
    entry: os.DirEntry[str], root: Path, follow_links: bool
) -> tuple[str, os.stat_result | None]:
    """The status of a folder or a regular file, or why an entry is passed over."""
    try:
        entry.path.encode("utf-8")
        if entry.is_symlink():
            target = Path(entry.path).resolve(strict=True)
            is_inside = target.is_relative_to(root)
            # A folder inside is read where it lies.
            if not (target.is_file() if is_inside else follow_links):
                return "symbolic_link", None
        status = entry.stat()
    except UnicodeEncodeError:
        return "file_name", None
    except (OSError, RuntimeError):
        return "broken_link", None
    is_listed = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return "special_file", status if is_listed else None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _relative(root: Path, path: str) -> str:
    """Posix path below root; bytes that are not UTF-8 are written as backslash escapes."""
    relative = Path(path).relative_to(root).as_posix()
    return relative.encode("utf-8", "backslashreplace").decode()
