"""From one read image to the fixed-size integers that training and prediction both consume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data_pipelines.errors import SpecError
from data_pipelines.kinds import image_kind
from data_pipelines.preprocessing.resize import AxisResize, fit_within, resize_image, stretch
from data_pipelines.preprocessing.spec import PreprocessSpec

if TYPE_CHECKING:
    from data_pipelines.pixels.image import Image


def prepare(image: Image, spec: PreprocessSpec) -> np.ndarray:
    """Resize (antialiased) and round one image to integers in model units.

    image: float32 (rows, cols), HU for kind "ct", display values 0..1 for "radiograph"; where its
        pixels are not square, "pad" keeps the proportions of what they show.
    Returns (spec.rows, spec.cols) of spec.dtype. Values beyond the dtype's range are clipped to it.
    Raises SpecError where the image is of another kind than the spec, or holds values that are not
    finite.
    """
    check_units(image, spec)
    return to_integers(resize_image(image.pixels, resize_axes(image, spec), spec.fill), spec)


def resize_axes(image: Image, spec: PreprocessSpec) -> list[AxisResize]:
    """How `prepare` puts the rows and columns of an image onto the spec's grid."""
    sizes, outs = image.pixels.shape, (spec.rows, spec.cols)
    return (
        stretch(sizes, outs)
        if spec.fit == "stretch"
        else fit_within(sizes, (image.aspect, 1.0), outs)
    )


def check_units(image: Image, spec: PreprocessSpec) -> None:
    """Raise SpecError unless the image holds finite values in the spec's unit."""
    if image.units != image_kind(spec.kind).units.name:
        raise SpecError(
            f"preset {spec.name} wants {image_kind(spec.kind).units.name} values, received "
            f"{image.units}: choose "
            f"a preset for it"
        )
    if not (np.isfinite(image.pixels.min()) and np.isfinite(image.pixels.max())):
        raise SpecError("the image holds values that are not finite after the grey-scale transform")


def to_integers(values: NDArray[np.floating], spec: PreprocessSpec) -> np.ndarray:
    """Model units -> prepared integers: rounded, and clipped to the dtype."""
    info, steps = np.iinfo(spec.dtype), values / float(spec.scale)
    np.rint(steps, out=steps)
    return np.clip(steps, info.min, info.max, out=steps).astype(spec.dtype)


def to_model_units(prepared: np.ndarray, spec: PreprocessSpec) -> np.ndarray:
    """Prepared integers (..., *prepared_shape) -> float32 (..., *shape) in model units: HU, or
    display values 0..1.
    """
    values = prepared.astype(np.float32) * spec.scale
    return values if spec.form == "stack" else values[..., np.newaxis]
