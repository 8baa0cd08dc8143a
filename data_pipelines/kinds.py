"""Kinds of images: what their pixel values mean, and every rule that follows from it.

A new kind is one row of `KINDS` (and its name in `KindName`), plus what only it needs: the rule
that recognizes its files, its conversion to model units, and its augmentation preset. No other
module compares the name of a kind or of a unit to decide what to do: it reads a field here.

| kind       | units   | prepared integers                        | fill outside the image |
|------------|---------|------------------------------------------|------------------------|
| ct         | HU      | int16, one step = 1 HU                   | -1024 (air)            |
| radiograph | display | uint16, one step = 1/65535 of the range  | 0 (dark)               |
| rgb        | rgb     | uint8, one step = 1/255, three channels  | 0 (black)              |
| mr         | zscore  | int16, one step = 1/1000 of a standard   | 0 (the mean)           |
|            |         | deviation of the volume, within 32       |                        |

Nothing in a file says that it is meant as one of the last two kinds: the user declares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data_pipelines.errors import SpecError

KindName = Literal["radiograph", "ct", "rgb", "mr"]
UnitName = Literal["HU", "display", "raw", "rgb", "zscore"]
#: what the user may declare for PNG, JPEG and .npz
DeclaredUnitName = Literal["display", "HU"]
#: what a model may take
ModelUnitName = Literal["display", "HU", "rgb", "zscore"]
NiftiUnitName = Literal["HU"]
FileFormat = Literal["dicom", "png", "jpeg", "npz", "nifti", "cifar"]
#: What becomes of an image that is truly in color: it is refused, or its luminance is taken.
ColorRule = Literal["refuse", "luminance"]
#: What one sample is made of: one image, a slice between its neighbors as channels (2.5D), or a
#: volume.
Layout = Literal["image", "stack", "volume"]

AIR_HU = -1024.0
#: the formats of files that hold many images
ARRAY_FORMATS: tuple[FileFormat, ...] = ("npz", "cifar")
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
RGB = PixelUnits("rgb", "red, green and blue, each 0 to 1", "", bounds=(0.0, 1.0), signed=False)
ZSCORE = PixelUnits(
    "zscore", "standard deviations of the volume from its mean", " SD", bounds=None, signed=True
)
UNITS: dict[str, PixelUnits] = {units.name: units for units in (HU, DISPLAY, RAW, RGB, ZSCORE)}


@dataclass(frozen=True)
class InputScaling:
    """The first step inside a saved model: value * scale + offset. Three numbers: one per channel.

    name: as written in config.json.
    """

    name: str
    scale: float | tuple[float, ...]
    offset: float | tuple[float, ...]


SIGNED = InputScaling("signed", 2.0, -1.0)  # 0..1 to -1..1
#: mean and standard deviation of ImageNet's channels, as torchvision has them
IMAGENET = InputScaling(
    "imagenet",
    (1 / 0.229, 1 / 0.224, 1 / 0.225),
    (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225),
)
UNCHANGED = InputScaling("none", 1.0, 0.0)
INPUT_SCALINGS: dict[str, InputScaling] = {
    scaling.name: scaling for scaling in (SIGNED, IMAGENET, UNCHANGED)
}


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

    name: as written in manifests, specs and cards. title: for people.
    units: of model inputs, and of pixels after reading, unless `stored_units` says otherwise.
    dtype, scale, fill: of prepared integers; value = integer * scale; fill is in `units`.
    display_range: in `units`, black to white, for an image that is shown without a window.
    preview_window: center and width, in `units`, of thumbnails; None shows the bounds of the units.
    tissue_range: in `units`, where most tissue lies; synthetic test images span it.
    file_formats: the formats that it can be read from.
    has_windows: whether windows are layers of its models.
    has_orientation_check: whether training learns which way up its images are.
    layouts: the layouts that its images can be prepared in, each with its defaults.
    default_preset: preprocessing preset that training uses by default.
    channels: of a pixel. input_scaling: the first step inside its models, where there are no
        windows.
    is_declared: whether its files are read only where the user declares the kind.
    stored_units: of pixels after reading, where each volume is standardized afterwards to `units`;
        None where the units are those of the file.
    modality: of its DICOM files, for made-up ones; '' where it has none.
    has_patients: whether its images show patients; otherwise each image is a unit of its own.
    """

    name: KindName
    title: str
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
    channels: int = 1
    input_scaling: InputScaling = SIGNED
    is_declared: bool = False
    stored_units: PixelUnits | None = None
    modality: str = ""
    has_patients: bool = True

    @property
    def has_series(self) -> bool:
        """Whether its images are slices that may form a volume."""
        return "volume" in self.layouts

    @property
    def is_standardized(self) -> bool:
        """Whether each volume is standardized by its own mean and standard deviation."""
        return self.stored_units is not None

    @property
    def read_units(self) -> PixelUnits:
        """The units of pixels after reading, before a volume is standardized."""
        return self.stored_units or self.units


