"""Made-up DICOM files with which a second implementation of the preprocessing is checked
(docs/reference/preprocessing.md). All are uncompressed, explicit little endian.

Each set of files exercises one rule: polarity, rescale, windows, tables, padding, bits, signs, and
pixels that are not square. Sizes follow from the size of the model's input, so that images are both
reduced and enlarged.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian

from data_pipelines.dicom.writer import derived_uid, new_dataset, set_pixels
from data_pipelines.kinds import ImageKind

MAX_SIDE = 2600  # pixels: bounds the size of the largest file
SERIES_SLICES = 5


@dataclass(frozen=True)
class GoldenStudy:
    """Files that give one input, or the inputs of one series.

    name: for file names. rule: what the files exercise. files: the bytes of each file.
    """

    name: str
    rule: str
    files: tuple[bytes, ...]


@dataclass(frozen=True)
class _Case:
    """One file. size: rows and columns as multiples of those of the model's input. bits:
    BitsStored. signed: PixelRepresentation. set: writes the elements that the case is about.
    """

    name: str
    rule: str
    size: tuple[float, float]
    bits: int
    set: Callable[[Dataset], None]
    signed: bool = False
    photometric: str = "MONOCHROME2"
    change: Callable[[np.ndarray], np.ndarray] = lambda stored: stored


def golden_studies(kind: ImageKind, rows: int, columns: int, *, series: bool) -> list[GoldenStudy]:
    """The studies for a kind of image and the size of a model's input. series: one study that is a
    series of parallel slices, for models of stacks and volumes, instead of single images.
    """
    modality = kind.modality
    if series:
        cases = [
            _Case(f"slice{n}", "", (0.7, 0.55), 12, _slice(n)) for n in (3, 0, 4, 1, 2)
        ]  # in another order than that of their positions
        files = tuple(_file(case, modality, (rows, columns)) for case in cases)
        rule = f"{SERIES_SLICES} slices, 2.5 mm apart, files in another order"
        return [GoldenStudy("series", rule, files)]
    return [
        GoldenStudy(case.name, case.rule, (_file(case, modality, (rows, columns)),))
        for case in (_SLICES if kind.has_series else _PROJECTIONS)
    ]


def _file(case: _Case, modality: str, size: tuple[int, int]) -> bytes:
    """The bytes of one DICOM file."""
    uids = {
        "study": derived_uid("golden", modality),
        "series": derived_uid("golden", modality, "series"),
        "sop": derived_uid("golden", modality, case.name),
    }
    dataset = new_dataset(modality, ExplicitVRLittleEndian, patient_id="GOLDEN", patient="", **uids)
    shape = tuple(
        max(3, round(min(factor * side, MAX_SIDE)))
        for factor, side in zip(case.size, size, strict=True)
    )
    low = -(1 << case.bits - 1) if case.signed else 0
    stored = low + np.rint(_scene(shape, case.name) * ((1 << case.bits) - 1))
    cell = 8 if case.bits <= 8 else 16
    pixels = case.change(stored.astype(f"{'i' if case.signed else 'u'}{cell // 8}"))
    set_pixels(dataset, pixels, bits=case.bits, photometric=case.photometric)
    case.set(dataset)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _scene(shape: tuple[int, ...], name: str) -> np.ndarray:
    """Values 0..1 (rows, columns): waves, a bright disc, sharp edges and noise."""
    rng = np.random.default_rng([*name.encode()])
    y, x = (np.arange(side) / side for side in shape)
    waves = 0.45 + 0.2 * np.sin(11 * x + 3 * y[:, np.newaxis]) + 0.2 * np.cos(7 * y)[:, np.newaxis]
    disc = (y[:, np.newaxis] - 0.4) ** 2 + (x - 0.6) ** 2 < 0.03
    stripes = (np.arange(shape[1]) // 3 % 2 == 1) & (y > 0.8)[:, np.newaxis]
    noise = rng.uniform(-0.08, 0.08, shape)
    return np.clip(waves + 0.25 * disc - 0.3 * stripes + noise, 0, 1)


def _elements(**values: object) -> Callable[[Dataset], None]:
    def write(dataset: Dataset) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return write


def _table(sequence: str, first: int, entries: np.ndarray, bits: int) -> Callable[[Dataset], None]:
    """A modality LUT or VOI LUT of 16-bit words."""

    def write(dataset: Dataset) -> None:
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
        item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
        setattr(dataset, sequence, DicomSequence([item]))

    return write


def _all(*steps: Callable[[Dataset], None]) -> Callable[[Dataset], None]:
    def write(dataset: Dataset) -> None:
        for step in steps:
            step(dataset)

    return write


def _padding(value: int, limit: int | None = None) -> Callable[[Dataset], None]:
    def write(dataset: Dataset) -> None:
        vr = "SS" if dataset.PixelRepresentation else "US"
        dataset.add_new("PixelPaddingValue", vr, value)
        if limit is not None:
            dataset.add_new("PixelPaddingRangeLimit", vr, limit)

    return write


def _corners(value: int) -> Callable[[np.ndarray], np.ndarray]:
    """Sets the corners outside a circle to one value, as CT scanners do."""

    def change(stored: np.ndarray) -> np.ndarray:
        rows, columns = stored.shape
        y, x = np.ogrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
        return np.where(y**2 + x**2 > 1, np.array(value, stored.dtype), stored)

    return change


def _high_bit(dataset: Dataset) -> None:
    """Move 12-bit values to the upper bits of their cells; the lower four hold an overlay."""
    cells = np.frombuffer(dataset.PixelData, "<u2")
    dataset.PixelData = ((cells << 4) | (np.arange(cells.size) % 16).astype("<u2")).tobytes()
    dataset.HighBit = 15


def _overlay(dataset: Dataset) -> None:
    """Write bits above HighBit that do not belong to the values."""
    cells = np.frombuffer(dataset.PixelData, "<u2") & 0x0FFF
    dataset.PixelData = (cells | (np.arange(cells.size) % 3 << 14).astype("<u2")).tobytes()


def _slice(number: int) -> Callable[[Dataset], None]:
    return _all(
        _elements(
            RescaleSlope=1,
            RescaleIntercept=-1024,
            PixelSpacing=[0.8, 0.8],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[-100, -100, 2.5 * number],
            SliceThickness=2.5,
            InstanceNumber=number + 1,
            FrameOfReferenceUID=derived_uid("golden", "frame"),
        )
    )


_GAMMA = np.rint(4095 * (np.arange(800) / 799) ** 0.6)
_LOG = np.rint(60000 * np.log1p(np.arange(1024)) / np.log(1024))

_PROJECTIONS = [
    _Case(
        "window",
        "12 bits, LINEAR window (the first of two), reduced",
        (1.71, 1.37),
        12,
        _elements(WindowCenter=[2047.5, 100], WindowWidth=[3501, 50]),
    ),
    _Case(
        "monochrome1_rescale",
        "MONOCHROME1, rescale with fractions, window in modality units, PixelSpacing not square",
        (0.61, 0.47),
        12,
        _elements(
            RescaleSlope="0.4375",
            RescaleIntercept="-100.3",
            WindowCenter=700,
            WindowWidth="1511.7",
            PixelSpacing=[0.2, 0.31],
        ),
        photometric="MONOCHROME1",
    ),
    _Case(
        "voi_lut",
        "VOI LUT before the window, ImagerPixelSpacing not square",
        (1.13, 0.83),
        10,
        _all(
            _table("VOILUTSequence", 100, _GAMMA, 12),
            _elements(WindowCenter=512, WindowWidth=1024, ImagerPixelSpacing=[0.143, 0.1]),
        ),
    ),
    _Case(
        "monochrome1_voi_lut",
        "MONOCHROME1, VOI LUT after a rescale to negative values",
        (0.9, 1.21),
        10,
        _all(
            _table("VOILUTSequence", 0x10000 - 100, _GAMMA, 12),
            _elements(RescaleSlope=1, RescaleIntercept=-200),
        ),
        photometric="MONOCHROME1",
    ),
    _Case(
        "min_max_padding",
        "no window: minimum and maximum of the unpadded pixels; a range of padding values",
        (0.77, 0.59),
        12,
        _padding(0, 40),
        change=_corners(17),
    ),
    _Case(
        "monochrome1_padding",
        "MONOCHROME1, padding is dark after the inversion",
        (1.4, 1.1),
        14,
        _all(_padding(16383), _elements(WindowCenter=8000, WindowWidth=12000)),
        photometric="MONOCHROME1",
        change=_corners(16383),
    ),
    _Case(
        "signed",
        "signed 16 bits, LINEAR_EXACT window",
        (1.05, 1.9),
        16,
        _elements(WindowCenter=-500, WindowWidth=50000, VOILUTFunction="LINEAR_EXACT"),
        signed=True,
    ),
    _Case(
        "signed_12",
        "signed 12 bits in 16, with foreign bits above them",
        (0.52, 0.83),
        12,
        _all(_elements(WindowCenter=0, WindowWidth=3000), _overlay),
        signed=True,
    ),
    _Case(
        "high_bit",
        "12 bits stored at the top of the cell, with foreign bits below them",
        (0.67, 0.67),
        12,
        _all(_elements(WindowCenter=2000, WindowWidth=4000), _high_bit),
    ),
    _Case(
        "bytes",
        "8 bits, no window, PixelAspectRatio",
        (0.81, 0.63),
        8,
        _elements(PixelAspectRatio=[3, 2]),
    ),
    _Case(
        "modality_lut",
        "modality LUT, then a window",
        (0.95, 0.7),
        10,
        _all(
            _table("ModalityLUTSequence", 0, _LOG, 16),
            _elements(WindowCenter=30000, WindowWidth=55000),
        ),
    ),
    _Case(
        "step_window",
        "a window of width 1 is a step",
        (0.4, 0.4),
        8,
        _elements(WindowCenter=120, WindowWidth=1),
    ),
    _Case("large", "much reduced", (5.3, 4.1), 8, _elements(WindowCenter=128, WindowWidth=256)),
    _Case("same_size", "not resampled", (1, 1), 12, _elements(WindowCenter=2048, WindowWidth=4096)),
]

_HOUNSFIELD = {"RescaleSlope": 1, "RescaleIntercept": -1024}
_SLICES = [
    _Case("rescale", "12 bits, rescale to HU, reduced", (1.71, 1.37), 12, _elements(**_HOUNSFIELD)),
    _Case(
        "signed_padding",
        "signed 16 bits, declared padding becomes air, PixelSpacing not square",
        (0.83, 0.61),
        12,
        _all(
            _padding(-2000),
            _elements(RescaleSlope=1, RescaleIntercept=0, PixelSpacing=[0.7, 0.9]),
        ),
        signed=True,
        change=_corners(-2000),
    ),
    _Case(
        "padding_sign",
        "padding whose value has the wrong sign",
        (0.7, 0.9),
        16,
        _all(
            _elements(RescaleSlope="0.0625", RescaleIntercept=0),
            lambda dataset: dataset.add_new("PixelPaddingValue", "US", 0x10000 - 32000),
        ),
        signed=True,
        change=_corners(-32000),
    ),
    _Case(
        "fractions",
        "rescale with fractions",
        (0.47, 0.61),
        12,
        _elements(RescaleSlope="0.4375", RescaleIntercept="-1000.3"),
    ),
    _Case(
        "undeclared_fill",
        "values below -1500 HU in the corners become air",
        (1.2, 1.13),
        12,
        _elements(RescaleSlope=1, RescaleIntercept=-3024),
        change=lambda stored: _corners(0)(np.maximum(stored, 2000)),
    ),
    _Case(
        "monochrome1",
        "HU are not inverted; a window is not applied",
        (0.9, 0.7),
        12,
        _elements(**_HOUNSFIELD, WindowCenter=40, WindowWidth=400),
        photometric="MONOCHROME1",
    ),
    _Case(
        "high_bit",
        "12 bits stored at the top of the cell, with foreign bits below them",
        (0.67, 0.67),
        12,
        _all(_elements(**_HOUNSFIELD), _high_bit),
    ),
    _Case(
        "signed_12",
        "signed 12 bits in 16, with foreign bits above them",
        (0.52, 0.83),
        12,
        _all(_elements(RescaleSlope=1, RescaleIntercept=0), _overlay),
        signed=True,
    ),
    _Case("doubled", "enlarged to twice its size: ties", (0.5, 0.5), 12, _elements(**_HOUNSFIELD)),
    _Case(
        "large", "much reduced", (5.3, 4.1), 8, _elements(RescaleSlope=8, RescaleIntercept=-1024)
    ),
    _Case("same_size", "not resampled", (1, 1), 12, _elements(**_HOUNSFIELD)),
]
