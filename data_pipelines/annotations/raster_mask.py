"""Reads a PNG label map: the stored values are the labels. A palette is only how they are shown."""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from data_pipelines.annotations.label_map import ClassNames, label_map_of
from data_pipelines.annotations.raw_mask import RawMask
from data_pipelines.dicom.reader import PARSER_ERRORS
from data_pipelines.errors import AnnotationError, LimitExceeded, Unreadable
from data_pipelines.sources.raster import MAX_PIXELS

_LABEL_MODES = ("1", "L", "P", "I", "I;16", "I;16B")


def read_raster_mask(data: bytes, names: ClassNames) -> RawMask:
    """The bytes of a PNG of 1, 8 or 16 bits, grayscale or with a palette, as a mask of one slice.

    Raises Unreadable; LimitExceeded (limit_exceeded); AnnotationError: mask_format (not a PNG),
    lossy_mask (a JPEG, whose values are not those that were drawn), mask_color (RGB: which color is
    which class is unknown), several_frames; and the errors of `label_map_of`.
    """
    return RawMask(label_map_of(raster_labels(data)[np.newaxis], names))


def raster_labels(data: bytes) -> NDArray:
    """The labels of a PNG, int32 (rows, columns). Raises as `read_raster_mask`."""
    if data[:3] == b"\xff\xd8\xff":
        raise AnnotationError(
            "The mask is a JPEG: its values are not exactly those that were drawn. Export it as "
            "PNG.",
            code="lossy_mask",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of sizes, which are checked here
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                return _checked(image)
    except UnidentifiedImageError:
        raise AnnotationError(
            "The mask is none of the formats that are read: PNG, NIfTI, DICOM SEG and RTSTRUCT.",
            code="mask_format",
        ) from None
    except Image.DecompressionBombError:
        raise LimitExceeded(f"The mask has more than {MAX_PIXELS} pixels.") from None
    except (*PARSER_ERRORS, SyntaxError) as error:
        raise Unreadable(
            f"The mask cannot be read ({type(error).__name__}). Fetch it again."
        ) from None


def _checked(image: Image.Image) -> NDArray:
    if image.width * image.height > MAX_PIXELS:
        raise LimitExceeded(f"The mask has more than {MAX_PIXELS} pixels.")
    if getattr(image, "n_frames", 1) > 1:
        raise AnnotationError("The mask has several frames.", code="several_frames")
    if image.mode not in _LABEL_MODES:
        raise AnnotationError(
            f"The mask is a color image ({image.mode}): which color is which class is unknown. "
            f"Save it with a palette, or one file per class.",
            code="mask_color",
        )
    return np.asarray(image).astype(np.int32)
