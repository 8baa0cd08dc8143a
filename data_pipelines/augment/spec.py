"""What may be drawn: one frozen object of ranges, checked when it is made and against the data
before training starts.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_pipelines.errors import SpecError
from data_pipelines.kinds import DeclaredUnitName

EXACT_IN_FLOAT32 = ("float32", "float16", "bfloat16", "int8", "int16", "uint8", "uint16", "bool")
VOLUME_ONLY = ("tilt", "flip_slices")


class AugmentSpec(BaseModel):
    """Ranges of the parameters, each drawn for each image on its own. 0, False and None switch a
    parameter off.

    Symmetric ones are uniform in -p..p. The degradations (blur, low_resolution, noise, quantum,
    bias, cutout) strike a `share` of the images, each on its own, and are uniform from nothing up
    to p there.

    units: "HU", or "display" (0..1, and kept in that range). Additive parameters are in these
        units.

    Geometry, all in one map and one interpolation; sides are rows and columns, and slices in a
    volume:
    rotation: degrees in the plane, counter-clockwise as displayed. tilt: degrees out of the plane,
        about the column and the row
    axis (volumes only). zoom: relative, 0.1 is a scale of 0.9 to 1.1. shear: shift per distance
    from the centre. shift: fraction of
    the side. elastic: displacement of the control points of a cubic B-spline, fraction of its cell;
    up to 0.4 it cannot fold (Choi &
    Lee 2000). elastic_cells: cells along each side. flip_left_right, flip_up_down, flip_slices:
    mirror half of the images.
    crop: size of the result, at a random place; None keeps the size. interpolation: of images;
        masks are always nearest.
    fill: model units outside the picture.

    Intensity:
    offset: additive. scale: relative, about 0 HU (HU only). window: the (low, high) values between
        which contrast, gamma and the window's jitter act; 0..1 for display values. contrast:
        relative, about the window's middle. gamma: exponent exp(-g)..exp(g) inside the
    window, values outside stay. window_centre, window_width: the image as a window moved by so much
    and wider by such a part
    would show it. blur: sigma in pixels. low_resolution: factor, 1 is none. noise: sigma of white
    noise. quantum: sigma at display value 1 of noise that falls with exposure as in a radiograph
    (display only). bias: additive field of low frequency.
    cutout: side of a filled box, fraction of the image's.

    Pairs (change labels: `augment_in_pipeline` or `mix`, not the layer): mixup, cutmix: alpha of
    the Beta distribution of the other image's part; at most one of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    units: DeclaredUnitName = "display"
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
    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    fill: float = Field(0.0, allow_inf_nan=False)

    offset: float = Field(0.0, ge=0, allow_inf_nan=False)
    scale: float = Field(0.0, ge=0, le=0.5)
    window: tuple[float, float] | None = None
    contrast: float = Field(0.0, ge=0, le=0.9)
    gamma: float = Field(0.0, ge=0, le=2)
    window_centre: float = Field(0.0, ge=0, allow_inf_nan=False)
    window_width: float = Field(0.0, ge=0, le=0.9)
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
    def _agree(self) -> AugmentSpec:
        windowed = [
            name
            for name in ("contrast", "gamma", "window_centre", "window_width")
            if getattr(self, name)
        ]
        if self.units == "HU" and windowed and self.window is None:
            raise ValueError(
                f"{windowed[0]} of HU needs window=(low, high), the HU between which it acts"
            )
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError("window is (low, high) with low below high")
        if self.units == "display" and self.window not in (None, (0.0, 1.0)):
            raise ValueError("display values have the window (0, 1)")
        if self.units == "HU" and self.quantum:
            raise ValueError("quantum is for display values of radiographs; give noise for HU")
        if self.units == "display" and self.scale:
            raise ValueError("scale is for HU; give contrast for display values")
        if self.crop is not None and (len(self.crop) not in (2, 3) or min(self.crop) < 1):
            raise ValueError("crop is (rows, cols) or (slices, rows, cols), each 1 or more")
        if self.mixup and self.cutmix:
            raise ValueError("give mixup or cutmix, not both")
        return self

    @property
    def span(self) -> tuple[float, float]:
        """The window, 0..1 for display values."""
        return self.window or (0.0, 1.0)

    @property
    def mixes(self) -> bool:
        return bool(self.mixup or self.cutmix)

    @property
    def acts(self) -> bool:
        """Is anything drawn for single images?"""
        still = {
            "units",
            "elastic_cells",
            "interpolation",
            "fill",
            "window",
            "share",
            "mixup",
            "cutmix",
        }
        rest = {
            name: field.default
            for name, field in type(self).model_fields.items()
            if name not in still
        }
        return any(getattr(self, name) != default for name, default in rest.items())

    def flips(self, dims: int) -> tuple[bool, ...]:
        """One an axis: is it mirrored at random?"""
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
    """Raise SpecError where the spec cannot be applied to images (batch, [slices,] rows, cols,
    channels) of this dtype.
    """
    if len(shape) not in (4, 5):
        raise SpecError(
            f"augmentation takes (batch, rows, cols, channels) or (batch, slices, rows, cols, "
            f"channels), received {shape}"
        )
    if any(size is None for size in shape[1:]):
        raise SpecError(
            f"augmentation needs fixed sizes, received {shape}: fix them in the preprocessing spec"
        )
    spatial, dims = tuple(size or 0 for size in shape[1:-1]), len(shape) - 2
    wrong = [name for name in VOLUME_ONLY if getattr(spec, name)] if dims == 2 else []
    if wrong:
        raise SpecError(
            f"{wrong[0]} is for volumes, received images {shape[1:]}: leave it out, or use ct_slice"
        )
    if spec.crop is not None and (
        len(spec.crop) != dims or any(c > s for c, s in zip(spec.crop, spatial, strict=True))
    ):
        raise SpecError(
            f"crop {spec.crop} does not fit into {spatial}: give {dims} sizes, none larger"
        )
    check_dtype(spec, dtype)
    check_spacing(spacing, dims)


