"""The preprocessing of medres in plain numpy: from a DICOM file to the integers that a model
receives. It follows docs/reference/preprocessing.md and does not import medres; pydicom is used to
parse the file only.

    python preprocess.py EXPORT                   check it on the golden vectors of an export
    python preprocess.py EXPORT image.dcm         prepare one file and run EXPORT/model.onnx

EXPORT is the folder with serving.json. Uncompressed single images in little endian only (layout
"image"); other files are refused.
Research use only. Not a medical device.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pydicom

AIR, FILL_BELOW, FILL_SHARE = -1024.0, -1500.0, 0.01
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99")


def prepare(file: object, spec: dict) -> np.ndarray:
    """Prepared integers (rows, cols) of a DICOM file; spec: `preprocess` of serving.json. Raises
    ValueError for a file that is not part of the description.
    """
    ds = pydicom.dcmread(file)
    require_supported(ds, spec)
    stored = stored_values(ds)
    padding = padding_mask(ds, stored)
    values = modality(ds, stored)
    if spec["units"] == "HU":
        values = hounsfield(values, padding)
    else:
        values = display(ds, values, padding)
    if not np.isfinite(values).all():
        raise ValueError("the values are not finite")
    inner = inner_size(values.shape, aspect(ds), spec)
    for size, out in zip(inner, (spec["rows"], spec["cols"]), strict=True):
        values = onto_axis(values, size, out, spec["fill"]).T  # rows, then columns
    limits = np.iinfo(spec["dtype"])
    return np.clip(np.rint(values / spec["scale"]), limits.min, limits.max).astype(spec["dtype"])


def model_input(prepared: np.ndarray, spec: dict) -> np.ndarray:
    """The tensor `image`, float32 (1, rows, cols, 1)."""
    return (prepared.astype(np.float32) * np.float32(spec["scale"]))[np.newaxis, ..., np.newaxis]


# Step 0: which files


def require_supported(ds: pydicom.Dataset, spec: dict) -> None:
    """Raise ValueError for a file whose integers would be wrong, or that medres does not accept."""
    syntax = ds.file_meta.get("TransferSyntaxUID")
    if syntax not in UNCOMPRESSED:
        raise ValueError(f"transfer syntax {syntax} is not supported: decode the file first")
    gray = ds.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
    if not gray or ds.get("SamplesPerPixel", 1) != 1 or (ds.get("NumberOfFrames") or 1) != 1:
        raise ValueError("the file does not hold one grayscale image")
    needed = ds.get("Rows", 0) * ds.get("Columns", 0) * ds.get("BitsAllocated", 0) // 8
    if ds.get("BitsAllocated") not in (8, 16, 32) or not 0 < needed <= len(
        ds.get("PixelData", b"")
    ):
        raise ValueError("there is no complete image of 8, 16 or 32 bits")
    table, slope = ds.get("ModalityLUTSequence"), ds.get("RescaleSlope")
    if not table and slope is not None and float(slope) == 0:
        raise ValueError("RescaleSlope is 0")
    declared = slope is not None or ds.get("RescaleIntercept") is not None
    unit = str(ds.get("RescaleType") or "HU").strip().upper()
    if spec["units"] == "HU" and (table or not declared or unit != "HU"):
        raise ValueError("the values are not in HU")


# Step 1: stored values


def stored_values(ds: pydicom.Dataset) -> np.ndarray:
    allocated = ds.BitsAllocated
    bits = ds.get("BitsStored") or allocated
    high = ds.HighBit if ds.get("HighBit") is not None else bits - 1
    cells = np.frombuffer(ds.PixelData, f"<u{allocated // 8}", ds.Rows * ds.Columns)
    cells = cells.reshape(ds.Rows, ds.Columns)
    sign = "i" if ds.PixelRepresentation == 1 else "u"
    moved = (cells << (allocated - 1 - high)).view(f"<{sign}{allocated // 8}")
    return moved >> (allocated - bits)


def padding_mask(ds: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    value, limit = ds.get("PixelPaddingValue"), ds.get("PixelPaddingRangeLimit")
    if value is None:
        return np.zeros(stored.shape, bool)
    info = np.iinfo(stored.dtype)
    bounds = [
        (int(bound) - info.min) % (1 << info.bits) + info.min
        for bound in (value, value if limit is None else limit)
    ]
    return (stored >= min(bounds)) & (stored <= max(bounds))


# Step 2: modality transform


def modality(ds: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    table = ds.get("ModalityLUTSequence")
    if table:
        lut = Lut(table[0], signed=ds.PixelRepresentation == 1)
        return lut(stored).astype(np.float32)
    slope, intercept = rescale(ds)
    return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def rescale(ds: pydicom.Dataset) -> tuple[float, float]:
    slope, intercept = ds.get("RescaleSlope"), ds.get("RescaleIntercept")
    return 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)


class Lut:
    """A look-up table of DICOM: LUTDescriptor and LUTData of a sequence item."""

    def __init__(self, item: pydicom.Dataset, *, signed: bool) -> None:
        count, first, bits = (int(number) & 0xFFFF for number in item.LUTDescriptor)
        count = count or 65536
        data = item.LUTData
        if not isinstance(data, bytes):
            words = np.array(data, np.int64) & 0xFFFF
        elif len(data) in (count, count + count % 2):
            words = np.frombuffer(data, np.uint8)
        else:
            words = np.frombuffer(data[: len(data) // 2 * 2], "<u2")
        self.table = words[:count]
        self.first = first - 0x10000 if signed and first >= 0x8000 else first
        needed = max(int(self.table.max()).bit_length(), 1)
        trusted = needed <= bits <= 16 and not (bits == 16 and needed <= 12)
        self.bits = bits if trusted else needed

    def __call__(self, values: np.ndarray) -> np.ndarray:
        index = np.rint(values).astype(np.int64) - self.first
        return self.table[np.clip(index, 0, len(self.table) - 1)]


# Step 3: HU, or display values


def hounsfield(values: np.ndarray, padding: np.ndarray) -> np.ndarray:
    values = np.where(padding, np.float32(AIR), values)
    outside = values < FILL_BELOW
    if outside.sum() >= FILL_SHARE * outside.size:
        values = np.where(outside, np.float32(AIR), values)
    return values


def display(ds: pydicom.Dataset, values: np.ndarray, padding: np.ndarray) -> np.ndarray:
    tables, windows = ds.get("VOILUTSequence"), window_of(ds)
    if tables:
        lut = Lut(tables[0], signed=not ds.get("ModalityLUTSequence") and lowest(ds) < 0)
        shown = (lut(values) / ((1 << lut.bits) - 1)).astype(np.float32)
    elif windows is not None:
        shown = windowed(values, *windows)
    else:
        shown = min_max(values, padding)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        shown = np.float32(1) - shown
    return np.where(padding, np.float32(0), shown)


def lowest(ds: pydicom.Dataset) -> float:
    """The smallest modality output that BitsStored allows."""
    slope, intercept = rescale(ds)
    span = 1 << (ds.get("BitsStored") or ds.BitsAllocated)
    low = -span // 2 if ds.PixelRepresentation == 1 else 0
    return min(slope * low + intercept, slope * (low + span - 1) + intercept)


def window_of(ds: pydicom.Dataset) -> tuple[float, float, str] | None:
    """The first usable window: center, width, function."""
    name = ds.get("VOILUTFunction") or "LINEAR"
    function = name if name in ("LINEAR", "LINEAR_EXACT", "SIGMOID") else "LINEAR"
    centers, widths = (
        [] if value is None else np.atleast_1d(np.array(value, float))
        for value in (ds.get("WindowCenter"), ds.get("WindowWidth"))
    )
    for center, width in zip(centers, widths, strict=False):
        if np.isfinite([center, width]).all() and (
            width >= 1 if function == "LINEAR" else width > 0
        ):
            return float(center), float(width), function
    return None


def windowed(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    center32, width32, half = np.float32(center), np.float32(width), np.float32(0.5)
    if width == 0:
        return (values > center32).astype(np.float32)
    x = (values - center32) / width32
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(np.float32(-4) * x, -80, 80)))
    return np.clip(x + half, 0, 1)


def min_max(values: np.ndarray, padding: np.ndarray) -> np.ndarray:
    inside = values if padding.all() else values[~padding]
    low, high = float(inside.min()), float(inside.max())
    if low == high:
        return np.zeros(values.shape, np.float32)
    return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1).astype(np.float32)


# Step 4: onto the grid


def aspect(ds: pydicom.Dataset) -> float:
    """Height of a pixel divided by its width."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        value = ds.get(keyword)
        pair = np.atleast_1d(np.array([] if value is None else value, float))
        if len(pair) == 2 and (pair > 0).all() and np.isfinite(pair).all():
            height, width = pair.tolist()
            return height / width if width / 16 <= height <= width * 16 else 1.0
    return 1.0


