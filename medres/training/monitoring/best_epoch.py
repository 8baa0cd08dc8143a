"""The quantity by which the saved epoch is chosen, and by which early stopping counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medres.errors import TrainingError

DIRECTIONS = ("min", "max")
BUILT_IN: dict[str, str | None] = {
    "loss": "min",
    "auc": "max",
}  # of the tuning split, in every history
#: the figure of a task that curves and lines of text show: the column tune_NAME, and its title
HEADLINES = {"auc": "AUC", "dice": "Dice", "ap50": "AP50", "froc": "FROC"}


@dataclass(frozen=True)
class Monitor:
    """A column of history.csv and whether its lowest ("min") or highest ("max") value is best."""

    column: str
    direction: str

    def rank(self, row: Mapping[Any, Any]) -> tuple[float, float]:
        """A row of the history as a value of which the lowest is best. Equal values are ranked by
        the tuning loss; an undefined value comes last.
        """
        value = row[self.column]
        if value is None or not math.isfinite(value):
            return math.inf, row["tune_loss"]
        return (value if self.direction == "min" else -value), row["tune_loss"]

    def first_best(self, history: Sequence[Mapping[Any, Any]]) -> int:
        """The index of the best row, the first of equal ones.

        >>> Monitor("tune_auc", "max").first_best(
        ...     [{"tune_auc": 0.7, "tune_loss": 0.5}, {"tune_auc": 0.8, "tune_loss": 0.6}]
        ... )
        1
        """
        return min(range(len(history)), key=lambda i: self.rank(history[i]))

    def last_is_best(self, history: Sequence[Mapping[Any, Any]]) -> bool:
        """Whether no row is better than the last one."""
        return self.rank(history[-1]) <= min(map(self.rank, history))

    @property
    def setting(self) -> str:
        """As `monitor` in config.json."""
        return f"{self.column.removeprefix('tune_')}:{self.direction}"

    @property
    def phrase(self) -> str:
        """For people: "lowest tuning (validation) loss"."""
        adjective = "lowest" if self.direction == "min" else "highest"
        name = self.column.removeprefix("tune_")
        title = name if name == "dice" else HEADLINES.get(name, name)
        return f"{adjective} tuning (validation) {title}"


LOSS = Monitor("tune_loss", "min")


def monitor_named(
    text: str,
    metrics: Mapping[str, str | None],
    *,
    built_in: Mapping[str, str | None] = BUILT_IN,
) -> Monitor:
    """The monitor of a setting: "loss", "auc", or the name of a metric. Keras' names (val_loss) and
    the columns of history.csv (tune_loss) work too. NAME:min or NAME:max gives the direction.

    metrics: "min", "max" or None (unknown) by name. built_in: of the task; for a segmenter "loss"
        and "dice", for a detector "loss", "ap50" and "froc". Raises TrainingError (codes
        unknown_monitor, unknown_direction).

    >>> monitor_named("val_auc", {})
    Monitor(column='tune_auc', direction='max')
    """
    name, _, direction = text.partition(":")
    name = name.removeprefix("val_").removeprefix("tune_")
    known: dict[str, str | None] = {**built_in, **metrics}
    if name not in known:
        raise TrainingError(
            f"monitor={text!r}: there is no such quantity; choose one of {', '.join(known)}, or "
            f"add a Keras metric of this name with metrics=[...]",
            code="unknown_monitor",
        )
    chosen = direction or known[name]
    if chosen not in DIRECTIONS or (name in built_in and chosen != built_in[name]):
        raise TrainingError(
            f"monitor={text!r}: "
            + (
                f"the best value of {name} is its {built_in[name]}: write monitor={name!r}"
                if name in built_in
                else f"it is not known whether {name} should be low or high: write "
                f"monitor='{name}:min' or monitor='{name}:max'"
            ),
            code="unknown_direction",
        )
    return Monitor(f"tune_{name}", str(chosen))


def saved_monitor(config: Mapping[str, Any]) -> Monitor:
    """The monitor of a run, from its config.json."""
    name, _, direction = str(config.get("monitor", LOSS.setting)).partition(":")
    return Monitor(f"tune_{name}", direction)
