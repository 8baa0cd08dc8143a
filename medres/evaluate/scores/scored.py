"""A scores table together with what its report needs: what `medres.score` returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Scored:
    """The scores of a model on one split of a work folder; `medres.evaluate.evaluate` takes it as
    it is.

    table: one row per image, as scores.csv has it. thresholds: the model's frozen operating points
    (dicts with finding, name, threshold, criterion, split, n_patients, unit). unit: the level at
    which the labels were given: "image", "series", "study" or "patient". pool: how the model pools
    image scores to that unit. subgroups: columns of `table` with 2 to 8 levels. provenance, flow:
    for report.json. pictures: (finding, unit, id) -> bytes of a PNG with a saliency map, or None.
    """

    table: pd.DataFrame
    thresholds: list[dict[str, Any]]
    unit: str
    pool: str = "max"
    title: str | None = None
    subgroups: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    flow: Mapping[str, Any] | None = None
    pictures: Callable[[str, str, str], bytes | None] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"Scored({self.title!r}, {len(self.table)} images, unit={self.unit!r})"
