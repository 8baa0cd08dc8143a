"""Which lesion a mark hits, from its place in the image.

Places are in original pixels, measured at edges: the first pixel reaches from 0 to 1.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from medres.errors import EvaluationError
from medres.evaluate.readers.ratings import BoolArray, FloatArray
from medres.evaluate.scores.ids import id_texts
from medres.evaluate.scores.io import refuse_rows

AXES = ("x", "y", "z")
SIZES = ("width", "height", "depth")


def with_hits(table: pd.DataFrame, lesions: pd.DataFrame) -> pd.DataFrame:
    """The readers table with a column `lesion`, from `x`, `y` (and `z`) of each mark.

    lesions: `case`, `lesion` and either `x`, `y` (and `z`) with `radius`, or `x_min`, `x_max`,
    `y_min`, `y_max` (and `z_min`, `z_max`). A mark within several lesions hits the one with the
    nearest center. `width`, `height` (and `depth`) of the image, in either table, are limits.

    Raises EvaluationError. Codes: missing_column, bad_location, location_outside.
    """
    axes = [axis for axis in AXES if axis in table.columns]
    if "y" not in axes:
        raise EvaluationError("the readers table has x and no y", code="missing_column")
    marked = _marked(table)
    place = np.stack([_numbers(table[axis]) for axis in axes], axis=1)
    refuse_rows(
        marked & ~np.isfinite(place).all(axis=1),
        "have no place of the mark in numbers",
        "bad_location",
        table="readers",
    )
    low, high, center, radius = _shapes(lesions, axes)
    case, of_case = id_texts(table["case"]).to_numpy(), id_texts(lesions["case"]).to_numpy()
    check_marks_inside(table, lesions)
    _check_lesions_inside(lesions, table, axes, np.where(np.isinf(low), center, low), high, center)
    names = id_texts(lesions["lesion"]).to_numpy()
    hits = np.full(len(table), "", dtype=object)
    rows_of = pd.Series(np.arange(len(lesions))).groupby(of_case).indices
    for row in np.flatnonzero(marked):
        at = rows_of.get(case[row])
        if at is None:
            continue
        distance = np.linalg.norm(place[row] - center[at], axis=1)
        within = ((place[row] >= low[at]) & (place[row] <= high[at])).all(axis=1)
        within &= distance <= radius[at]
        if within.any():
            hits[row] = names[at[within][np.argmin(distance[within])]]
    return table.assign(lesion=hits)


def check_marks_inside(table: pd.DataFrame, lesions: pd.DataFrame) -> None:
    """Raises EvaluationError. Codes: location_outside, bad_location (for a size)."""
    outside = np.zeros(len(table), dtype=bool)
    for axis, size in zip(AXES, SIZES, strict=True):
        if axis in table.columns:
            place = _numbers(table[axis])
            outside |= (place < 0) | (place > _sizes(table, lesions, size, "readers", "lesions"))
    refuse_rows(
        _marked(table) & outside,
        "have a mark outside the image",
        "location_outside",
        table="readers",
    )


def hit_rule_of(lesions: pd.DataFrame) -> str:
    """In words, which of the two forms of a lesions table `with_hits` uses."""
    radius = "radius" in lesions.columns and {"x", "y"} <= set(lesions.columns)
    return "the mark lies within the radius" if radius else "the mark lies inside the box"


def _shapes(
    lesions: pd.DataFrame, axes: list[str]
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Lower and upper edges and centers (L, axes), and radii (L,); what does not limit is
    infinite."""
    if "radius" in lesions.columns and set(axes) <= set(lesions.columns):
        center = np.stack([_numbers(lesions[axis]) for axis in axes], axis=1)
        radius = _numbers(lesions["radius"])
        low, high = np.full(center.shape, -np.inf), np.full(center.shape, np.inf)
        good = np.isfinite(center).all(axis=1) & (radius > 0)
    else:
        edges = [f"{axis}_{end}" for end in ("min", "max") for axis in axes]
        missing = [name for name in edges if name not in lesions.columns]
        if missing:
            raise EvaluationError(
                f"the lesions table needs {', '.join(axes)} and radius, or the edges "
                f"{', '.join(edges)}; it has no {missing[0]!r}",
                code="missing_column",
            )
        values = np.stack([_numbers(lesions[name]) for name in edges], axis=1)
        low, high = values[:, : len(axes)], values[:, len(axes) :]
        center, radius = (low + high) / 2.0, np.full(len(lesions), np.inf)
        good = np.asarray(np.isfinite(values).all(axis=1) & (low < high).all(axis=1))
    refuse_rows(
        ~good, "have no place in numbers (edges must ascend)", "bad_location", table="lesions"
    )
    return low, high, center, radius


def _check_lesions_inside(
    lesions: pd.DataFrame,
    table: pd.DataFrame,
    axes: list[str],
    low: FloatArray,
    high: FloatArray,
    center: FloatArray,
) -> None:
    """Boxes from edge to edge, else centers."""
    high = np.where(np.isinf(high), center, high)
    outside = (low < 0).any(axis=1)
    for number, size in enumerate(SIZES[: len(axes)]):
        outside |= high[:, number] > _sizes(lesions, table, size, "lesions", "readers")
    refuse_rows(outside, "have a place outside the image", "location_outside", table="lesions")


def _marked(table: pd.DataFrame) -> BoolArray:
    rating = table["rating"]
    return (rating.notna() & (rating.astype(str).str.strip() != "")).to_numpy(dtype=bool)


def _sizes(
    table: pd.DataFrame, other: pd.DataFrame, size: str, name: str, name_of_other: str
) -> FloatArray:
    """(rows,) the size of the image of each row of a table, from either table; infinite where
    neither has it.
    """
    own = np.full(len(table), np.nan)
    if size in table.columns:
        own = _size_numbers(table[size], size, name)
    if size in other.columns:
        sizes = pd.Series(_size_numbers(other[size], size, name_of_other))
        by_case = sizes.groupby(id_texts(other["case"]).to_numpy()).min()
        of_other = id_texts(table["case"]).map(by_case).to_numpy(dtype=float)
        own = np.fmin(own, of_other)
    return np.where(np.isnan(own), np.inf, own)


def _size_numbers(column: pd.Series, size: str, name: str) -> FloatArray:
    numbers = _numbers(column)
    empty = column.isna() | (column.astype(str).str.strip() == "")
    refuse_rows(
        ~empty.to_numpy(dtype=bool) & ~(numbers > 0),
        f"have a {size} of the image that is no number above 0",
        "bad_location",
        table=name,
    )
    return numbers


def _numbers(column: pd.Series) -> FloatArray:
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
