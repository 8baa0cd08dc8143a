"""Reads the modality transform, the VOI transform and the padding of one frame from a data set.

Enhanced objects have these in functional groups, per frame or shared (C.7.6.16); other data sets
have them at the top level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from data_pipelines.dicom.elements import Elements
from data_pipelines.errors import Unreadable
from data_pipelines.pixels.grayscale import (
    Float32Array,
    Integers,
    Lut,
    Mask,
    WindowFunction,
    apply_lut,
    is_window,
    lut_display,
    make_lut,
    min_max,
    rescale,
    window,
)

_FUNCTIONS: dict[str, WindowFunction] = {
    "": "LINEAR",
    "LINEAR": "LINEAR",
    "LINEAR_EXACT": "LINEAR_EXACT",
    "SIGMOID": "SIGMOID",
}


@dataclass(frozen=True)
class Modality:
    """Modality transform (C.11.1): a LUT, or slope and intercept.

    unit: the name of the output unit, '' where there is none. declared: False where the data set
    has no transform.
    """

    lut: Lut | None
    slope: float
    intercept: float
    unit: str
    declared: bool

    def apply(self, stored: Integers) -> Float32Array:
        """The modality output as float32, in `unit`."""
        if self.lut is not None:
            return apply_lut(stored, self.lut).astype(np.float32)
        return rescale(stored, self.slope, self.intercept)


@dataclass(frozen=True)
class Voi:
    """VOI transform (C.11.2): a LUT, a window, or neither. alternatives: how many LUTs or windows
    the data set has.
    """

    lut: Lut | None
    center: float
    width: float
    function: WindowFunction
    alternatives: int

    def apply(
        self, values: Float32Array, padding: Mask | None
    ) -> tuple[Float32Array, dict[str, object]]:
        """Display values 0..1, and a record of what was applied (see `Image.voi`)."""
        if self.lut is not None:
            record = {"kind": "lut", "entries": int(self.lut.table.size), "bits": self.lut.bits}
            return lut_display(values, self.lut), {**record, "alternatives": self.alternatives}
        if self.alternatives:
            record = {
                "kind": "window",
                "center": self.center,
                "width": self.width,
                "function": self.function,
            }
            return window(values, self.center, self.width, self.function), {
                **record,
                "alternatives": self.alternatives,
            }
        display, low, high = min_max(values, padding)
        return display, {"kind": "min_max", "low": low, "high": high, "alternatives": 0}


def frame_group(dataset: Dataset, frame: int, sequence: str) -> Elements:
    """The elements of a functional group macro: of the frame, else the shared ones, else those of
    the data set itself.
    """
    per_frame = Elements(dataset).items("PerFrameFunctionalGroupsSequence")
    for groups in (
        per_frame[frame : frame + 1],
        Elements(dataset).items("SharedFunctionalGroupsSequence")[:1],
    ):
        for group in groups:
            item = Elements(group).item(sequence)
            if item is not None:
                return Elements(item)
    return Elements(dataset)


def read_modality(dataset: Dataset, frame: int, *, signed: bool) -> Modality:
    """The modality transform of a frame. A missing intercept is 0, a missing slope is 1.

    Raises Unreadable (`bad_modality_transform`) when the slope is 0, when a number is not finite,
    and when a LUT has too few entries.
    """
    item = Elements(dataset).item("ModalityLUTSequence")
    if item is not None:
        lut = _lut(item, dataset, signed, "bad_modality_transform")
        return Modality(lut, 1.0, 0.0, Elements(item).text("ModalityLUTType").upper(), True)
    group = frame_group(dataset, frame, "PixelValueTransformationSequence")
    slope, intercept = group.number("RescaleSlope"), group.number("RescaleIntercept")
    if slope == 0 or any("Rescale" in code for code in group.repairs):
        raise Unreadable(
            "RescaleSlope (0028,1053) is 0, or RescaleSlope or RescaleIntercept (0028,1052) is not "
            "a finite number: the values have no meaning.",
            code="bad_modality_transform",
        )
    declared = slope is not None or intercept is not None
    return Modality(
        None,
        1.0 if slope is None else slope,
        intercept or 0.0,
        group.text("RescaleType").upper(),
        declared,
    )


def read_voi(
    dataset: Dataset, frame: int, modality: Modality, stored_range: tuple[int, int]
) -> tuple[Voi, tuple[str, ...]]:
    """The first VOI LUT, else the first usable window, else neither; and the codes of what was
    skipped.

    The first value of a VOI LUT is signed where the modality output of a value in `stored_range`
    (minimum, maximum) may be negative. Without a modality transform this is the same as
    PixelRepresentation (C.11.2.1.1).
    """
    group = frame_group(dataset, frame, "FrameVOILUTSequence")
    tables = group.items("VOILUTSequence")
    if tables:
        lowest = min(modality.slope * value + modality.intercept for value in stored_range)
        lut = _lut(tables[0], dataset, modality.lut is None and lowest < 0, "bad_voi_lut")
        return Voi(lut, 0.0, 0.0, "LINEAR", len(tables)), ()
    name = group.code("VOILUTFunction")
    function = _FUNCTIONS.get(name, "LINEAR")
    pairs = list(
        zip(group.numbers("WindowCenter") or (), group.numbers("WindowWidth") or (), strict=False)
    )
    usable = [(center, width) for center, width in pairs if is_window(center, width, function)]
    problems = {
        "unknown_VOILUTFunction": name not in _FUNCTIONS,
        "unusable_window": usable[:1] != pairs[:1],
    }
    center, width = usable[0] if usable else (0.0, 0.0)
    codes = tuple(code for code, present in problems.items() if present) + tuple(
        code for code in group.repairs if "Window" in code
    )
    return Voi(None, center, width, function, len(usable)), codes


def read_padding(dataset: Dataset) -> tuple[int | None, int | None]:
    """PixelPaddingValue and PixelPaddingRangeLimit (C.7.5.1.1.2) as written; None where absent."""
    elements = Elements(dataset)
    return elements.integer("PixelPaddingValue"), elements.integer("PixelPaddingRangeLimit")


def _lut(item: Dataset, dataset: Dataset, signed: bool, code: str) -> Lut:
    elements = Elements(item)
    descriptor = elements.numbers("LUTDescriptor", 3)
    if descriptor is None:
        raise Unreadable("LUTDescriptor (0028,3002) does not have three numbers.", code=code)
    entries, first, bits = (int(number) for number in descriptor)
    data = _lut_data(elements, dataset, entries & 0xFFFF or 65536)
    try:
        return make_lut((entries, first, bits), data, signed=signed)
    except Unreadable as error:
        raise Unreadable(str(error), code=code) from None


def _lut_data(elements: Elements, dataset: Dataset, entries: int) -> NDArray[np.integer]:
    """LUTData as integers: 16-bit words, or bytes where there is one byte per entry (PS3.5 8.1,
    C.11.1.1.1).
    """
    values = elements.values("LUTData")
    if len(values) != 1 or not isinstance(values[0], bytes | bytearray):
        return np.array([int(value) & 0xFFFF for value in values], np.uint16)
    raw = bytes(values[0])
    if len(raw) in (entries, entries + entries % 2):
        return np.frombuffer(raw, np.uint8)
    _, little = dataset.original_encoding
    return np.frombuffer(raw[: len(raw) // 2 * 2], ">u2" if little is False else "<u2").astype(
        np.uint16
    )
