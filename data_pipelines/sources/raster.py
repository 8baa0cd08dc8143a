"""Reads a PNG or JPEG file as one grayscale image, or raises the reason why it is not one."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data_pipelines.errors import RasterError

MAX_PIXELS = 1 << 28
GRAY_TOLERANCE = 16  # of 255: how much lossy chroma coding changes a grayscale image
MAX_COLORED_SHARE = 0.02  # of the pixels: an arrow or a marker; who is let in must not hang on one
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
    "colour": "RGB image: convert it to grayscale (the channels differ by more than 16 of 255 in "
    "more than 2 % of the pixels).",
    "format": "The sample format is not supported: save the image as grayscale PNG of 8 or 16 "
    "bits, or as JPEG.",
}


@dataclass(frozen=True)
class RasterImage:
    """A decoded PNG or JPEG.

    pixels: uint8 or uint16 (rows, columns), larger = brighter. lossy: whether it was a JPEG.
    luminance: whether color was converted to luminance: faint color, or a few colored pixels.
    few_colored: whether a few pixels (an arrow, a marker) are colored beyond GRAY_TOLERANCE.
    exif_rotated: whether the image was turned as its EXIF orientation says.
    """

    pixels: np.ndarray
    lossy: bool
    luminance: bool
    exif_rotated: bool
    few_colored: bool = False

    @property
    def changes(self) -> tuple[str, ...]:
        """What was done to the stored samples, as DerivationDescription has it."""
        changes = {
            "turned upright as its EXIF orientation says": self.exif_rotated,
            "faint colour turned to luminance (ITU-R BT.601)": self.luminance
            and not self.few_colored,
            "a few colored pixels turned to luminance (ITU-R BT.601)": self.few_colored,
        }
        return tuple(change for change, done in changes.items() if done)


def read_raster(data: bytes) -> RasterImage:
    """Decode the bytes of a PNG or JPEG file. Raises RasterError, whose `.code` is one of:

    unreadable (damaged, truncated, or another file format), too_large (more than 2^28 pixels),
    several_frames, transparent (at least one pixel), colour (channels differ by more than 16 of
    255 in more than 2 % of the pixels), format (CMYK, or color with 16 bits per channel).
    """
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
                return _to_grayscale(image)
    except UnidentifiedImageError:
        raise _refusal("unreadable") from None
    except Image.DecompressionBombError:
        raise _refusal("too_large") from None
    except _ERRORS:
        raise _refusal("unreadable") from None


def _refusal(code: str) -> RasterError:
    return RasterError(_REASONS[code], code=code)


def _to_grayscale(stored: Image.Image) -> RasterImage:
    lossy = stored.format != "PNG"
    rotated = stored.getexif().get(0x0112, 1) != 1
    image = ImageOps.exif_transpose(stored)
    if image.mode.startswith("I"):  # 16-bit grayscale PNG: modes I;16 and, in older Pillow, I
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise _refusal("format")
        return RasterImage(values.astype(np.uint16), lossy, False, rotated)
    if image.mode in ("1", "L") and "transparency" not in stored.info:
        return RasterImage(np.asarray(image.convert("L")), lossy, False, rotated)
    if image.mode not in ("1", "L", "RGB", "RGBA", "LA", "P", "PA"):
        raise _refusal("format")
    channels = np.asarray(image.convert("RGBA"))
    if channels[..., 3].min() < 255:
        raise _refusal("transparent")
    rgb = channels[..., :3]
    spread = rgb.max(axis=-1) - rgb.min(axis=-1)
    colored = spread > GRAY_TOLERANCE
    if colored.mean() > MAX_COLORED_SHARE:
        raise _refusal("colour")
    if spread.max() == 0:
        return RasterImage(np.ascontiguousarray(rgb[..., 0]), lossy, False, rotated)
    luminance = np.asarray(Image.fromarray(rgb).convert("L"))
    return RasterImage(luminance, lossy, True, rotated, few_colored=bool(colored.any()))
