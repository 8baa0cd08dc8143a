"""Small pictures for the page: read in isolated workers, shrunk, laid out in sheets, and their grey
values counted.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image as Pillow

from data_pipelines.errors import DicomError
from data_pipelines.pixels.image import Image, read_image
from data_pipelines.runtime.atomic_files import file_sha256
from data_pipelines.runtime.worker_pool import ProgressCallback, map_isolated
from data_pipelines.sources.image_source import (
    file_format_of,
    npz_image,
    npz_images,
    raster_image,
    read_row,
)

TILE = 112
BINS = 64
RANGE = {"ct": (-1024.0, 1536.0), "radiograph": (0.0, 1.0)}
CT_WINDOW = (-50.0, 1500.0)  # centre and width in HU: lung and soft tissue both show


@dataclass(frozen=True)
class Look:
    """A tile, uint8 (TILE, TILE), and the counts of BINS equal steps of RANGE over the pixels
    inside the image.
    """

    tile: np.ndarray
    counts: np.ndarray


def look_at_rows(
    table: pd.DataFrame, *, workers: int | None = None, progress: ProgressCallback | None = None
) -> dict[Any, Look]:
    """The look of each row of a manifest's table, by its index; rows that cannot be read any more
    are left out.
    """
    columns = ("source", "path", "frame", "form", "kind", "file_sha256")
    items = [tuple(row) for row in table[list(columns)].itertuples(index=False)]
    found = map_isolated(look_at_row, items, workers=workers, progress=progress)
    answers = zip(table.index, found, strict=True)
    return {index: look for index, (_, look) in answers if not isinstance(look, DicomError)}


def look_at_files(
    places: Sequence[tuple[str, str]],
    *,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> list[Look | None]:
    """The look of each (source, path) of the quarantine, None where there is no picture to be
    had.
    """
    return [
        None if isinstance(look, DicomError) else look
        for _, look in map_isolated(peek, list(places), workers=workers, progress=progress)
    ]


def look_at_row(item: tuple[str, str, int, str, str, str]) -> Look:
    """Runs in a worker."""
    source, path, frame, form, kind, sha256 = item
    return _look(read_row(source, path, frame, file_format=form, kind=kind, sha256=sha256), kind)


def peek(place: tuple[str, str]) -> Look:
    """The first frame of a quarantined file, whatever it is; runs in a worker. Raises DicomError
    and what readers raise.
    """
    source, path = place
    file, _, name = path.rpartition("#") if ".npz#" in path else (path, "", "")
    whole = Path(source) / file
    form = file_format_of(whole)
    if form == "npz":
        member = npz_images(whole, file_sha256(whole))[name]
        image = npz_image(member, "HU" if member.pixels.dtype.kind == "i" else "display")
    elif form == "dicom":
        image = read_image(whole)
    else:
        image = raster_image(whole.read_bytes(), "display")
    return _look(image, "ct" if image.units == "HU" else image.kind)


def sheet(tiles: Sequence[np.ndarray], columns: int = 4) -> str:
    """Tiles side by side in rows, as the data address of a JPEG."""
    gap, rows = 3, -(-len(tiles) // columns)
    used = min(columns, len(tiles))
    canvas = np.full((rows * (TILE + gap) - gap, used * (TILE + gap) - gap), 40, np.uint8)
    for n, tile in enumerate(tiles):
        top, left = (n // columns) * (TILE + gap), (n % columns) * (TILE + gap)
        canvas[top : top + TILE, left : left + TILE] = tile
    data = io.BytesIO()
    Pillow.fromarray(canvas).save(data, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def sample(table: pd.DataFrame, count: int, *, seed: int = 0) -> pd.DataFrame:
    """Up to `count` rows drawn at random, of as many patients as there are; of a CT series its
    middle slice first.
    """
    random = np.random.default_rng(seed).permutation(len(table))
    middle = table.groupby("series")["order"].transform("median")
    shuffled = (
        table.assign(away=(table["order"] - middle).abs())
        .iloc[random]
        .sort_values("away", kind="stable")
    )
    turn = shuffled.groupby("patient").cumcount()
    return table.loc[shuffled.assign(turn=turn).sort_values("turn", kind="stable").index[:count]]


def _look(image: Image, kind: str) -> Look:
    low, high = RANGE.get(kind, (0.0, 1.0))
    inside = (
        image.pixels
        if image.padding is None or image.padding.all()
        else image.pixels[~image.padding]
    )
    counts, _ = np.histogram(np.clip(inside, low, high), BINS, (low, high))
    return Look(_tile(_grey(image)), counts)


def _grey(image: Image) -> np.ndarray:
    """uint8 of the whole picture: a wide window for HU, display values as they are, anything else
    from min to max.
    """
    values = image.pixels.astype(np.float64)
    if image.units == "HU":
        low, high = CT_WINDOW[0] - CT_WINDOW[1] / 2, CT_WINDOW[0] + CT_WINDOW[1] / 2
    else:
        low, high = (
            (0.0, 1.0) if image.units == "display" else (float(values.min()), float(values.max()))
        )
    return np.rint(255 * np.clip((values - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8)


def _tile(grey: np.ndarray) -> np.ndarray:
    """Fitted into TILE x TILE; a picture smaller than that keeps its pixels as squares."""
    rows, cols = grey.shape
    ratio = TILE / max(rows, cols)
    size = (max(1, round(cols * ratio)), max(1, round(rows * ratio)))
    how = Pillow.Resampling.NEAREST if ratio >= 1 else Pillow.Resampling.BOX
    fitted = np.asarray(Pillow.fromarray(grey).resize(size, how))
    out = np.zeros((TILE, TILE), np.uint8)
    top, left = (TILE - size[1]) // 2, (TILE - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = fitted
    return out
