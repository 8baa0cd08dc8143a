"""Kinds of images: what their pixel values mean, and every rule that follows from it.

A new kind is one row of `KINDS` (and its name in `KindName`), plus what only it needs: the rule
that recognizes its files, its conversion to model units, and its augmentation preset. No other
module compares the name of a kind or of a unit to decide what to do: it reads a field here.

| kind       | units   | prepared integers                        | fill outside the image |
|------------|---------|------------------------------------------|------------------------|
| ct         | HU      | int16, one step = 1 HU                   | -1024 (air)            |
| radiograph | display | uint16, one step = 1/65535 of the range  | 0 (dark)               |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data_pipelines.errors import SpecError

KindName = Literal["radiograph", "ct"]
UnitName = Literal["HU", "display", "raw"]
DeclaredUnitName = Literal["display", "HU"]
NiftiUnitName = Literal["HU"]
FileFormat = Literal["dicom", "png", "jpeg", "npz", "nifti"]
#: What becomes of an image that is truly in color: it is refused, or its luminance is taken.
ColorRule = Literal["refuse", "luminance"]
#: What one sample is made of: one image, a slice between its neighbors as channels (2.5D), or a
#: volume.
Layout = Literal["image", "stack", "volume"]

AIR_HU = -1024.0
#: the formats whose images have a position in the patient, so that they may form volumes
FORMATS_WITH_POSITION: tuple[FileFormat, ...] = ("dicom", "nifti")


@dataclass(frozen=True)
class PixelUnits:
    """What a pixel value is.

    name: as written in manifests, specs and cards. title: for people. suffix: after a number.
    bounds: limits that every value keeps; None if there are none (HU).
    signed: whether integers of an array in these units may be negative.
    air: the value of air, None where the units do not fix it.
    """

    name: UnitName
    title: str
    suffix: str
    bounds: tuple[float, float] | None
    signed: bool
    air: float | None = None


HU = PixelUnits("HU", "Hounsfield units", " HU", bounds=None, signed=True, air=AIR_HU)
DISPLAY = PixelUnits(
    "display", "display values 0 to 1, bright = dense", "", bounds=(0.0, 1.0), signed=False
)
RAW = PixelUnits("raw", "stored values without a known unit", "", bounds=None, signed=True)
UNITS: dict[str, PixelUnits] = {units.name: units for units in (HU, DISPLAY, RAW)}


@dataclass(frozen=True)
class LayoutDefaults:
    """The defaults for one kind of image in one layout.

    preset: prefix of its preprocessing presets, for instance "ct25d" of "ct25d-256".
    augmentation: name of the augmentation preset that training uses by default.
    """

    preset: str
    augmentation: str


@dataclass(frozen=True, eq=False)
class ImageKind:
    """One kind of image. Immutable; compare with `is`, or read its fields.

    name: as written in manifests, specs and cards.
    units: of pixels after reading and of model inputs.
    dtype, scale, fill: of prepared integers; value = integer * scale; fill is in `units`.
    display_range: in `units`, black to white, for an image that is shown without a window.
    preview_window: center and width, in `units`, of thumbnails; None shows the bounds of the units.
    tissue_range: in `units`, where most tissue lies; synthetic test images span it.
    file_formats: the formats that it can be read from.
    has_windows: whether windows are layers of its models.
    has_orientation_check: whether training learns which way up its images are.
    layouts: the layouts that its images can be prepared in, each with its defaults.
    default_preset: preprocessing preset that training uses by default.
    """

    name: KindName
    units: PixelUnits
    dtype: np.dtype
    scale: np.float32
    fill: float
    display_range: tuple[float, float]
    tissue_range: tuple[float, float]
    preview_window: tuple[float, float] | None
    file_formats: tuple[FileFormat, ...]
    has_windows: bool
    has_orientation_check: bool
    layouts: Mapping[Layout, LayoutDefaults]
    default_preset: str

    @property
    def has_series(self) -> bool:
        """Whether its images are slices that may form a volume."""
        return "volume" in self.layouts


CT = ImageKind(
    name="ct",
    units=HU,
    dtype=np.dtype("<i2"),
    scale=np.float32(1.0),
    fill=AIR_HU,
    display_range=(-1024.0, 1536.0),
    tissue_range=(-1024.0, 1024.0),
    preview_window=(-50.0, 1500.0),  # shows lung and soft tissue
    file_formats=("dicom", "npz", "nifti"),
    has_windows=True,
    has_orientation_check=False,
    layouts={
        "image": LayoutDefaults(preset="ct", augmentation="ct_slice"),
        "stack": LayoutDefaults(preset="ct25d", augmentation="ct_slice"),
        "volume": LayoutDefaults(preset="ctvol", augmentation="ct_volume"),
    },
    default_preset="ct-256",
)
RADIOGRAPH = ImageKind(
    name="radiograph",
    units=DISPLAY,
    dtype=np.dtype("<u2"),
    scale=np.float32(1.0 / 65535.0),
    fill=0.0,
    display_range=(0.0, 1.0),
    tissue_range=(0.0, 1.0),
    preview_window=None,
    file_formats=("dicom", "png", "jpeg", "npz"),
    has_windows=False,
    has_orientation_check=True,
    layouts={"image": LayoutDefaults(preset="xray", augmentation="chest_xray")},
    default_preset="xray-224",
)
KINDS: dict[str, ImageKind] = {kind.name: kind for kind in (CT, RADIOGRAPH)}


def image_kind(name: str) -> ImageKind:
    """The kind with this name. Raises SpecError (code unknown_kind) for an unknown name.

    >>> image_kind("ct").units.name
    'HU'
    """
    if name not in KINDS:
        raise SpecError(
            f"unknown kind of image {name!r}: write {' or '.join(KINDS)}", code="unknown_kind"
        )
    return KINDS[name]


def kind_in_units(units: str) -> ImageKind:
    """The kind whose pixels have these units: HU means CT, display values mean a radiograph.

    Raises SpecError (code unknown_units) if no kind has these units.

    >>> kind_in_units("display").name
    'radiograph'
    """
    kind = next((kind for kind in KINDS.values() if kind.units.name == units), None)
    if kind is None:
        raise SpecError(f"no kind of image has {units!r} values", code="unknown_units")
    return kind


def kinds_with_series() -> tuple[str, ...]:
    """Names of the kinds whose images are slices of a series.

    >>> kinds_with_series()
    ('ct',)
    """
    return tuple(kind.name for kind in KINDS.values() if kind.has_series)
