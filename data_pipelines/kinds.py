"""Kinds of images: what their pixel values mean, and every rule that follows from it.

A new kind is one row of `KINDS`, and what only it needs elsewhere. No other module compares the
name of a kind or of a unit to decide what to do: it reads a field here.

| kind       | units   | prepared integers                        | fill outside the image |
|------------|---------|------------------------------------------|------------------------|
| ct         | HU      | int16, one step = 1 HU                   | -1024 (air)            |
| radiograph | display | uint16, one step = 1/65535 of the range  | 0 (dark)               |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from data_pipelines.errors import SpecError

KindName = Literal["radiograph", "ct"]
UnitName = Literal["HU", "display", "raw"]
DeclaredUnitName = Literal["display", "HU"]
FileFormat = Literal["dicom", "png", "jpeg", "npz"]


@dataclass(frozen=True)
class PixelUnits:
    """What a pixel value is.

    name: as written in manifests, specs and cards. title: for people. suffix: after a number.
    bounds: limits that every value keeps, None where there are none (HU).
    signed: whether integers of an array in these units may be negative.
    """

    name: UnitName
    title: str
    suffix: str
    bounds: tuple[float, float] | None
    signed: bool


HU = PixelUnits("HU", "Hounsfield units", " HU", bounds=None, signed=True)
DISPLAY = PixelUnits(
    "display", "display values 0 to 1, bright = dense", "", bounds=(0.0, 1.0), signed=False
)
RAW = PixelUnits("raw", "stored values without a known unit", "", bounds=None, signed=True)
UNITS: dict[str, PixelUnits] = {units.name: units for units in (HU, DISPLAY, RAW)}


@dataclass(frozen=True)
class ImageKind:
    """One kind of image. Immutable; compare with `is`, or read its fields.

    name: as written in manifests, specs and cards.
    units: of pixels after reading and of model inputs.
    dtype, scale, fill: of prepared integers; value = integer * scale; fill is in `units`.
    display_range: in `units`, black to white, where a page shows an image without a window.
    preview_window: center and width, in `units`, of thumbnails; None shows the bounds of the units.
    file_formats: what it can be read from.
    has_windows: whether windows are layers of its models.
    has_series: whether its images are slices that may form a volume.
    has_orientation_check: whether training learns which way up its images are.
    default_preset, small_augmentation, augmentation, volume_augmentation: what training takes
        where nothing is said.
    """

    name: KindName
    units: PixelUnits
    dtype: np.dtype
    scale: np.float32
    fill: float
    display_range: tuple[float, float]
    preview_window: tuple[float, float] | None
    file_formats: tuple[FileFormat, ...]
    has_windows: bool
    has_series: bool
    has_orientation_check: bool
    default_preset: str


CT = ImageKind(
    name="ct",
    units=HU,
    dtype=np.dtype("<i2"),
    scale=np.float32(1.0),
    fill=-1024.0,
    display_range=(-1024.0, 1536.0),
    preview_window=(-50.0, 1500.0),  # shows lung and soft tissue
    file_formats=("dicom", "npz"),
    has_windows=True,
    has_series=True,
    has_orientation_check=False,
    default_preset="ct-256",
)
RADIOGRAPH = ImageKind(
    name="radiograph",
    units=DISPLAY,
    dtype=np.dtype("<u2"),
    scale=np.float32(1.0 / 65535.0),
    fill=0.0,
    display_range=(0.0, 1.0),
    preview_window=None,
    file_formats=("dicom", "png", "jpeg", "npz"),
    has_windows=False,
    has_series=False,
    has_orientation_check=True,
    default_preset="xray-224",
)
KINDS: dict[str, ImageKind] = {kind.name: kind for kind in (CT, RADIOGRAPH)}


def image_kind(name: str) -> ImageKind:
    """The kind of that name. Raises SpecError for a name that is none.

    >>> image_kind("ct").units.name
    'HU'
    """
    if name not in KINDS:
        raise SpecError(f"unknown kind of image {name!r}: write {' or '.join(KINDS)}")
    return KINDS[name]


def kind_in_units(units: str) -> ImageKind:
    """The kind whose pixels have these units: HU means CT, display values mean a radiograph."""
    return next(kind for kind in KINDS.values() if kind.units.name == units)


def kinds_with_series() -> tuple[str, ...]:
    """Names of the kinds whose images are slices of a series."""
    return tuple(kind.name for kind in KINDS.values() if kind.has_series)
