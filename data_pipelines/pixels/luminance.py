"""The gray values of a color image: one rule for DICOM, PNG and JPEG.

Who is let in must not depend on the label: an arrow, a marker or the chroma noise of a JPEG does
not make a radiograph a color image. ITU-R BT.601 luminance.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipelines.errors import ColourImage
from data_pipelines.kinds import ColorRule

GRAY_TOLERANCE = 16  # of 255: how much lossy chroma coding changes a grayscale image
MAX_COLORED_SHARE = 0.02  # of the pixels: an arrow or a marker
#: BT.601 in 16-bit fixed point, as Pillow has it; the sum is 2^16
_WEIGHTS = np.array([19595, 38470, 7471], np.uint32)

#: repair codes: channels that differ within the tolerance; a few pixels beyond it; more of them,
#: where color is allowed
Change = Literal["", "faint_colour", "few_colored_pixels", "color_to_luminance"]


class Luminance(NamedTuple):
    """values: (rows, columns), in the dtype of the channels. change: a repair code, '' where all
    channels are equal.
    """

    values: NDArray[np.integer]
    change: Change


def luminance_of(
    rgb: NDArray[np.integer], *, maximum: int = 255, color: ColorRule = "refuse"
) -> Luminance:
    """The luminance of an image whose channels agree, or of any image with color="luminance".

    rgb: uint8 or uint16 (rows, columns, 3). maximum: the value of full intensity. A pixel is
    colored where its channels differ by more than 16/255 of it. Raises ColourImage (`colour`) where
    more than 2 % of the pixels are, unless color="luminance".

    >>> luminance_of(np.full((2, 2, 3), 7, np.uint8)).values.tolist()
    [[7, 7], [7, 7]]
    """
    spread = rgb.max(axis=-1) - rgb.min(axis=-1)
    if spread.max() == 0:
        return Luminance(np.ascontiguousarray(rgb[..., 0]), "")
    colored = spread > GRAY_TOLERANCE * maximum / 255
    is_color = bool(colored.mean() > MAX_COLORED_SHARE)
    if is_color and color == "refuse":
        raise ColourImage(
            "Color image: the channels differ by more than 16 of 255 in more than 2 % of the "
            'pixels. To take its luminance, use --color luminance (in Python: color="luminance").'
        )
    values = ((rgb.astype(np.uint32) @ _WEIGHTS + 0x8000) >> 16).astype(rgb.dtype)
    if is_color:
        return Luminance(values, "color_to_luminance")
    return Luminance(values, "few_colored_pixels" if colored.any() else "faint_colour")
