"""One received image as a PNG, decoded and windowed in an isolated worker. Loads neither TensorFlow
nor pandas.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from data_pipelines.dicom.header import header_of
from data_pipelines.dicom.reader import parse, silence_pydicom
from data_pipelines.kinds import UNITS
from data_pipelines.pixels.image import image_of
from data_pipelines.runtime.plain_text import escaped
from medres.results.drawing import displayed
from medres.serve.page.drawing import png_bytes

Window = tuple[float, float]  # center and width, in HU
MAX_TEXT = 120  # characters of a value that is shown
_WHOSE = {
    "Patient ID": "PatientID",
    "Issuer of patient ID": "IssuerOfPatientID",
    "Patient name": "PatientName",
    "Birth date": "PatientBirthDate",
    "Study date": "StudyDate",
    "Study": "StudyDescription",
    "Accession number": "AccessionNumber",
    "Series": "SeriesDescription",
}


class ImageOrder(NamedTuple):
    """What a worker needs. frame: from 0 on."""

    path: str
    frame: int
    window: Window


@dataclass(frozen=True)
class ShownImage:
    """An image as people see it. frames: how many the file has. has_window: whether the window had
    an effect. aspect: height of a pixel divided by its width. whose: label -> value, what the file
    says of the patient and the study.
    """

    png: bytes = field(repr=False)
    rows: int
    columns: int
    frames: int
    has_window: bool
    aspect: float
    whose: dict[str, str] = field(repr=False)


def shown_image(order: ImageOrder) -> ShownImage:
    """Run in a worker. Raises DicomError as `read_image` does."""
    parsed = parse(order.path, pixels=True)
    header = header_of(parsed)
    image = image_of(parsed.dataset, header, order.frame, digest=False, color="luminance")
    units, pixels = UNITS[image.units], displayed(image, order.window)
    with silence_pydicom():
        values = {label: str(parsed.dataset.get(word) or "") for label, word in _WHOSE.items()}
    values |= {label: _dashed(values[label]) for label in ("Birth date", "Study date")}
    return ShownImage(
        png=png_bytes(np.rint(255 * pixels).astype(np.uint8), aspect=image.aspect),
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        frames=header.frames,
        has_window=units.bounds is None and units.air is not None,
        aspect=float(image.aspect),
        whose={label: escaped(text.strip())[:MAX_TEXT] for label, text in values.items() if text},
    )


def _dashed(date: str) -> str:
    """A DICOM date with dashes; other text as it is."""
    is_date = len(date) == 8 and date.isdecimal()
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if is_date else date