def check_spacing(spacing: tuple[float, ...] | None, dims: int) -> None:
    """Raise SpecError where spacing is not one length in mm for each axis."""
    if spacing is not None and not (
        len(spacing) == dims and all(0 < length < float("inf") for length in spacing)
    ):
        raise SpecError(f"spacing takes {dims} lengths in mm, one an axis, received {spacing}")


def check_dtype(spec: AugmentSpec, dtype: str) -> None:
    """Raise SpecError where values of this dtype would be cut, rounded or wrapped."""
    if dtype not in EXACT_IN_FLOAT32:
        raise SpecError(
            f"{dtype} images: float32 does not hold all of its values; cast to float32 or int16 "
            f"first"
        )
    if spec.units == "HU" and dtype in ("uint8", "uint16", "bool"):
        raise SpecError(
            f"{dtype} cannot hold HU below 0: apply the modality transform and give int16 or "
            f"float32"
        )
    if spec.units == "display" and "int" in dtype:
        raise SpecError(
            f"{dtype} images are no display values 0..1: divide by the full scale "
            f"(preprocess.to_model_units)"
        )


def check_fill(fill: float, dtype: str) -> None:
    """Raise SpecError where a mask of this dtype cannot hold the fill value."""
    if dtype == "bool":
        fits = fill in (0, 1)
    elif "int" in dtype:
        info = np.iinfo(dtype)
        fits = float(fill).is_integer() and info.min <= fill <= info.max
    else:
        fits = True
    if not fits:
        raise SpecError(
            f"fill {fill:g} does not fit into a mask of {dtype}: give a label that it can hold, "
            f"for instance 0"
        )


def pairs(dims: int) -> list[tuple[int, int]]:
    """Pairs of axes: 1 in the plane, 3 in a volume."""
    return list(itertools.combinations(range(dims), 2))


def first_error(errors: list[Any]) -> str:
    """pydantic's first complaint in one line."""
    where = ".".join(str(part) for part in errors[0]["loc"]) or "spec"
    return (
        f"augmentation, field {where}: {errors[0]['msg'].removeprefix('Value error, ')}; "
        f"received {errors[0]['input']!r}"
    )
