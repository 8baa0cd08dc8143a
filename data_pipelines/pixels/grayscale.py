"""The grayscale pipeline as pure functions: padding, modality, VOI, polarity. PS3.3 C.7.5.1.1.2,
C.11.1, C.11.2, C.7.6.3.

Order: modality (LUT or rescale) -> VOI (LUT or window) -> polarity. Arrays are (rows, columns) or
(frames, rows, columns). Display values are float32 from 0 (black) to 1 (white). `apply_polarity` is
the rule for MONOCHROME1.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_pipelines.errors import InputError, Unreadable

Integers = NDArray[np.integer]
Float32Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
WindowFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]

UNDECLARED_FILL_HU = -1500.0
UNDECLARED_FILL_SHARE = 0.01


@dataclass(frozen=True)
class Lut:
    """A look-up table (C.11.1.1, C.11.2.1.1): entry i is the output for the input `first` + i.

    bits: the output range is 0 to 2^bits - 1; corrected where the declared bits are wrong.
    """

    first: int
    table: Integers
    bits: int


def make_lut(descriptor: tuple[int, int, int], data: Integers, *, signed: bool) -> Lut:
    """The table of a LUTDescriptor (number of entries, first value mapped, bits) and LUTData.

    0 entries mean 65536. signed: whether the first value is signed. Two known defects of the
    declared bits are corrected to the bits of the largest entry: fewer bits than it needs, and 16
    (the word size) where no entry needs more than 12. Raises Unreadable (`bad_lut`) when entries
    are missing.
    """
    count = descriptor[0] & 0xFFFF or 65536
    if data.size < count:
        raise Unreadable(
            f"LUTDescriptor declares {count} entries, but LUTData has {data.size}.", code="bad_lut"
        )
    table = data.reshape(-1)[:count]
    first = descriptor[1] & 0xFFFF
    if signed and first >= 0x8000:
        first -= 0x10000
    declared, needed = descriptor[2], max(int(table.max()).bit_length(), 1)
    trusted = needed <= declared <= 16 and not (declared == 16 and needed <= 12)
    return Lut(first, table, declared if trusted else needed)


def apply_lut(values: NDArray[np.generic], lut: Lut) -> Integers:
    """The outputs of a table (C.11.1.1). Values below the first input give the first entry, values
    above the last input give the last entry. Fractions are rounded.
    """
    rounded = values if values.dtype.kind in "iu" else np.rint(values)
    index = np.clip(rounded.astype(np.int64) - lut.first, 0, lut.table.size - 1)
    return lut.table[index]


def rescale(stored: Integers, slope: float, intercept: float) -> Float32Array:
    """slope * stored + intercept (C.11.1.1.2): float32, computed in float64, and infinite where
    float32 overflows.

    Whole numbers below 2^24 are exact in float32, and are computed in it in a third of the time.

    >>> rescale(np.array([0, 1024, 2048], np.uint16), slope=1, intercept=-1024).tolist()
    [-1024.0, 0.0, 1024.0]
    """
    info = np.iinfo(stored.dtype)
    largest = abs(slope) * max(-info.min, info.max) + abs(intercept)
    if float(slope).is_integer() and float(intercept).is_integer() and largest < 1 << 24:
        values = stored.astype(np.float32)
        values *= np.float32(slope)
        values += np.float32(intercept)
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        exact = stored.astype(np.float64)
        exact *= slope
        exact += intercept
        return exact.astype(np.float32)


def window(
    values: NDArray[np.generic], center: float, width: float, function: WindowFunction = "LINEAR"
) -> Float32Array:
    """Display values 0..1 of a window: LINEAR (C.11.2.1.2.1), SIGMOID (C.11.2.1.3.1), LINEAR_EXACT
    (C.11.2.1.3.2).

    center and width are in the unit of `values`. The width of LINEAR is at least 1 (1 is a step at
    center - 0.5), that of the others is above 0; otherwise InputError (`bad_window`).

    >>> window(np.array([-1000.0, 40.0, 1000.0]), center=40, width=400).round(2).tolist()
    [0.0, 0.5, 1.0]
    """
    if not is_window(center, width, function):
        raise InputError(
            f"A {function} window cannot have center {center} and width {width}: the width of "
            f"LINEAR is at least 1, that of the others is above 0.",
            code="bad_window",
        )
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    x = values.astype(np.float32)
    if width == 0:
        return (x > np.float32(center)).astype(np.float32)
    x -= np.float32(center)
    x /= np.float32(width)
    if function == "SIGMOID":
        return (1 / (1 + np.exp(np.clip(-4 * x, -80, 80)))).astype(np.float32)
    x += np.float32(0.5)
    return np.clip(x, 0, 1, out=x)


def is_window(center: float, width: float, function: WindowFunction) -> bool:
    """Whether a window can be applied: both numbers are finite, and the width is large enough."""
    return bool(np.isfinite(center) and np.isfinite(width)) and (
        width >= 1 if function == "LINEAR" else width > 0
    )


def lut_display(values: NDArray[np.generic], lut: Lut) -> Float32Array:
    """Display values 0..1 of a VOI LUT, scaled by its corrected bits. C.11.2.1.1."""
    return (apply_lut(values, lut) / ((1 << lut.bits) - 1)).astype(np.float32)


def min_max(values: NDArray[np.generic], padding: Mask | None) -> tuple[Float32Array, float, float]:
    """Display values 0..1 between the minimum and the maximum of the unpadded values, and these two
    numbers. All 0 where they are equal.
    """
    inside = values if padding is None or padding.all() else values[~padding]
    low, high = float(inside.min()), float(inside.max())
    if low == high:
        return np.zeros(values.shape, np.float32), low, high
    return (
        np.clip((values.astype(np.float64) - low) / (high - low), 0, 1).astype(np.float32),
        low,
        high,
    )


def padding_mask(stored: Integers, value: int, limit: int | None) -> Mask | None:
    """Where stored values are between PixelPaddingValue and PixelPaddingRangeLimit (C.7.5.1.1.2);
    None where there are no such values.

    Either may be written with the wrong sign (63536 for a signed -2000). Both are read with the
    sign of the stored values.
    """
    bounds = [_in_sign_of(stored, bound) for bound in (value, value if limit is None else limit)]
    low, high = min(bounds), max(bounds)
    mask = stored == low if low == high else (stored >= low) & (stored <= high)
    return mask if mask.any() else None


def _in_sign_of(stored: Integers, value: int) -> int:
    info = np.iinfo(stored.dtype)
    span = 1 << info.bits
    return (value - info.min) % span + info.min


def undeclared_fill(hounsfield: Float32Array) -> Mask | None:
    """Pixels outside the field of view of a CT whose fill value is not declared as padding: values
    below -1500 HU, which no tissue has, in at least 1 % of the image. None where there are none.
    """
    if hounsfield.min() >= UNDECLARED_FILL_HU:
        return None
    mask = hounsfield < UNDECLARED_FILL_HU
    return mask if np.count_nonzero(mask) >= UNDECLARED_FILL_SHARE * mask.size else None


def is_inverted(photometric: str) -> bool:
    """Whether low values are bright: PhotometricInterpretation is MONOCHROME1 (C.7.6.3.1.2).

    >>> is_inverted("MONOCHROME1"), is_inverted("MONOCHROME2")
    (True, False)
    """
    return photometric == "MONOCHROME1"


def apply_polarity(display: Float32Array, photometric: str) -> Float32Array:
    """The rule for MONOCHROME1 (C.7.6.3.1.2): display values 0..1 after the VOI transform are
    inverted, so that bright means dense in every image. MONOCHROME2 stays as it is.

    HU and raw values have no polarity: the rule is not applied to them.

    >>> apply_polarity(np.float32([0.0, 0.25, 1.0]), "MONOCHROME1").tolist()
    [1.0, 0.75, 0.0]
    >>> apply_polarity(np.float32([0.0, 0.25, 1.0]), "MONOCHROME2").tolist()
    [0.0, 0.25, 1.0]
    """
    return 1 - display if is_inverted(photometric) else display


def mirror_stored_values(stored: Integers, bits_stored: int) -> Integers:
    """The stored values that an inverted image would have had as MONOCHROME2: mirrored in the range
    of BitsStored.

    This is for `pixel_sha256` only, so that copies of one image in both encodings have the same
    hash. It is not the display rule, which is `apply_polarity`: the VOI transform must see the
    values as they are stored, and the result is inverted after it.
    """
    if stored.dtype.kind == "i":
        return -1 - stored
    return np.array((1 << bits_stored) - 1, stored.dtype) - stored


def pixel_sha256(stored: Integers) -> str:
    """SHA-256 of values and shape. It does not depend on the integer type, so that equal images in
    different encodings have the same hash.
    """
    low, high = int(stored.min()), int(stored.max())
    dtype = next(
        name
        for name in ("<u2", "<i2", "<i8")
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max
    )
    digest = hashlib.sha256(f"{stored.shape}{dtype}".encode())
    digest.update(np.ascontiguousarray(stored, dtype).data)
    return digest.hexdigest()
