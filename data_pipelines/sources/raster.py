"""Reads a PNG or JPEG file as one grayscale image or as one color picture, or raises the reason why
it is neither.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data_pipelines.errors import ColourImage, DecodeFailed, RasterError
from data_pipelines.kinds import ColorRule
from data_pipelines.pixels.jpeg_scan import check_jpeg_scan
from data_pipelines.pixels.luminance import Change, luminance_of

MAX_PIXELS = 1 << 28
_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    IndexError,
    struct.error,
    zlib.error,
    MemoryError,
)
_REASONS = {
    "unreadable": "The image is damaged or truncated. Fetch it again.",
    "too_large": "The image has more than 2^28 pixels.",
    "several_frames": "The file has several frames. Save each of them as a separate image.",
    "transparent": "The image has transparent pixels: their values are unknown.",
    "format": "The sample format is not supported: save the image as grayscale PNG of 8 or 16 "
    "bits, or as JPEG.",
}


@dataclass(frozen=True)
class RasterImage:
    """A decoded PNG or JPEG.

    pixels: uint8 or uint16 (rows, columns), larger = brighter; of a color picture uint8 (rows,
    columns, 3). lossy: whether it was a JPEG.
    change: the repair code of color that was converted to luminance, see luminance_of; or
    gray_to_color.
    exif_rotated: whether the image was turned as its EXIF orientation says.
    """

    pixels: np.ndarray
    lossy: bool
    change: Change | Literal["gray_to_color"]
    exif_rotated: bool

    @property
    def luminance(self) -> bool:
        """Whether color was converted to luminance."""
        return bool(self.change)

    @property
    def few_colored(self) -> bool:
        """Whether a few pixels (an arrow, a marker) are colored."""
        return self.change == "few_colored_pixels"

    @property
    def changes(self) -> tuple[str, ...]:
        """What was done to the stored samples, as DerivationDescription has it."""
        changes = {
            "turned upright as its EXIF orientation says": self.exif_rotated,
            "faint colour turned to luminance (ITU-R BT.601)": self.change == "faint_colour",
            "colour turned to luminance (ITU-R BT.601)": self.change == "color_to_luminance",
            "a few colored pixels turned to luminance (ITU-R BT.601)": self.few_colored,
        }
        return tuple(change for change, done in changes.items() if done)


def read_raster(data: bytes, *, color: ColorRule = "refuse") -> RasterImage:
    """Decode the bytes of a PNG or JPEG file. color: "luminance" takes the luminance of an image
    that is truly in color. Raises RasterError, whose `.code` is one of:

    unreadable (damaged, truncated, or another file format), too_large (more than 2^28 pixels),
    several_frames, transparent (at least one pixel), colour (channels differ by more than 16 of
    255 in more than 2 % of the pixels), format (CMYK, or color with 16 bits per channel).
    """
    return _read(data, lambda image: _to_grayscale(image, color))


def read_color_raster(data: bytes) -> RasterImage:
    """Decode the bytes of a PNG or JPEG file as a color picture of 8 bits per channel.

    The picture is turned upright as its EXIF orientation says. A gray picture gets three equal
    channels (change gray_to_color), a palette its colors; an alpha channel is dropped where all
    pixels are opaque. Raises RasterError as `read_raster`, with format for CMYK and for 16 bits.
    """
    return _read(data, _to_color)


def _read(data: bytes, convert: Callable[[Image.Image], RasterImage]) -> RasterImage:
    try:
        with warnings.catch_warnings():
            # Pillow warns about sizes and about metadata that it skips; both are checked here
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "MPO")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _refusal("too_large")
                if getattr(image, "n_frames", 1) > 1:
                    raise _refusal("several_frames")
                if image.format == "PNG" and data[24] == 16 and data[25] != 0:
                    # Pillow would drop eight bits of a 16-bit color image
                    raise _refusal("format")
                if image.format != "PNG":
                    check_jpeg_scan(data)
                return convert(image)
    except UnidentifiedImageError:
        raise _refusal("unreadable") from None
    except Image.DecompressionBombError:
        raise _refusal("too_large") from None
    except DecodeFailed:  # Pillow fills in what is missing, and says nothing
        raise _refusal("unreadable") from None
    except _ERRORS:
        raise _refusal("unreadable") from None


def _refusal(code: str) -> RasterError:
    return RasterError(_REASONS[code], code=code)


def _to_grayscale(stored: Image.Image, color: ColorRule) -> RasterImage:
    lossy = stored.format != "PNG"
    rotated = stored.getexif().get(0x0112, 1) != 1
    image = ImageOps.exif_transpose(stored)
    if image.mode.startswith("I"):  # 16-bit grayscale PNG: modes I;16 and, in older Pillow, I
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise _refusal("format")
        return RasterImage(values.astype(np.uint16), lossy, "", rotated)
    if image.mode in ("1", "L") and "transparency" not in stored.info:
        return RasterImage(np.asarray(image.convert("L")), lossy, "", rotated)
    if image.mode not in ("1", "L", "RGB", "RGBA", "LA", "P", "PA"):
        raise _refusal("format")
    channels = np.asarray(image.convert("RGBA"))
    if channels[..., 3].min() < 255:
        raise _refusal("transparent")
    try:
        values, change = luminance_of(channels[..., :3], color=color)
    except ColourImage as error:
        raise RasterError(str(error), code=error.code) from None
    return RasterImage(values, lossy, change, rotated)


def _to_color(stored: Image.Image) -> RasterImage:
    rotated = stored.getexif().get(0x0112, 1) != 1
    image = ImageOps.exif_transpose(stored)
    if image.mode not in ("1", "L", "RGB", "RGBA", "LA", "P", "PA"):
        raise _refusal("format")
    channels = np.asarray(image.convert("RGBA"))
    if channels[..., 3].min() < 255:
        raise _refusal("transparent")
    is_gray = image.mode in ("1", "L", "LA")
    pixels = np.ascontiguousarray(channels[..., :3])
    change: Literal["", "gray_to_color"] = "gray_to_color" if is_gray else ""
    return RasterImage(pixels, stored.format != "PNG", change, rotated)
