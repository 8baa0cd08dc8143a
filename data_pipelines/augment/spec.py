"""What may be drawn: one frozen object of ranges. It is checked when it is made, and against the
data before training starts.
"""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_pipelines.errors import SpecError
from data_pipelines.kinds import UNITS, ModelUnitName, PixelUnits, kind_in_units

EXACT_IN_FLOAT32 = ("float32", "float16", "bfloat16", "int8", "int16", "uint8", "uint16", "bool")
VOLUME_ONLY = ("tilt", "flip_slices")
_WINDOWED = ("contrast", "gamma", "window_centre", "window_width")
#: Fields that change nothing by themselves, and those that mix pairs of images.
_SETTINGS = frozenset({"units", "elastic_cells", "interpolation", "fill", "window", "share"})
_PAIRS = frozenset({"mixup", "cutmix"})


class AugmentSpec(BaseModel):
    """Ranges of the parameters. Each parameter is drawn for each image independently; 0, False and
    None switch it off.

    Symmetric parameters are uniform in -p..p. The degradations (blur, low_resolution, noise,
    quantum, bias, cutout) change each image with probability `share`, independently of each other;
    where they do, they are uniform between nothing and p.

    units: "HU", "display" or "rgb" (0..1, and kept in that range), or "zscore". Additive
        parameters are in these units.

    Geometry, all in one map with one interpolation; the sides are rows and columns, and slices in a
    volume:
    rotation: degrees in the plane, counter-clockwise as displayed.
    tilt: degrees out of the plane, about the column axis and the row axis (volumes only).
    zoom: relative; 0.1 is a scale of 0.9 to 1.1. shear: shift per distance from the center. shift:
        fraction of the side.
    elastic: displacement of the control points of a cubic B-spline, as a fraction of its cell; up
        to 0.4 it cannot fold (Choi & Lee 2000). elastic_cells: cells along each side.
    flip_left_right, flip_up_down, flip_slices: mirror half of the images.
    crop: size of the result, at a random position; None keeps the size.
    pad: pixels by which the image is padded on every side before a crop of its own size is cut out
        at a random position, as He et al. 2016 train on CIFAR-10: a shift by whole pixels.
    interpolation: of images; masks always use the nearest value. fill: value outside the image, in
        model units.

    Intensity:
    offset: additive. scale: relative, about 0 HU (units without bounds only).
    window: the (low, high) values between which contrast, gamma and the jitter of the window act;
        0..1 for display values. contrast: relative, about the middle of the window. gamma: exponent
        exp(-g)..exp(g) inside the window; values outside stay. window_centre, window_width: what a
        window with its center moved by so much, and wider by this fraction, would show.
    blur: sigma in pixels. low_resolution: factor; 1 is none. noise: sigma of white noise.
    saturation: relative; the distance of each channel from the mean of the channels (color only).
    quantum: sigma, at display value 1, of noise that falls with exposure as in a radiograph
        (display only). bias: additive field of low frequency. cutout: side of a filled box, as a
        fraction of the image's side.

    Pairs change labels, so they need `augment_in_pipeline` or `mix`, not the layer:
    mixup, cutmix: alpha of the Beta distribution of the other image's part; at most one of them.

    >>> AugmentSpec(rotation=10, noise=0.01).is_active
    True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    units: ModelUnitName = "display"
    rotation: float = Field(0.0, ge=0, le=180)
    tilt: float = Field(0.0, ge=0, le=90)
    zoom: float = Field(0.0, ge=0, le=0.9)
    shear: float = Field(0.0, ge=0, le=1)
    shift: float = Field(0.0, ge=0, le=1)
    elastic: float = Field(0.0, ge=0, le=0.4)
    elastic_cells: int = Field(4, ge=2, le=16)
    flip_left_right: bool = False
    flip_up_down: bool = False
    flip_slices: bool = False
    crop: tuple[int, ...] | None = None
    pad: int = Field(0, ge=0, le=512)
    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    fill: float = Field(0.0, allow_inf_nan=False)

    offset: float = Field(0.0, ge=0, allow_inf_nan=False)
    scale: float = Field(0.0, ge=0, le=0.5)
    window: tuple[float, float] | None = None
    contrast: float = Field(0.0, ge=0, le=0.9)
    gamma: float = Field(0.0, ge=0, le=2)
    window_centre: float = Field(0.0, ge=0, allow_inf_nan=False)
    window_width: float = Field(0.0, ge=0, le=0.9)
    saturation: float = Field(0.0, ge=0, le=0.9)
    blur: float = Field(0.0, ge=0, le=8)
    low_resolution: float = Field(1.0, ge=1, le=8)
    noise: float = Field(0.0, ge=0, allow_inf_nan=False)
    quantum: float = Field(0.0, ge=0, allow_inf_nan=False)
    bias: float = Field(0.0, ge=0, allow_inf_nan=False)
    cutout: float = Field(0.0, ge=0, le=1)
    share: float = Field(0.5, gt=0, le=1)

    mixup: float = Field(0.0, ge=0, le=10)
    cutmix: float = Field(0.0, ge=0, le=10)

    @model_validator(mode="after")
    def _check_fields_agree(self) -> AugmentSpec:
        bounds = self.unit.bounds
        windowed = [name for name in _WINDOWED if self.is_on(name)]
        if bounds is None and windowed and self.window is None:
            raise ValueError(
                f"{windowed[0]} of {self.units} values needs window=(low, high), the values "
                f"between which it acts"
            )
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError("window must be (low, high) with low below high")
        if bounds is not None and self.window not in (None, bounds):
            raise ValueError(f"{self.units} values have the window {bounds}: leave window out")
        if bounds is None and self.quantum:
            raise ValueError(f"quantum is not for {self.units} values: use noise")
        if bounds is not None and self.scale:
            raise ValueError(f"scale is not for {self.units} values: use contrast")
        if self.saturation and not kind_in_units(self.units).channels > 1:
            raise ValueError(f"saturation is not for {self.units} values: they have no color")
        if self.crop is not None and (len(self.crop) not in (2, 3) or min(self.crop) < 1):
            raise ValueError("crop must be (rows, cols) or (slices, rows, cols), each 1 or more")
        if self.mixup and self.cutmix:
            raise ValueError("give mixup or cutmix, not both")
        return self

    @property
    def unit(self) -> PixelUnits:
        """The units of the images, with their bounds."""
        return UNITS[self.units]

    @property
    def span(self) -> tuple[float, float]:
        """The window, or the bounds of the units: 0..1 for display values."""
        return self.window or self.unit.bounds or (0.0, 1.0)

    @property
    def mixes_pairs(self) -> bool:
        """Whether pairs of images are mixed."""
        return any(self.is_on(name) for name in _PAIRS)

    @property
    def is_active(self) -> bool:
        """Whether anything is drawn for single images."""
        return any(self.is_on(name) for name in type(self).model_fields.keys() - _SETTINGS - _PAIRS)

    def is_on(self, field: str) -> bool:
        """Whether a parameter is switched on."""
        return getattr(self, field) != type(self).model_fields[field].default

    def flips(self, dims: int) -> tuple[bool, ...]:
        """For each axis, whether it is mirrored at random."""
        return (self.flip_slices, self.flip_up_down, self.flip_left_right)[3 - dims :]

    def size(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial size of the result."""
        return self.crop or tuple(spatial)


