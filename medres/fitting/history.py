"""The curves of a fit, from what `Model.fit` returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_pipelines.runtime.atomic_files import write_atomic
from medres.errors import TrainingError
from medres.training.loggers.html import curves, embedded, figure_page


@dataclass(frozen=True)
class HistoryPlot:
    """Figures as HTML, which a notebook shows. `save(path)` writes a page that works offline."""

    html: str

    def _repr_html_(self) -> str:
        return self.html

    def save(self, path: Path | str) -> Path:
        """Write the page, and return its path."""
        write_atomic(Path(path), figure_page("Fit", self.html).encode())
        return Path(path)

    def __repr__(self) -> str:
        return f"HistoryPlot({self.html.count('<svg')} figures; .save(path) writes a page)"


def plot_history(history: Any, *, monitor: str = "val_loss", mode: str = "min") -> HistoryPlot:
    """One figure for each quantity of a fit, training and validation as two lines, with a dashed
    line at the epoch where `monitor` is best (mode "min" or "max").

    history: what `Model.fit` returns, or its `history`, a dictionary of lists. Raises TrainingError
    (code empty_history) where no epoch ended.

    >>> plot_history({"loss": [0.7, 0.5], "val_loss": [0.6, 0.65]})
    HistoryPlot(1 figures; .save(path) writes a page)
    """
    values: Mapping[str, list[float]] = getattr(history, "history", history)
    count = max((len(column) for column in values.values()), default=0)
    if count == 0:
        raise TrainingError(
            "the history holds no epoch: the fit ended in its first", code="empty_history"
        )
    columns = {name: [float(v) for v in column] for name, column in values.items()}
    best = _best(columns.get(monitor, []), mode)
    figures = [
        curves(name, list(range(1, count + 1)), lines, best)
        for name in columns
        if not (name.startswith("val_") and name[4:] in columns)
        and (lines := _lines(columns, name, count))
    ]
    return HistoryPlot(embedded(f'<div class="row">{"".join(figures)}</div>'))


def _lines(columns: Mapping[str, list[float]], name: str, count: int) -> dict[str, pd.Series]:
    """The finite, complete columns of a quantity by their titles."""
    pairs = (("training", name), ("validation", f"val_{name}"))
    return {
        title: pd.Series(columns[key])
        for title, key in pairs
        if len(columns.get(key, [])) == count and all(map(math.isfinite, columns[key]))
    }


def _best(column: list[float], mode: str) -> int | None:
    """The epoch, from 1, with the best finite value."""
    finite = [(value, number) for number, value in enumerate(column, 1) if math.isfinite(value)]
    if not finite:
        return None
    return (min if mode == "min" else max)(finite, key=lambda pair: pair[0])[1]