def inner_size(shape: tuple[int, ...], ratio: float, spec: dict) -> list[int]:
    """Rows and columns of the resampled image, before padding."""
    out, spacing = (spec["rows"], spec["cols"]), (ratio, 1.0)
    if spec["fit"] == "stretch":
        return list(out)
    scale = min(o / (n * step) for n, step, o in zip(shape, spacing, out, strict=True))
    return [max(1, round(n * step * scale)) for n, step in zip(shape, spacing, strict=True)]


def onto_axis(values: np.ndarray, inner: int, out: int, fill: float) -> np.ndarray:
    """The first axis of an array, resampled to `inner` and padded or cropped to `out`; float64."""
    resampled = triangle(values.astype(np.float64), inner)
    offset = (inner - out) // 2
    if inner >= out:
        return resampled[offset : offset + out]
    grid = np.full((out, values.shape[1]), fill)
    grid[-offset : -offset + inner] = resampled
    return grid


def triangle(values: np.ndarray, count: int) -> np.ndarray:
    """The first axis resampled to `count` with a triangle filter, antialiased."""
    size = len(values)
    if size == count:
        return values
    step = size / count
    support = max(step, 1.0)
    center = (np.arange(count) + 0.5) * step
    taps = np.floor(center - support).astype(int)[:, np.newaxis] + np.arange(
        int(np.ceil(2 * support)) + 1
    )
    weights = np.maximum(0.0, 1.0 - np.abs(taps + 0.5 - center[:, np.newaxis]) / support)
    weights[(taps < 0) | (taps >= size)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    total = np.zeros((count, values.shape[1]))
    for tap, weight in zip(taps.T, weights.T, strict=True):  # ascending: the order of the sum
        total += weight[:, np.newaxis] * values[np.clip(tap, 0, size - 1)]
    return total


# The export


def probabilities(folder: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs of the exported ONNX model for the tensor `image`."""
    import onnxruntime

    serving = json.loads((folder / "serving.json").read_text())
    session = onnxruntime.InferenceSession(str(folder / serving["model"]["file"]))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image}), strict=True))


def verify(folder: Path) -> tuple[int, int]:
    """How many golden vectors are reproduced exactly, and how many there are."""
    spec = json.loads((folder / "serving.json").read_text())["preprocess"]
    vectors = json.loads((folder / "golden" / "index.json").read_text())["vectors"]
    equal = 0
    for vector in vectors:
        (file,) = vector["files"]
        data = (folder / "golden" / vector["prepared"]["path"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != vector["prepared"]["sha256"]:
            raise SystemExit(f"{vector['name']}: the prepared integers were changed")
        expected = np.frombuffer(data, spec["dtype"]).reshape(vector["prepared"]["shape"])[0]
        prepared = prepare(folder / "golden" / file["path"], spec)
        equal += np.array_equal(prepared, expected)
        different = int((prepared != expected).sum())
        print(f"{vector['name']}: {'equal' if not different else f'{different} pixels differ'}")
    return equal, len(vectors)


def main(folder: str, file: str | None = None) -> int:
    if file is None:
        equal, given = verify(Path(folder))
        print(f"{equal} of {given} golden vectors are equal")
        return int(equal != given)
    serving = json.loads((Path(folder) / "serving.json").read_text())
    image = model_input(prepare(file, serving["preprocess"]), serving["preprocess"])
    for name, values in probabilities(Path(folder), image).items():
        print(name, values.tolist())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
