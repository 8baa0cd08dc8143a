"""What one file may cost: seconds, memory, bytes, depth. A file from elsewhere may be a
decompression bomb; these limits stop it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace

from data_pipelines.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Limits of one file. `seconds` (of decoding, without the wait for storage), `stall` (seconds
    in which storage must deliver the next 4 MiB) and `memory` (bytes beyond those of the program
    itself) apply in the decode workers.

    file: bytes on disk. inflated: bytes after decompression, of a deflated data set, of all frames
    of an image, or of an archive. depth: sequences within sequences.
    """

    seconds: float = 10.0
    memory: int = 2 << 30
    file: int = 1 << 30
    inflated: int = 512 << 20
    depth: int = 64
    stall: float = 300.0


_DEFAULT = Limits()
_SECONDS = ("seconds", "stall")  # the limits that need not be whole numbers
_current: ContextVar[Limits] = ContextVar("limits")


def active_limits() -> Limits:
    """The limits that apply here and now."""
    return _current.get(_DEFAULT)


@contextlib.contextmanager
def limited(**changes: float) -> Iterator[Limits]:
    """Read with other limits inside the block: `with limited(seconds=60): ingest(...)`.

    Raises InputError (code limits) for an unknown name or a value that is not above 0.

    >>> with limited(seconds=60) as limits:
    ...     limits.seconds
    60
    """
    names = asdict(active_limits())
    for name, value in changes.items():
        if name not in names:
            raise InputError(
                f"unknown limit {name!r}. Choose one of {', '.join(names)}.", code="limits"
            )
        if not value > 0:
            raise InputError(f"limit {name}={value:g}: use a number above 0.", code="limits")
    whole = {name: value if name in _SECONDS else int(value) for name, value in changes.items()}
    token = _current.set(replace(active_limits(), **whole))  # type: ignore[arg-type]
    try:
        yield active_limits()
    finally:
        _current.reset(token)


def install_limits(limits: Limits) -> None:
    """Apply `limits` in this process from now on: for workers, which have a single task."""
    _current.set(limits)


_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_limits(texts: list[str]) -> dict[str, float]:
    """NAME=VALUE texts as changes for `limited`; bytes may end in KiB, MiB or GiB.

    Raises InputError (code limits) for a text of another form.

    >>> parse_limits(["seconds=60", "memory=4GiB"])
    {'seconds': 60.0, 'memory': 4294967296.0}
    """
    changes = {}
    for text in texts:
        name, equals, value = text.partition("=")
        number = value.strip().removesuffix("B").removesuffix("i")
        unit = number[-1:].upper() if number[-1:].isalpha() else ""
        try:
            changes[name.strip()] = float(number[: len(number) - len(unit)]) * _SIZES[unit]
        except (ValueError, KeyError):
            equals = ""
        if not equals:
            raise InputError(
                f"limit {text!r}: write NAME=NUMBER, for instance seconds=60 or memory=4GiB.",
                code="limits",
            )
    return changes
