"""`medres inspect`: one page about a work folder, to look at before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.ingestion.manifest import SPLITS, Manifest
from data_pipelines.kinds import image_kind
from data_pipelines.runtime.atomic_files import write_atomic
from data_pipelines.runtime.worker_pool import ProgressCallback, StageCallback, stage
from medres.inspection.dataset_facts import QuarantineReason, facts, label_cells
from medres.inspection.dataset_page import page
from medres.inspection.display_windows import parse_window
from medres.inspection.page_content import (
    ContactSheet,
    Figure,
    Histogram,
    HistogramLine,
    PageContent,
    Section,
    SimilarPair,
    SplitSheet,
    Tile,
    image_tile,
)
from medres.inspection.series_section import gap_rows, series_of, volume_figures
from medres.inspection.thumbnails import (
    BINS,
    Thumbnail,
    jpeg_uri,
    sample_rows,
    thumbnails_of_files,
    thumbnails_of_rows,
)

__all__ = ["Figure", "Section", "inspect"]

MAX_TILES, MIN_TILES = 12, 4  # of a contact sheet
MAX_WINDOWS = 4  # in the heading of a contact sheet
MAX_ALL_TILES = 240  # of all contact sheets together
IMAGES_PER_MANUFACTURER = 40  # of a histogram
MAX_MANUFACTURERS = 6
MAX_PAIRS = 6  # of the leakage audit
#: Exclusion reasons of which an example image is shown. Files of other reasons can have burned-in
#: text or a face.
REASONS_WITH_EXAMPLE = frozenset(
    {
        *(
            "localizer",
            "projection",
            "not_hu",
            "for_processing",
            "constant_pixels",
            "split_leak",
            "both_sites",
        ),
        *(
            "duplicate",
            "duplicate_pixels",
            "duplicate_conflict",
            "duplicate_uid",
            "no_split",
            "no_patient_id",
        ),
    }
)


Selection = dict[tuple[str, str], pd.Index]


def inspect(
    work: Path | str,
    out: Path | str | None = None,
    *,
    sections: Sequence[Section] = (),
    window: str | None = None,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
    stages: StageCallback | None = None,
) -> Path:
    """Write the page of a work folder to `out` (default WORK/inspect.html) and return its path.

    The page is one file without scripts or network requests. It names images and series by their
    pseudonyms, as the manifest and the cache do, and holds no identifier and no path. Images are
    read again from the sources; those that can no longer be read are left out and counted.
    window: for CT, a name of WINDOWS or "CENTER,WIDTH" in HU; default: by body part. progress:
    called with (done, total) images. stages: called with the name of each long step, as for ingest.
    Raises ManifestError if `work` is not a work folder, SpecError (`bad_window`).
    """
    manifest = Manifest.load(work)
    target = Path(work) / "inspect.html" if out is None else Path(out)
    requested = None if window is None else parse_window(window)
    table = manifest.table
    sheets, manufacturers = _rows_of_sheets(table), _rows_of_manufacturers(table)
    pairs = _near_duplicates(manifest)
    rows = table.loc[_all_rows((sheets, manufacturers), pairs)]
    with stage(stages, "read images") as update:
        thumbnails = thumbnails_of_rows(
            rows, window=requested, workers=workers, progress=progress or update
        )
    series = series_of(table)
    with stage(stages, "read series") as update:
        volumes, unread = volume_figures(table, series, requested, workers=workers, progress=update)
    with stage(stages, "read gaps") as update:
        gaps, more_gaps = gap_rows(table, series, workers=workers, progress=update)
    numbers = facts(manifest)
    reasons = _with_examples(numbers.quarantine, manifest.quarantine, workers)
    content = PageContent(
        facts=replace(numbers, quarantine=reasons),
        sheets=_sheets(table, sheets, thumbnails),
        histograms=_histograms(table, manufacturers, thumbnails),
        pairs=_similar_pairs(table, pairs, thumbnails),
        volumes=volumes,
        volume_series=len(series),
        gaps=gaps,
        more_gaps=more_gaps,
        unread=len(rows) - len(thumbnails) + unread,
    )
    write_atomic(target, page(content, sections).encode())
    return target


def _rows_of_sheets(table: pd.DataFrame) -> Selection:
    """The rows of each contact sheet, by (label, split). With many labels each has fewer."""
    cells = label_cells(table)
    count = min(MAX_TILES, max(MIN_TILES, MAX_ALL_TILES // (len(cells) * len(SPLITS))))
    return {
        (label, split): sample_rows(table[rows & (table["split"] == split)], count).index
        for label, rows in cells
        for split in SPLITS
    }


def _rows_of_manufacturers(table: pd.DataFrame) -> Selection:
    """The rows of each histogram, by (kind, manufacturer)."""
    selection = {}
    for kind, part in table.groupby("kind"):
        names = part["manufacturer"].where(part["manufacturer"] != "", "not stated")
        for name in names.value_counts().index[:MAX_MANUFACTURERS]:
            rows = sample_rows(part[names == name], IMAGES_PER_MANUFACTURER)
            selection[str(kind), str(name)] = rows.index
    return selection


def _near_duplicates(manifest: Manifest) -> list[tuple[float, list[Any]]]:
    """(distance, the two rows) of the most similar pairs of the audit, most similar first."""
    audit = manifest.audit[manifest.audit["what"] == "near_duplicate"]
    row_of = {
        key: row for row, key in zip(manifest.table.index, _locations(manifest.table), strict=True)
    }
    pairs = []
    for _, group in audit.groupby(pd.to_numeric(audit["number"])):
        rows = [row_of[key] for key in _locations(group) if key in row_of]
        if len(rows) == 2:
            pairs.append((float(group["distance"].iloc[0]), rows))
    return pairs[:MAX_PAIRS]


def _locations(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(source, path) of each row."""
    return list(zip(table["source"], table["path"], strict=True))


