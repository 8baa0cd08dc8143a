"""From one read image to the fixed-size integers that training and prediction both consume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data_pipelines.errors import SpecError
from data_pipelines.preprocessing.resize import AxisResize, fit_within, resize_image, stretch
from data_pipelines.preprocessing.spec import PreprocessSpec

if TYPE_CHECKING:
    from data_pipelines.pixels.image import Image


def prepare(image: Image, spec: PreprocessSpec) -> np.ndarray:
    """Resize one image (antialiased) and round it to integers in model units.

    image: float32 (rows, columns[, 3]), in the units of the spec's kind. If its pixels are not
        square, "pad" keeps the proportions of the anatomy.
    Returns (spec.rows, spec.cols[, 3]) of spec.dtype. Values beyond its range are clipped to it.
    Raises SpecError if the image has other units than the spec (code wrong_units) or holds values
    that are not finite (code not_finite).
    """
    check_units(image, spec)
    axes = resize_axes(image, spec)
    if image.pixels.ndim == 2:
        return to_integers(resize_image(image.pixels, axes, spec.fill), spec)
    channels = np.moveaxis(image.pixels, -1, 0)
    return to_integers(np.stack([resize_image(c, axes, spec.fill) for c in channels], -1), spec)


def resize_axes(image: Image, spec: PreprocessSpec) -> list[AxisResize]:
    """How `prepare` puts the rows and columns of an image onto the spec's grid."""
    sizes, output_sizes = image.pixels.shape[:2], (spec.rows, spec.cols)
    if spec.fit == "stretch":
        return stretch(sizes, output_sizes)
    return fit_within(sizes, (image.aspect, 1.0), output_sizes)


def check_units(image: Image, spec: PreprocessSpec) -> None:
    """Raise SpecError unless the image holds finite values in the spec's units."""
    expected = spec.image_kind.units.name
    if image.units != expected:
        raise SpecError(
            f"preset {spec.name} needs {expected} values, received {image.units}: choose a preset "
            f"for {image.units} values",
            code="wrong_units",
        )
    if not (np.isfinite(image.pixels.min()) and np.isfinite(image.pixels.max())):
        raise SpecError(
            "the image holds values that are not finite after the grayscale transform: exclude it, "
            "or correct its rescale and window values",
            code="not_finite",
        )


def to_integers(values: NDArray[np.floating], spec: PreprocessSpec) -> np.ndarray:
    """Model units -> prepared integers: rounded, and clipped to the dtype.

    >>> from data_pipelines.preprocessing import spec_from
    >>> to_integers(np.array([-1000.4, 40.6]), spec_from("ct-256"))
    array([-1000,    41], dtype=int16)
    """
    info, steps = np.iinfo(spec.dtype), values / float(spec.scale)
    np.rint(steps, out=steps)
    return np.clip(steps, info.min, info.max, out=steps).astype(spec.dtype)


def to_model_units(prepared: np.ndarray, spec: PreprocessSpec) -> np.ndarray:
    """Prepared integers (..., *spec.prepared_shape) -> float32 (..., *spec.shape) in model units:
    HU, display values 0..1, ...
    """
    values = prepared.astype(np.float32) * spec.scale
    return values if spec.shape == spec.prepared_shape else values[..., np.newaxis]