CT = ImageKind(
    name="ct",
    title="CT",
    modality="CT",
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
    title="radiograph",
    modality="CR",
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
RGB_PICTURE = ImageKind(
    name="rgb",
    title="color picture",
    units=RGB,
    dtype=np.dtype("u1"),
    scale=np.float32(1.0 / 255.0),
    fill=0.0,
    display_range=(0.0, 1.0),
    tissue_range=(0.0, 1.0),
    preview_window=None,
    file_formats=("png", "jpeg", "npz", "cifar"),
    has_windows=False,
    has_orientation_check=True,
    layouts={"image": LayoutDefaults(preset="rgb", augmentation="natural")},
    default_preset="rgb-224",
    channels=3,
    input_scaling=IMAGENET,
    is_declared=True,
    has_patients=False,
)
MR = ImageKind(
    name="mr",
    title="MR",
    modality="MR",
    units=ZSCORE,
    stored_units=RAW,
    dtype=np.dtype("<i2"),
    scale=np.float32(1.0 / 1000.0),
    fill=0.0,
    display_range=(-3.0, 5.0),
    tissue_range=(-2.0, 3.0),
    preview_window=(1.0, 6.0),
    file_formats=("dicom", "nifti"),
    has_windows=False,
    has_orientation_check=False,
    layouts={
        "image": LayoutDefaults(preset="mr", augmentation="mr_slice"),
        "stack": LayoutDefaults(preset="mr25d", augmentation="mr_slice"),
        "volume": LayoutDefaults(preset="mrvol", augmentation="mr_volume"),
    },
    default_preset="mr-256",
    input_scaling=UNCHANGED,
    is_declared=True,
)
KINDS: dict[str, ImageKind] = {kind.name: kind for kind in (CT, RADIOGRAPH, RGB_PICTURE, MR)}


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
    ('ct', 'mr')
    """
    return tuple(kind.name for kind in KINDS.values() if kind.has_series)


def has_patients(name: str) -> bool:
    """Whether the images of a kind show patients.

    >>> has_patients("ct"), has_patients("rgb")
    (True, False)
    """
    return image_kind(name).has_patients


def declared_kinds() -> tuple[str, ...]:
    """Names of the kinds whose files are read only where the user declares the kind.

    >>> declared_kinds()
    ('rgb', 'mr')
    """
    return tuple(kind.name for kind in KINDS.values() if kind.is_declared)


def input_scaling(name: str | None) -> InputScaling:
    """The scaling with this name; None is that of grayscale images.

    Raises SpecError (code unknown_scaling).
    """
    if name is None:
        return SIGNED
    if name not in INPUT_SCALINGS:
        raise SpecError(
            f"unknown input scaling {name!r}: write {' or '.join(INPUT_SCALINGS)}",
            code="unknown_scaling",
        )
    return INPUT_SCALINGS[name]
