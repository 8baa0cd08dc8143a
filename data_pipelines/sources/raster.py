"""Reading a PNG or JPEG as one grey image, or saying why it is none."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 1 << 28
GREY_TOLERANCE = 16  # of 255: what chroma coding leaves of a grey picture
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


class RasterError(Exception):
    """The picture is not wrapped; the text is the reason code."""


@dataclass(frozen=True)
class Picture:
    """`pixels`: uint8 or uint16 (rows, cols), larger = brighter. `changes`: what was done to the
    stored samples.
    """

    pixels: np.ndarray
    lossy: bool
    luminance: bool
    changes: tuple[str, ...]


def read_picture(data: bytes) -> Picture:
    """Decode the bytes of a PNG or JPEG file. Raises Skipped with one of

    unreadable (damaged, cut short or no picture), too_large (over 2^28 pixels), several_frames,
    transparent (a pixel is), colour (channels differ by more than 16 of 255), format (another
    format, CMYK, colour of 16 bits a channel).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Pillow warns of sizes and of metadata that it skips; both are handled here
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "MPO")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise RasterError("too_large")
                if getattr(image, "n_frames", 1) > 1:
                    raise RasterError("several_frames")
                if (
                    image.format == "PNG" and data[24] == 16 and data[25] != 0
                ):  # Pillow would drop eight bits of colour
                    raise RasterError("format")
                return _grey(image)
    except UnidentifiedImageError:
        raise RasterError("unreadable") from None
    except Image.DecompressionBombError:
        raise RasterError("too_large") from None
    except _ERRORS:
        raise RasterError("unreadable") from None


def _grey(image: Image.Image) -> Picture:
    lossy = image.format != "PNG"
    changes = []
    upright = ImageOps.exif_transpose(image)
    if image.getexif().get(0x0112, 1) != 1:
        changes.append("turned upright as its EXIF orientation says")
    if upright.mode.startswith("I"):  # 16-bit grey PNG: modes I;16 and, in older Pillow, I
        values = np.asarray(upright)
        if values.min() < 0 or values.max() > 65535:
            raise RasterError("format")
        return Picture(values.astype(np.uint16), lossy, False, tuple(changes))
    if upright.mode in ("1", "L") and "transparency" not in image.info:
        return Picture(np.asarray(upright.convert("L")), lossy, False, tuple(changes))
    if upright.mode not in ("1", "L", "RGB", "RGBA", "LA", "P", "PA"):
        raise RasterError("format")
    channels = np.asarray(upright.convert("RGBA"))
    if channels[..., 3].min() < 255:
        raise RasterError("transparent")
    colour = channels[..., :3]
    spread = int((colour.max(axis=-1) - colour.min(axis=-1)).max())
    if spread > GREY_TOLERANCE:
        raise RasterError("colour")
    if spread == 0:
        return Picture(np.ascontiguousarray(colour[..., 0]), lossy, False, tuple(changes))
    changes.append("faint colour turned to luminance (ITU-R BT.601)")
    luminance = np.asarray(Image.fromarray(colour).convert("L"))
    return Picture(luminance, lossy, True, tuple(changes))
