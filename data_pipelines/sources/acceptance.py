"""The check that ingest and prediction share: which images of a file a model may be trained on or
applied to.
"""

from __future__ import annotations

from typing import NamedTuple

from data_pipelines.dicom.eligibility import eligible_kind
from data_pipelines.dicom.header import header_of
from data_pipelines.dicom.reader import DicomSource, parse
from data_pipelines.errors import Ineligible
from data_pipelines.kinds import KindName, UnitName, image_kind, kind_in_units
from data_pipelines.pixels.image import Image, image_of
from data_pipelines.runtime.storage import read_file
from data_pipelines.sources.image_source import (
    RASTER_FORMATS,
    file_format_of,
    raster_image,
)
from data_pipelines.volumes.plane import Plane, plane_of, planes_of


class AcceptedImage(NamedTuple):
    """An image that passed the check, its kind, and its plane."""

    image: Image
    kind: KindName
    plane: Plane


def accepted_images(
    source: DicomSource,
    *,
    for_processing: bool = False,
    units: UnitName | None = None,
    digest: bool = True,
) -> list[AcceptedImage]:
    """All frames of a file that a model may be trained on or applied to.

    for_processing: accept FOR PROCESSING radiographs. units: accept a PNG or JPEG with these units
    (None: DICOM only). digest: False leaves `pixel_sha256` of a DICOM image empty. Raises
    DicomError; Ineligible names the reason why a valid file is excluded.
    """
    if units is not None and file_format_of(source) in RASTER_FORMATS:
        data = (
            bytes(source)
            if isinstance(source, bytes | bytearray | memoryview)
            else read_file(str(source))
        )
        return [with_plane(raster_image(data, units))]
    parsed = parse(source, pixels=True)
    header = header_of(parsed)
    kind = eligible_kind(header, for_processing=for_processing)
    planes = planes_of(parsed.dataset, header, 0)
    if any(plane.non_slice_reason for plane in planes):
        code = next(plane.non_slice_reason for plane in planes if plane.non_slice_reason)
        raise Ineligible("A frame of the file is not a slice of intensities.", code=code)
    images = [image_of(parsed.dataset, header, plane.frame, digest=digest) for plane in planes]
    for image in images:
        if image.units != image_kind(kind).units.name:
            raise Ineligible(
                "The CT has no rescale to HU: the unit of its values is unknown.", code="not_hu"
            )
        _refuse_constant(image)
    return [AcceptedImage(image, kind, plane) for image, plane in zip(images, planes, strict=True)]


def with_plane(image: Image) -> AcceptedImage:
    """An image of another format than DICOM with its kind and its plane, which has no position.
    Raises Ineligible (`constant_pixels`).
    """
    _refuse_constant(image)
    return AcceptedImage(image, kind_in_units(image.units).name, plane_of(image.header, 0))


def _refuse_constant(image: Image) -> None:
    if image.pixels.min() == image.pixels.max():
        raise Ineligible("All pixels have the same value.", code="constant_pixels")