def _all_rows(selections: Iterable[Selection], pairs: list[tuple[float, list[Any]]]) -> list[Any]:
    """Every row that the page shows, once."""
    rows = [row for chosen in selections for index in chosen.values() for row in index]
    return list(dict.fromkeys([*rows, *(row for _, pair in pairs for row in pair)]))


def _tile(table: pd.DataFrame, row: Any, thumbnail: Thumbnail) -> Tile:
    caption = f"{thumbnail.size}, {thumbnail.window}"
    return image_tile(table.loc[row, "image"], caption, jpeg_uri(thumbnail.tile))


def _sheets(
    table: pd.DataFrame, selection: Selection, thumbnails: dict[Any, Thumbnail]
) -> tuple[ContactSheet, ...]:
    sheets = []
    for label, rows in label_cells(table):
        splits = []
        for split in SPLITS:
            tiles = [
                _tile(table, row, thumbnails[row])
                for row in selection[label, split]
                if row in thumbnails
            ]
            count = int((rows & (table["split"] == split)).sum())
            splits.append(SplitSheet(split, count, tuple(tiles)))
        windows = Counter(
            thumbnails[row].window
            for split in SPLITS
            for row in selection[label, split]
            if row in thumbnails
        )
        names = tuple(name for name, _ in windows.most_common(MAX_WINDOWS))
        sheets.append(ContactSheet(label, names, tuple(splits)))
    return tuple(sheets)


def _histograms(
    table: pd.DataFrame, selection: Selection, thumbnails: dict[Any, Thumbnail]
) -> tuple[Histogram, ...]:
    """Per kind of image and manufacturer: the mean share of pixels in each bin; every image has the
    same weight.
    """
    histograms = []
    for kind in sorted(set(table["kind"])):
        lines = []
        for (kind_of_rows, manufacturer), rows in selection.items():
            counts = [thumbnails[row].counts for row in rows if row in thumbnails]
            if kind_of_rows == kind and counts:
                shares = np.mean([c / c.sum() for c in counts], axis=0)
                lines.append(HistogramLine(manufacturer, len(counts), tuple(shares.tolist())))
        if lines:
            low, high = image_kind(kind).display_range
            histograms.append(Histogram(kind, low, high, BINS, tuple(lines)))
    return tuple(histograms)


def _similar_pairs(
    table: pd.DataFrame, pairs: list[tuple[float, list[Any]]], thumbnails: dict[Any, Thumbnail]
) -> tuple[SimilarPair, ...]:
    return tuple(
        SimilarPair(
            distance,
            tuple(table.loc[row, "split"] for row in rows),
            tuple(_tile(table, row, thumbnails[row]) for row in rows),
        )
        for distance, rows in pairs
        if all(row in thumbnails for row in rows)
    )


def _with_examples(
    reasons: Sequence[QuarantineReason], quarantine: pd.DataFrame, workers: int | None
) -> tuple[QuarantineReason, ...]:
    """Each reason with the image of its first file, if it is one of REASONS_WITH_EXAMPLE."""
    with_example = [entry for entry in reasons if entry.reason in REASONS_WITH_EXAMPLE]
    files = [_locations(quarantine.iloc[[entry.row - 2]])[0] for entry in with_example]
    thumbnails = thumbnails_of_files(files, workers=workers)
    images = {
        entry.reason: jpeg_uri(thumbnail.tile)
        for entry, thumbnail in zip(with_example, thumbnails, strict=True)
        if thumbnail is not None
    }
    return tuple(replace(entry, image=images.get(entry.reason, "")) for entry in reasons)
