"""The grey-scale pipeline as pure functions: padding, modality, VOI, polarity. PS3.3 C.7.5.1.1.2,
C.11.1, C.11.2, C.7.6.3.

Order: modality (LUT or rescale) -> VOI (LUT or window) -> polarity. Values come as (rows, columns)
or (frames, rows, columns); display values are float32 in 0..1, bright for high output values.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer]
Float32Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
WindowFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]

UNDECLARED_FILL_HU = -1500.0
UNDECLARED_FILL_SHARE = 0.01


@dataclass(frozen=True)
class Lut:
    """A look-up table (C.11.1.1, C.11.2.1.1): entry i is the output for input `first` + i; `bits`
    is its real range.
    """

    first: int
    table: Integers
    bits: int


def make_lut(descriptor: tuple[int, int, int], data: Integers, *, signed: bool) -> Lut:
    """Table from LUTDescriptor (entries, first value mapped, bits) and LUTData.

    0 entries mean 65536; `signed` tells how to read the first value. Two known defects of the
    declared bits give way to
    the bits of the largest entry: fewer than it needs, and 16 (the size of a word) where no entry
        needs more than 12.
    Raises ValueError when entries are missing.
    """
    count = descriptor[0] & 0xFFFF or 65536
    if data.size < count:
        raise ValueError(f"the descriptor promises {count} entries, the table holds {data.size}")
    table = data.reshape(-1)[:count]
    first = descriptor[1] & 0xFFFF
    if signed and first >= 0x8000:
        first -= 0x10000
    declared, needed = descriptor[2], max(int(table.max()).bit_length(), 1)
    trusted = needed <= declared <= 16 and not (declared == 16 and needed <= 12)
    return Lut(first, table, declared if trusted else needed)


def apply_lut(values: NDArray[np.generic], lut: Lut) -> Integers:
    """Outputs of a table: values below the first take its entry, values past the end the last one.
    C.11.1.1.
    """
    rounded = values if values.dtype.kind in "iu" else np.rint(values)
    index = np.clip(rounded.astype(np.int64) - lut.first, 0, lut.table.size - 1)
    return lut.table[index]


def rescale(stored: Integers, slope: float, intercept: float) -> Float32Array:
    """slope * stored + intercept, as float64 gives it; infinite where float32 cannot hold it.
    C.11.1.1.2.

    Whole numbers that stay below 2^24 are exact in float32, which takes a third of the time.
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

    LINEAR needs a width of at least 1 (1 is a step at center - 0.5), the others one above 0;
    ValueError otherwise.
    """
    if not is_window(center, width, function):
        raise ValueError(f"no {function} window of width {width}")
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
    """Whether a window can be applied at all."""
    return bool(np.isfinite(center) and np.isfinite(width)) and (
        width >= 1 if function == "LINEAR" else width > 0
    )


def lut_display(values: NDArray[np.generic], lut: Lut) -> Float32Array:
    """Display values 0..1 of a VOI LUT, by its real bit range. C.11.2.1.1."""
    return (apply_lut(values, lut) / ((1 << lut.bits) - 1)).astype(np.float32)


def min_max(values: NDArray[np.generic], padding: Mask | None) -> tuple[Float32Array, float, float]:
    """Display values 0..1 between the least and the greatest unpadded value, and those two; all 0
    when they are equal.
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
    """Where stored values lie from PixelPaddingValue to PixelPaddingRangeLimit (C.7.5.1.1.2); None
    when nowhere.

    Either may be coded with the wrong sign (63536 for a signed -2000): it is read in the sign of
    the stored values.
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
    """Pixels outside a CT's field of view that carry a fill nobody declared: below -1500 HU, where
    no matter is, in at least 1 % of the image. None when there are none.
    """
    if hounsfield.min() >= UNDECLARED_FILL_HU:
        return None
    mask = hounsfield < UNDECLARED_FILL_HU
    return mask if np.count_nonzero(mask) >= UNDECLARED_FILL_SHARE * mask.size else None


def mirror_stored_values(stored: Integers, bits_stored: int) -> Integers:
    """MONOCHROME1 as if it had been stored MONOCHROME2: mirrored in the range that BitsStored
    allows. C.7.6.3.1.2.
    """
    if stored.dtype.kind == "i":
        return -1 - stored
    return np.array((1 << bits_stored) - 1, stored.dtype) - stored


def pixel_sha256(stored: Integers) -> str:
    """SHA-256 of values and shape, whatever integer type carries them: equal images in other
    encodings agree.
    """
    low, high = int(stored.min()), int(stored.max())
    dtype = next(
        kind
        for kind in ("<u2", "<i2", "<i8")
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max
    )
    digest = hashlib.sha256(f"{stored.shape}{dtype}".encode())
    digest.update(np.ascontiguousarray(stored, dtype).data)
    return digest.hexdigest()