def check_fits(
    spec: AugmentSpec,
    shape: tuple[int | None, ...],
    dtype: str = "float32",
    spacing: tuple[float, ...] | None = None,
) -> None:
    """Raise SpecError if the spec cannot be applied to images of this shape, (batch, [slices,]
    rows, columns, channels), and dtype.

    Codes: wrong_rank, unknown_size, volumes_only, crop_size, and those of `check_dtype` and
    `check_spacing`.
    """
    if len(shape) not in (4, 5):
        raise SpecError(
            f"augmentation needs images (batch, rows, columns, channels) or (batch, slices, rows, "
            f"columns, channels), received shape {shape}",
            code="wrong_rank",
        )
    if any(size is None for size in shape[1:]):
        raise SpecError(
            f"augmentation needs fixed sizes, received {shape}: fix them in the preprocessing spec",
            code="unknown_size",
        )
    spatial, dims = tuple(size or 0 for size in shape[1:-1]), len(shape) - 2
    only_volumes = [name for name in VOLUME_ONLY if spec.is_on(name)] if dims == 2 else []
    if only_volumes:
        raise SpecError(
            f"{only_volumes[0]} is for volumes, received images {shape[1:]}: set "
            f"{only_volumes[0]} to 0, or use an augmentation for slices",
            code="volumes_only",
        )
    if spec.crop is not None and (
        len(spec.crop) != dims
        or any(crop > side for crop, side in zip(spec.crop, spatial, strict=True))
    ):
        raise SpecError(
            f"crop {spec.crop} does not fit into {spatial}: give {dims} sizes, none larger",
            code="crop_size",
        )
    check_dtype(spec, dtype)
    check_spacing(spacing, dims)


def check_spacing(spacing: tuple[float, ...] | None, dims: int) -> None:
    """Raise SpecError (code spacing) unless spacing is one length in mm for each axis."""
    if spacing is not None and not (
        len(spacing) == dims and all(0 < length < float("inf") for length in spacing)
    ):
        raise SpecError(
            f"spacing needs {dims} lengths in mm, one for each axis, received {spacing}",
            code="spacing",
        )


def check_dtype(spec: AugmentSpec, dtype: str) -> None:
    """Raise SpecError if values of this dtype would be cut, rounded or wrapped.

    Codes: inexact_dtype, unsigned_dtype (HU in unsigned integers), wrong_units (integers that are
    no display values).
    """
    if dtype not in EXACT_IN_FLOAT32:
        raise SpecError(
            f"float32 does not hold all values of {dtype} images: cast them to float32 or int16 "
            f"first",
            code="inexact_dtype",
        )
    if spec.unit.signed and dtype in ("uint8", "uint16", "bool"):
        raise SpecError(
            f"{dtype} cannot hold {spec.units} values below 0: apply the modality transform and "
            f"use int16 or float32",
            code="unsigned_dtype",
        )
    if spec.unit.bounds is not None and "int" in dtype:
        low, high = spec.unit.bounds
        raise SpecError(
            f"{dtype} images do not hold {spec.units} values {low:g}..{high:g}: divide by the full "
            f"scale (data_pipelines.preprocessing.to_model_units)",
            code="wrong_units",
        )


def check_fill(fill: float, dtype: str) -> None:
    """Raise SpecError (code fill) if a mask of this dtype cannot hold the fill value."""
    if dtype == "bool":
        fits = fill in (0, 1)
    elif "int" in dtype:
        info = np.iinfo(dtype)
        fits = float(fill).is_integer() and info.min <= fill <= info.max
    else:
        fits = True
    if not fits:
        raise SpecError(
            f"fill {fill:g} does not fit into a {dtype} mask: use a label that the dtype can hold, "
            f"for instance 0",
            code="fill",
        )


def axis_pairs(dims: int) -> list[tuple[int, int]]:
    """Pairs of axes: one in a plane, three in a volume."""
    return list(itertools.combinations(range(dims), 2))
