"""`medres inspect`: one page that shows a work folder to people before they train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.ingestion.manifest import SPLITS, Manifest
from data_pipelines.runtime.atomic_files import write_atomic
from data_pipelines.runtime.worker_pool import ProgressCallback
from medres.inspection.dataset_facts import facts, label_cells
from medres.inspection.dataset_page import page
from medres.inspection.thumbnails import (
    BINS,
    RANGE,
    Look,
    look_at_files,
    look_at_rows,
    sample,
    sheet,
)

TILES = 12  # a contact sheet
PER_MAKER = 40  # images behind a histogram
MAKERS = 6
EXAMPLES = 6  # pairs of the audit
#: reasons whose pictures can hold no text or face that the header warns of
SHOWN = frozenset(
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
    """A picture with what it shows; `image` is a data address."""

    caption: str
    image: str


@dataclass(frozen=True)
class Section:
    """A part of the page that another room adds: a heading, a sentence, figures."""

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

    The page is one file without a request to anywhere, and shows no identifier, path or pseudonym.
    Images are read again from the sources; those that cannot be read any more are left out and
    counted. Raises ManifestError where WORK is none.
    """
    manifest = Manifest.load(work)
    target = Path(work) / "inspect.html" if out is None else Path(out)
    chosen = _choose(manifest.table)
    pairs = _pairs(manifest)
    wanted = manifest.table.loc[_wanted(chosen, pairs)]
    looks = look_at_rows(wanted, workers=workers, progress=progress)
    shown: dict[str, Any] = {
        **facts(manifest),
        "sheets": _sheets(manifest.table, chosen["sheets"], looks),
        "histograms": _histograms(manifest.table, chosen["makers"], looks),
        "pairs": _pair_figures(manifest.table, pairs, looks),
        "unread": len(wanted) - len(looks),
    }
    _add_examples(shown["quarantine"], manifest.quarantine, workers, progress)
    write_atomic(target, page(shown, sections).encode())
    return target


def _choose(table: pd.DataFrame) -> dict[str, dict[tuple[str, str], pd.Index]]:
    """The rows of each contact sheet, by (label, split), and of each histogram, by (kind,
    manufacturer).
    """
    sheets = {
        (label, split): sample(table[rows & (table["split"] == split)], TILES).index
        for label, rows in label_cells(table)
        for split in SPLITS
    }
    makers = {}
    for kind, part in table.groupby("kind"):
        names = part["manufacturer"].where(part["manufacturer"] != "", "not stated")
        for name in names.value_counts().index[:MAKERS]:
            makers[str(kind), str(name)] = sample(part[names == name], PER_MAKER).index
    return {"sheets": sheets, "makers": makers}


def _pairs(manifest: Manifest) -> list[tuple[float, list[Any]]]:
    """(distance, rows) of the nearest pairs that look alike."""
    audit = manifest.audit[manifest.audit["what"] == "near_duplicate"]
    place = {
        key: row for row, key in zip(manifest.table.index, _places(manifest.table), strict=True)
    }
    found = []
    for _, group in audit.groupby(pd.to_numeric(audit["number"])):
        rows = [place[key] for key in _places(group) if key in place]
        if len(rows) == 2:
            found.append((float(group["distance"].iloc[0]), rows))
    return found[:EXAMPLES]


def _places(table: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(table["source"], table["path"], strict=True))


def _wanted(
    chosen: dict[str, dict[tuple[str, str], pd.Index]], pairs: list[tuple[float, list[Any]]]
) -> list[Any]:
    rows = [row for group in chosen.values() for index in group.values() for row in index]
    return list(dict.fromkeys([*rows, *(row for _, two in pairs for row in two)]))


def _sheets(table: pd.DataFrame, chosen: dict, looks: dict[Any, Look]) -> list[dict[str, Any]]:
    out = []
    for label, rows in label_cells(table):
        splits = []
        for split in SPLITS:
            tiles = [looks[row].tile for row in chosen[label, split] if row in looks]
            count = int((rows & (table["split"] == split)).sum())
            splits.append(
                {"split": split, "count": count, "image": sheet(tiles) if tiles else None}
            )
        out.append({"label": label, "splits": splits})
    return out


def _histograms(table: pd.DataFrame, chosen: dict, looks: dict[Any, Look]) -> list[dict[str, Any]]:
    """By kind: for each manufacturer the mean share of pixels in each bin, every image counting the
    same.
    """
    out = []
    for kind, part in table.groupby("kind"):
        lines = []
        for (of_kind, maker), rows in chosen.items():
            counts = [looks[row].counts / looks[row].counts.sum() for row in rows if row in looks]
            if of_kind == kind and counts:
                lines.append(
                    {
                        "maker": maker,
                        "images": len(counts),
                        "shares": np.mean(counts, axis=0).tolist(),
                    }
                )
        low, high = RANGE[str(kind)]
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
    table: pd.DataFrame, pairs: list[tuple[float, list[Any]]], looks: dict[Any, Look]
) -> list[dict]:
    return [
        {
            "distance": distance,
            "splits": [table.loc[row, "split"] for row in rows],
            "image": sheet([looks[row].tile for row in rows], columns=2),
        }
        for distance, rows in pairs
        if all(row in looks for row in rows)
    ]


def _add_examples(
    reasons: list[dict[str, Any]],
    quarantine: pd.DataFrame,
    workers: int | None,
    progress: ProgressCallback | None,
) -> None:
    """Give each reason that may be shown the picture of its first file."""
    shown = [one for one in reasons if one["reason"] in SHOWN]
    places = [_places(quarantine.iloc[[one["row"] - 2]])[0] for one in shown]
    for one in reasons:
        one["image"] = None
    looks = look_at_files(places, workers=workers, progress=progress)
    for one, look in zip(shown, looks, strict=True):
        one["image"] = None if look is None else sheet([look.tile])
