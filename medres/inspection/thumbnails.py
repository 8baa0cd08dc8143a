"""Tiles of the page: images are read in isolated workers and reduced, and their gray values are
counted.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image as Pillow

from data_pipelines.cache.plan import file_refs
from data_pipelines.cache.worker import FileRef
from data_pipelines.errors import DicomError
from data_pipelines.kinds import DISPLAY, HU, kind_in_units
from data_pipelines.pixels.image import Image, read_image
from data_pipelines.runtime.object_stores import joined
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
from medres.inspection.display_windows import (
    Window,
    caption,
    chosen_window,
    to_gray,
    window_of_image,
)

TILE = 320  # pixels along the longer side; the page shows tiles smaller until they are opened
BINS = 64  # of the histogram
MAX_TILE_BYTES = 14_000  # of a JPEG; a noisy image gets a lower quality
_QUALITIES = (80, 65, 50, 35)


class TileItem(NamedTuple):
    """An image of the manifest, and the window that was chosen for it (None: that of its file)."""

    file: FileRef
    window: Window | None


@dataclass(frozen=True)
class Thumbnail:
    """tile: uint8 (rows, columns[, 3]), at most TILE along each side. counts: histogram of the
    pixels inside the image, with BINS equal bins over the display range of its kind. size: rows x
    columns, for people. window: how it is shown, for people.
    """

    tile: np.ndarray
    counts: np.ndarray
    size: str = ""
    window: str = ""


def thumbnails_of_rows(
    table: pd.DataFrame,
    *,
    window: Window | None = None,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> dict[Any, Thumbnail]:
    """The thumbnail of each row of a manifest's table, by its index. Rows whose file can no longer
    be read are left out. window: for CT, instead of that of the body part.
    """
    windows = [
        chosen_window(kind, body_part, window)
        for kind, body_part in zip(table["kind"], table["body_part"], strict=True)
    ]
    items = [TileItem(*pair) for pair in zip(file_refs(table), windows, strict=True)]
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


def thumbnail_of_row(item: TileItem) -> Thumbnail:
    """Read one row of the manifest; runs in a worker."""
    source, path, frame, file_format, kind, sha256, standard = item.file
    image = read_row(
        source,
        path,
        frame,
        file_format=file_format,
        kind=kind,
        sha256=sha256,
        standard=standard,
    )
    stored = joined(source, path) if file_format == "dicom" else None
    return _thumbnail(image, item.window or window_of_image(image, stored))


def thumbnail_of_file(location: tuple[str, str]) -> Thumbnail:
    """Read the first frame of a quarantined file of any format, of color its luminance; runs in a
    worker. Raises DicomError and the exceptions of the readers.
    """
    source, path = location
    file, _, name = path.rpartition("#") if ".npz#" in path else (path, "", "")
    whole = joined(source, file)
    form, stored = file_format_of(whole), None
    if form == "npz":
        member = parse_npz(read_source(whole))[name]
        image = npz_image(member, HU.name if member.pixels.dtype.kind == "i" else DISPLAY.name)
    elif form == "nifti":
        volume = read_nifti(whole)
        image = nifti_image(volume, len(volume.array) // 2, HU.name)
    elif form == "dicom":
        image, stored = read_image(whole, color="luminance"), whole
    else:
        image = raster_image(read_source(whole), DISPLAY.name, color="luminance")
    return _thumbnail(image, window_of_image(image, stored))


def jpeg_uri(pixels: np.ndarray) -> str:
    """An image, uint8 (rows, columns[, 3]), as the data URI of a JPEG of about MAX_TILE_BYTES at
    most.
    """
    for quality in _QUALITIES:
        data = io.BytesIO()
        options = {"subsampling": 0} if pixels.ndim == 3 else {}  # thin marks keep their color
        Pillow.fromarray(pixels).save(data, "JPEG", quality=quality, optimize=True, **options)
        if data.tell() <= MAX_TILE_BYTES:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def fitted(pixels: np.ndarray, aspect: float = 1.0) -> np.ndarray:
    """An image uint8 (rows, columns[, 3]) with at most TILE pixels along each side. aspect: height
    of a pixel divided by its width. Pixels of a small image become squares.
    """
    rows, cols = pixels.shape[:2]
    height = rows * aspect
    ratio = TILE / max(height, cols)
    size = (max(1, round(cols * ratio)), max(1, round(height * ratio)))
    resampling = Pillow.Resampling.NEAREST if ratio >= 1 else Pillow.Resampling.BOX
    return np.asarray(Pillow.fromarray(pixels).resize(size, resampling))


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


def _thumbnail(image: Image, window: Window | None) -> Thumbnail:
    low, high = _display_range(image)
    inside = (
        image.pixels
        if image.padding is None or image.padding.all()
        else image.pixels[~image.padding]
    )
    counts, _ = np.histogram(np.clip(inside, low, high), BINS, (low, high))
    rows, cols = image.pixels.shape[:2]
    tile = fitted(to_gray(image, window), image.aspect)
    return Thumbnail(tile, counts, f"{rows} × {cols} pixels", caption(image, window))


def _display_range(image: Image) -> tuple[float, float]:
    """Of the kind that has these units; 0 to 1 where none has."""
    try:
        return kind_in_units(image.units).display_range
    except DicomError:
        return 0.0, 1.0
