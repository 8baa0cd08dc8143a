"""Asynchronous successive halving (ASHA, Li et al. 2020): every trial is first trained for a few
epochs, and goes on to more of them only while it is among the best of those before it.

A rung is a number of epochs. Each rung of a trial is trained from the start, so that it has a whole
schedule of the learning rate; the rungs below the last one cost at most 1 / (factor - 1) more.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

MOST_RUNGS = 4


class Rung(NamedTuple):
    """A cross-validation of one trial: its number of epochs, its folder, and its command."""

    epochs: int
    out: Path
    command: tuple[str, ...]

    @property
    def is_done(self) -> bool:
        """Whether its summary has been written."""
        return (self.out / "summary.json").exists()


def rung_epochs(epochs: int, factor: int) -> list[int]:
    """The numbers of epochs of the rungs, from the lowest. factor: 0 for a single rung.

    >>> rung_epochs(60, 3), rung_epochs(15, 4), rung_epochs(15, 0)
    ([3, 7, 20, 60], [4, 15], [15])
    """
    if not factor:
        return [epochs]
    rungs = [-(-epochs // factor**n) for n in range(MOST_RUNGS) if factor**n <= epochs]
    return sorted(set(rungs))


@dataclass
class Halving:
    """The rule of Ray Tune's ASHAScheduler for the trials of one process: a trial goes on unless it
    is below the best 1 / factor of the trials that came to this rung before it.
    """

    factor: int

    def __post_init__(self) -> None:
        self._recorded: defaultdict[int, list[float]] = defaultdict(list)
        self._lock = threading.Lock()

    def goes_on(self, rung: int, auc: float) -> bool:
        """Record the AUC (NaN: undefined) of a trial at a rung, counted from 0."""
        with self._lock:
            earlier = [value for value in self._recorded[rung] if not np.isnan(value)]
            self._recorded[rung].append(auc)
        return not (earlier and auc < np.percentile(earlier, 100 * (1 - 1 / self.factor)))


def climb(
    rungs: tuple[Rung, ...],
    compute: Callable[[tuple[str, ...]], str],
    auc_of: Callable[[Path], float],
    goes_on: Callable[[int, float], bool],
) -> str:
    """Compute the rungs of a trial, without those that are done, until it fails or is stopped.
    compute: from a command to "" or why it failed. Returns "" or why it failed.
    """
    for number, rung in enumerate(rungs):
        fault = "" if rung.is_done else compute(rung.command)
        if fault:
            return fault
        if number + 1 < len(rungs) and not goes_on(number, auc_of(rung.out)):
            break
    return ""
