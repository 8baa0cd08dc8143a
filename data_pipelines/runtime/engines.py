"""Engines: where the parts of a long task are computed. An engine only distributes: the function
that computes parts writes them, and leaves out those that exist, so that a part that is computed
twice, or again after a crash, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

#: called with the function that computes parts, and the parts; yields its results in any order
Engine = Callable[[Callable[[Sequence[Any]], Iterator[Any]], Sequence[Any]], Iterator[Any]]


def in_this_process(
    compute: Callable[[Sequence[Any]], Iterator[Any]], parts: Sequence[Any]
) -> Iterator[Any]:
    """The local engine: one call for all parts, so that they share one pool of workers."""
    return compute(parts)
