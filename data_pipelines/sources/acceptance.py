"""The gate that ingest and prediction share: every image of a file that a model may learn from or
be asked about.
"""

from __future__ import annotations

from pathlib import Path

from data_pipelines.dicom.eligibility import eligible_kind
from data_pipelines.dicom.header import header_of
from data_pipelines.dicom.reader import DicomSource, parse
from data_pipelines.errors import Ineligible
from data_pipelines.kinds import KindName, UnitName, image_kind
from data_pipelines.pixels.image import Image, image_of
from data_pipelines.sources.image_source import (
    form_of,
    picture_image,
)
from data_pipelines.volumes.plane import Plane, plane_of, planes_of


def accepted_images(
    source: DicomSource,
    *,
    for_processing: bool = False,
    units: UnitName | None = None,
    digest: bool = True,
) -> list[tuple[Image, KindName, Plane]]:
    """Every frame of a file that a model may learn from or be asked about: ingest and prediction
    share this gate.

    `units` lets a PNG or JPEG in; without `digest`, a DICOM image's `pixel_sha256` is ''. Raises
    DicomError; Ineligible says what makes a sound file no picture to learn from.
    """
    if units is not None and form_of(source) in ("png", "jpeg"):
        data = (
            bytes(source)
            if isinstance(source, bytes | bytearray | memoryview)
            else Path(str(source)).read_bytes()
        )
        return [with_plane(picture_image(data, units))]
    parsed = parse(source, pixels=True)
    header = header_of(parsed)
    kind = eligible_kind(header, for_processing=for_processing)
    planes = planes_of(parsed.dataset, header, 0)
    if any(plane.not_a_slice for plane in planes):
        code = next(plane.not_a_slice for plane in planes if plane.not_a_slice)
        raise Ineligible("A frame of it is no slice of intensities.", code=code)
    images = [image_of(parsed.dataset, header, plane.frame, digest=digest) for plane in planes]
    for image in images:
        if image.units != image_kind(kind).units.name:
            raise Ineligible(
                "A CT without a rescale to HU: its values have no known unit.", code="not_hu"
            )
        _refuse_constant(image)
    return [(image, kind, plane) for image, plane in zip(images, planes, strict=True)]


def with_plane(image: Image) -> tuple[Image, KindName, Plane]:
    _refuse_constant(image)
    return image, "ct" if image.units == "HU" else "radiograph", plane_of(image.header, 0)


def _refuse_constant(image: Image) -> None:
    if image.pixels.min() == image.pixels.max():
        raise Ineligible("All pixels are equal: there is nothing to see.", code="constant_pixels")
