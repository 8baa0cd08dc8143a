"""`medres inspect`: one page about a work folder, to look at before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.ingestion.manifest import SPLITS, Manifest
from data_pipelines.kinds import image_kind
from data_pipelines.runtime.atomic_files import write_atomic
from data_pipelines.runtime.worker_pool import ProgressCallback
from medres.inspection.dataset_facts import facts, label_cells
from medres.inspection.dataset_page import page
from medres.inspection.thumbnails import (
    BINS,
    Thumbnail,
    sample_rows,
    sheet,
    thumbnails_of_files,
    thumbnails_of_rows,
)

MAX_TILES = 12  # of a contact sheet
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


@dataclass(frozen=True)
class Figure:
    """An image with its caption; `image` is a data URI."""

    caption: str
    image: str


@dataclass(frozen=True)
class Section:
    """A section that the caller adds to the page: a heading, a sentence, figures."""

    title: str
    note: str
    figures: Sequence[Figure] = field(default=())


def inspect(
    work: Path | str,
    out: Path | str | None = None,
    *,
    sections: Sequence[Section] = (),
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> Path:
    """Write the page of a work folder to `out` (default WORK/inspect.html) and return its path.

    The page is one file without network requests, and shows no identifier, path or pseudonym.
    Images are read again from the sources; those that can no longer be read are left out and
    counted. Raises ManifestError if `work` is not a work folder.
    """
    manifest = Manifest.load(work)
    target = Path(work) / "inspect.html" if out is None else Path(out)
    selection = _select(manifest.table)
    pairs = _near_duplicates(manifest)
    rows = manifest.table.loc[_all_rows(selection, pairs)]
    thumbnails = thumbnails_of_rows(rows, workers=workers, progress=progress)
    content: dict[str, Any] = {
        **facts(manifest),
        "sheets": _sheets(manifest.table, selection["sheets"], thumbnails),
        "histograms": _histograms(manifest.table, selection["manufacturers"], thumbnails),
        "pairs": _pair_figures(manifest.table, pairs, thumbnails),
        "unread": len(rows) - len(thumbnails),
    }
    _add_examples(content["quarantine"], manifest.quarantine, workers, progress)
    write_atomic(target, page(content, sections).encode())
    return target


def _select(table: pd.DataFrame) -> dict[str, dict[tuple[str, str], pd.Index]]:
    """The rows of each contact sheet, by (label, split), and of each histogram, by (kind,
    manufacturer).
    """
    sheets = {
        (label, split): sample_rows(table[rows & (table["split"] == split)], MAX_TILES).index
        for label, rows in label_cells(table)
        for split in SPLITS
    }
    manufacturers = {}
    for kind, part in table.groupby("kind"):
        names = part["manufacturer"].where(part["manufacturer"] != "", "not stated")
        for name in names.value_counts().index[:MAX_MANUFACTURERS]:
            rows = sample_rows(part[names == name], IMAGES_PER_MANUFACTURER)
            manufacturers[str(kind), str(name)] = rows.index
    return {"sheets": sheets, "manufacturers": manufacturers}


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


def _all_rows(
    selection: dict[str, dict[tuple[str, str], pd.Index]], pairs: list[tuple[float, list[Any]]]
) -> list[Any]:
    """Every row that the page shows, once."""
    rows = [row for group in selection.values() for index in group.values() for row in index]
    return list(dict.fromkeys([*rows, *(row for _, pair in pairs for row in pair)]))


def _sheets(
    table: pd.DataFrame, selection: dict, thumbnails: dict[Any, Thumbnail]
) -> list[dict[str, Any]]:
    out = []
    for label, rows in label_cells(table):
        splits = []
        for split in SPLITS:
            tiles = [thumbnails[row].tile for row in selection[label, split] if row in thumbnails]
            count = int((rows & (table["split"] == split)).sum())
            splits.append(
                {"split": split, "count": count, "image": sheet(tiles) if tiles else None}
            )
        out.append({"label": label, "splits": splits})
    return out


def _histograms(
    table: pd.DataFrame, selection: dict, thumbnails: dict[Any, Thumbnail]
) -> list[dict[str, Any]]:
    """Per kind of image and manufacturer: the mean share of pixels in each bin; every image has the
    same weight.
    """
    out = []
    for kind, part in table.groupby("kind"):
        lines = []
        for (kind_of_rows, manufacturer), rows in selection.items():
            counts = [thumbnails[row].counts for row in rows if row in thumbnails]
            if kind_of_rows == kind and counts:
                lines.append(
                    {
                        "manufacturer": manufacturer,
                        "images": len(counts),
                        "shares": np.mean([c / c.sum() for c in counts], axis=0).tolist(),
                    }
                )
        low, high = image_kind(str(kind)).display_range
        out.append(
            {
                "kind": str(kind),
                "low": low,
                "high": high,
                "bins": BINS,
                "lines": lines,
                "images": len(part),
            }
        )
    return out


def _pair_figures(
    table: pd.DataFrame, pairs: list[tuple[float, list[Any]]], thumbnails: dict[Any, Thumbnail]
) -> list[dict]:
    return [
        {
            "distance": distance,
            "splits": [table.loc[row, "split"] for row in rows],
            "image": sheet([thumbnails[row].tile for row in rows], columns=2),
        }
        for distance, rows in pairs
        if all(row in thumbnails for row in rows)
    ]


def _add_examples(
    reasons: list[dict[str, Any]],
    quarantine: pd.DataFrame,
    workers: int | None,
    progress: ProgressCallback | None,
) -> None:
    """Add to each reason the image of its first file, or None."""
    for entry in reasons:
        entry["image"] = None
    with_example = [entry for entry in reasons if entry["reason"] in REASONS_WITH_EXAMPLE]
    files = [_locations(quarantine.iloc[[entry["row"] - 2]])[0] for entry in with_example]
    thumbnails = thumbnails_of_files(files, workers=workers, progress=progress)
    for entry, thumbnail in zip(with_example, thumbnails, strict=True):
        entry["image"] = None if thumbnail is None else sheet([thumbnail.tile])
