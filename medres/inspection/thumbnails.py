"""Thumbnails for the page: images are read in isolated workers, reduced and arranged in contact
sheets, and their gray values are counted.
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
from data_pipelines.kinds import DISPLAY, HU, KINDS, UNITS
from data_pipelines.pixels.image import Image, read_image
from data_pipelines.runtime.storage import read_source
from data_pipelines.runtime.worker_pool import ProgressCallback, map_isolated
from data_pipelines.sources.image_source import (
    file_format_of,
    npz_image,
    parse_npz,
    raster_image,
    read_row,
)
from data_pipelines.sources.nifti import nifti_image, read_nifti

TILE = 112  # pixels along each side
BINS = 64  # of the histogram

_KINDS_BY_UNITS = {kind.units.name: kind for kind in KINDS.values()}


@dataclass(frozen=True)
class Thumbnail:
    """tile: uint8 (TILE, TILE). counts: histogram of the pixels inside the image, with BINS equal
    bins over the display range of its kind.
    """

    tile: np.ndarray
    counts: np.ndarray


def thumbnails_of_rows(
    table: pd.DataFrame, *, workers: int | None = None, progress: ProgressCallback | None = None
) -> dict[Any, Thumbnail]:
    """The thumbnail of each row of a manifest's table, by its index. Rows whose file can no longer
    be read are left out.
    """
    columns = ("source", "path", "frame", "form", "kind", "file_sha256")
    items = [tuple(row) for row in table[list(columns)].itertuples(index=False)]
    results = map_isolated(thumbnail_of_row, items, workers=workers, progress=progress)
    return {
        index: result
        for index, (_, result) in zip(table.index, results, strict=True)
        if not isinstance(result, DicomError)
    }


def thumbnails_of_files(
    files: Sequence[tuple[str, str]],
    *,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> list[Thumbnail | None]:
    """The thumbnail of each (source, path) of the quarantine, or None if the file holds no readable
    image.
    """
    return [
        None if isinstance(result, DicomError) else result
        for _, result in map_isolated(
            thumbnail_of_file, list(files), workers=workers, progress=progress
        )
    ]


def thumbnail_of_row(item: tuple[str, str, int, str, str, str]) -> Thumbnail:
    """Read one row of the manifest; runs in a worker."""
    source, path, frame, file_format, kind, sha256 = item
    return _thumbnail(
        read_row(source, path, frame, file_format=file_format, kind=kind, sha256=sha256)
    )


def thumbnail_of_file(location: tuple[str, str]) -> Thumbnail:
    """Read the first frame of a quarantined file of any format; runs in a worker. Raises DicomError
    and the exceptions of the readers.
    """
    source, path = location
    file, _, name = path.rpartition("#") if ".npz#" in path else (path, "", "")
    whole = Path(source) / file
    form = file_format_of(whole)
    if form == "npz":
        member = parse_npz(read_source(whole))[name]
        image = npz_image(member, HU.name if member.pixels.dtype.kind == "i" else DISPLAY.name)
    elif form == "nifti":
        volume = read_nifti(whole)
        image = nifti_image(volume, len(volume.array) // 2, HU.name)
    elif form == "dicom":
        image = read_image(whole)
    else:
        image = raster_image(read_source(whole), DISPLAY.name)
    return _thumbnail(image)


def sheet(tiles: Sequence[np.ndarray], columns: int = 4) -> str:
    """Tiles (TILE, TILE) arranged in rows, as the data URI of a JPEG."""
    gap, rows = 3, -(-len(tiles) // columns)
    used = min(columns, len(tiles))
    canvas = np.full((rows * (TILE + gap) - gap, used * (TILE + gap) - gap), 40, np.uint8)
    for n, tile in enumerate(tiles):
        top, left = (n // columns) * (TILE + gap), (n % columns) * (TILE + gap)
        canvas[top : top + TILE, left : left + TILE] = tile
    data = io.BytesIO()
    Pillow.fromarray(canvas).save(data, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def sample_rows(table: pd.DataFrame, count: int, *, seed: int = 0) -> pd.DataFrame:
    """Up to `count` random rows of as many patients as possible; the middle slice of a series comes
    first.
    """
    random = np.random.default_rng(seed).permutation(len(table))
    middle = table.groupby("series")["order"].transform("median")
    shuffled = (
        table.assign(distance=(table["order"] - middle).abs())
        .iloc[random]
        .sort_values("distance", kind="stable")
    )
    rank = shuffled.groupby("patient").cumcount()  # 0 for the first image of each patient
    return table.loc[shuffled.assign(rank=rank).sort_values("rank", kind="stable").index[:count]]


def _thumbnail(image: Image) -> Thumbnail:
    kind = _KINDS_BY_UNITS.get(image.units)
    low, high = (0.0, 1.0) if kind is None else kind.display_range
    inside = (
        image.pixels
        if image.padding is None or image.padding.all()
        else image.pixels[~image.padding]
    )
    counts, _ = np.histogram(np.clip(inside, low, high), BINS, (low, high))
    return Thumbnail(_tile(_gray(image)), counts)


def _gray(image: Image) -> np.ndarray:
    """The whole image as uint8: by the preview window of its kind, else by the bounds of its units,
    else from minimum to maximum.
    """
    values = image.pixels.astype(np.float64)
    kind = _KINDS_BY_UNITS.get(image.units)
    if kind is not None and kind.preview_window is not None:
        center, width = kind.preview_window
        low, high = center - width / 2, center + width / 2
    else:
        low, high = UNITS[image.units].bounds or (float(values.min()), float(values.max()))
    return np.rint(255 * np.clip((values - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8)


def _tile(gray: np.ndarray) -> np.ndarray:
    """The image fitted into TILE x TILE; the pixels of a smaller image become squares."""
    rows, cols = gray.shape
    ratio = TILE / max(rows, cols)
    size = (max(1, round(cols * ratio)), max(1, round(rows * ratio)))
    resampling = Pillow.Resampling.NEAREST if ratio >= 1 else Pillow.Resampling.BOX
    fitted = np.asarray(Pillow.fromarray(gray).resize(size, resampling))
    out = np.zeros((TILE, TILE), np.uint8)
    top, left = (TILE - size[1]) // 2, (TILE - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = fitted
    return out
