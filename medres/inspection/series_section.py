"""The series of a work folder on the page: which are drawn as volumes, and which have gaps."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from data_pipelines.cache.plan import file_refs
from data_pipelines.ingestion.manifest import SPLITS
from data_pipelines.kinds import kinds_with_series
from data_pipelines.runtime.worker_pool import ProgressCallback
from medres.inspection.dataset_facts import label_cells
from medres.inspection.display_windows import Window, chosen_window
from medres.inspection.page_content import SeriesRow, Tile, VolumeFigure
from medres.inspection.thumbnails import jpeg_uri
from medres.inspection.volume_views import (
    Geometry,
    SeriesItem,
    VolumeViews,
    read_geometries,
    read_volume_views,
)

MAX_VOLUMES = 12
MAX_UNEVEN = 6  # of them, series that are not REGULAR
MAX_GAP_SERIES = 200  # whose headers are read
MAX_GAP_ROWS = 30  # in the table
MIN_SLICES = 3
VERDICTS_WITH_GAPS = ("MISSING", "IRREGULAR")
SHARE_COLUMN = "interpolated_share"  # of the manifest, where ingest recorded it


class Series(NamedTuple):
    """A series of the manifest. share: of interpolated slices, as ingest recorded it for the group
    of slices with most of them; None where it did not.
    """

    name: str
    split: str
    verdict: str
    slices: int
    share: float | None


def series_of(table: pd.DataFrame) -> list[Series]:
    """The series of MIN_SLICES slices or more, by pseudonym, that is in no order of their own."""
    slices = table[table["kind"].isin(kinds_with_series())]
    series = []
    for name, part in slices.groupby("series"):
        first = part.iloc[0]
        share = part[SHARE_COLUMN].max() if SHARE_COLUMN in part else None
        recorded = None if share is None or pd.isna(share) else float(share)
        series.append(Series(str(name), first["split"], first["verdict"], len(part), recorded))
    return sorted(one for one in series if one.slices >= MIN_SLICES)


def volume_figures(
    table: pd.DataFrame,
    series: Sequence[Series],
    window: Window | None,
    *,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[tuple[VolumeFigure, ...], int]:
    """Up to MAX_VOLUMES series as three slices and two reformats, and how many cannot be read."""
    chosen = chosen_series(table, series)
    views = read_volume_views(_items(table, chosen, window), workers=workers, progress=progress)
    figures = [_figure(one, view) for one, view in zip(chosen, views, strict=True) if view]
    return tuple(figures), len(chosen) - len(figures)


def chosen_series(table: pd.DataFrame, series: Sequence[Series]) -> list[Series]:
    """The series that are drawn: first some that are not REGULAR, of every verdict; then some of
    every label and split.
    """
    verdicts = sorted({one.verdict for one in series} - {"REGULAR"})
    uneven = _in_turn([one for one in series if one.verdict == verdict] for verdict in verdicts)
    groups = []
    for _, rows in label_cells(table):
        for split in SPLITS:
            inside = set(table.loc[rows & (table["split"] == split), "series"])
            groups.append([one for one in series if one.name in inside])
    return list(dict.fromkeys([*uneven[:MAX_UNEVEN], *_in_turn(groups)]))[:MAX_VOLUMES]


def gap_rows(
    table: pd.DataFrame,
    series: Sequence[Series],
    *,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[tuple[SeriesRow, ...], int]:
    """The series with gaps, the largest interpolated share first, and how many more there are."""
    uneven = [one for one in series if one.verdict in VERDICTS_WITH_GAPS]
    read = uneven[:MAX_GAP_SERIES]
    geometries = read_geometries(_items(table, read, None), workers=workers, progress=progress)
    rows = [
        SeriesRow(one.name, one.split, one.verdict, one.slices, geometry, _share(one, geometry))
        for one, geometry in zip(read, geometries, strict=True)
    ]
    rows.sort(key=lambda row: (-(row.share or 0.0), row.series))
    return tuple(rows[:MAX_GAP_ROWS]), len(uneven) - min(len(rows), MAX_GAP_ROWS)


def _share(series: Series, geometry: Geometry | None) -> float | None:
    """As ingest recorded it, else by the headers."""
    if series.share is not None or geometry is None:
        return series.share
    return geometry.interpolated_share


def _in_turn(groups: Iterable[Sequence[Series]]) -> list[Series]:
    """The first of each group, then the second of each, without repetitions."""
    rounds = itertools.zip_longest(*groups)
    return list(dict.fromkeys(one for turn in rounds for one in turn if one is not None))


def _items(
    table: pd.DataFrame, series: Sequence[Series], window: Window | None
) -> list[SeriesItem]:
    """What a worker needs of each series: its files in the order of its slices."""
    names = [one.name for one in series]
    parts = dict(iter(table[table["series"].isin(names)].groupby("series")))
    items = []
    for name in names:
        part = parts[name].sort_values("order", kind="stable")
        owners = tuple(zip(part["patient"], part["study"], strict=True))
        first = part.iloc[0]
        items.append(
            SeriesItem(
                tuple(file_refs(part)),
                owners,
                chosen_window(first["kind"], first["body_part"], window),
            )
        )
    return items


def _figure(series: Series, views: VolumeViews) -> VolumeFigure:
    tiles = tuple(
        Tile(view.title, f"series {series.name}", views.caption, jpeg_uri(view.pixels))
        for view in views.views
    )
    return VolumeFigure(
        series=series.name,
        split=series.split,
        verdict=series.verdict,
        geometry=views.geometry,
        tiles=tiles,
        caption=views.caption,
        note=views.note,
    )
