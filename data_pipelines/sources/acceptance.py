"""The check that ingest and prediction share: which images of a file a model may be trained on or
applied to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

from data_pipelines.dicom.eligibility import eligible_kind
from data_pipelines.dicom.header import Header, header_of
from data_pipelines.dicom.reader import DicomSource, parse
from data_pipelines.errors import ColourImage, Ineligible
from data_pipelines.kinds import (
    ColorRule,
    FileFormat,
    KindName,
    UnitName,
    image_kind,
    kind_in_units,
    kinds_with_series,
)
from data_pipelines.pixels.image import Image, image_of
from data_pipelines.runtime.storage import read_file
from data_pipelines.sources.image_source import (
    RASTER_FORMATS,
    file_format_of,
    raster_image,
)
from data_pipelines.sources.nifti import declared_units, nifti_image, nifti_kind, read_nifti
from data_pipelines.volumes.plane import Plane, plane_of, planes_of

#: repair code of a slice whose pixels are all equal
CONSTANT_SLICE = "constant_slice"


#: is called with the format, the kind and the header of a file (None for PNG and JPEG)
HeaderCheck = Callable[[FileFormat, KindName, Header | None], None]


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
    check_header: HeaderCheck | None = None,
    color: ColorRule = "refuse",
    nifti_units: UnitName | None = None,
    file_format: FileFormat | None = None,
    declared: KindName | None = None,
) -> list[AcceptedImage]:
    """All frames of a file that a model may be trained on or applied to.

    for_processing: accept FOR PROCESSING radiographs. units: accept a PNG or JPEG with these units
    (None: DICOM only). digest: False leaves `pixel_sha256` of a DICOM image empty. check_header: is
    called before anything is decoded; its exceptions are passed on. color: whether the luminance of
    a radiograph that is truly in color is taken, see read_image. nifti_units: those of a NIfTI
    file, which is a volume of slices. file_format: where the caller knows it. declared: see
    eligible_kind.

    Frames are judged one by one. A slice of a series whose pixels are all equal is kept, with the
    repair code `constant_slice`; frames that are no slice are left out, and the others have the
    code `frames_left_out`. Raises DicomError; Ineligible names the reason why no frame is accepted.
    """
    file_format = file_format or file_format_of(source)
    if file_format == "nifti":
        if check_header is not None:
            check_header(file_format, nifti_kind(nifti_units).name, None)
        return _nifti_slices(source, nifti_units, digest=digest)
    if units is not None and file_format in RASTER_FORMATS:
        if check_header is not None:
            check_header(file_format, kind_in_units(units).name, None)
        data = (
            bytes(source)
            if isinstance(source, bytes | bytearray | memoryview)
            else read_file(str(source))
        )
        return [with_plane(raster_image(data, units, color=color))]
    parsed = parse(source, pixels=True)
    header = header_of(parsed)
    kind = eligible_kind(header, for_processing=for_processing, declared=declared)
    if check_header is not None:
        check_header("dicom", kind, header)
    planes = planes_of(parsed.dataset, header, 0)
    slices = [plane for plane in planes if not plane.non_slice_reason]
    if not slices:
        raise Ineligible(
            "No frame of the file is a slice of intensities.", code=planes[0].non_slice_reason
        )
    accepted = []
    for plane in slices:
        try:
            image = image_of(parsed.dataset, header, plane.frame, digest=digest, color=color)
        except ColourImage as error:
            raise Ineligible(str(error), code=error.code) from None
        if image.units != image_kind(kind).read_units.name:
            raise Ineligible(
                "The CT has no rescale to HU: the unit of its values is unknown.", code="not_hu"
            )
        accepted.append(AcceptedImage(image, kind, plane))
    return _flagged(accepted, n_frames=len(planes))


def _nifti_slices(
    source: DicomSource, nifti_units: UnitName | None, *, digest: bool
) -> list[AcceptedImage]:
    units = declared_units(nifti_units)  # raises where there are none
    volume = read_nifti(source if isinstance(source, str | Path) else bytes(cast(bytes, source)))
    accepted = [
        AcceptedImage(
            nifti_image(volume, plane.frame, units, digest=digest),
            kind_in_units(units).name,
            plane,
        )
        for plane in volume.planes()
    ]
    return _flagged(accepted, n_frames=len(accepted))


def _flagged(accepted: list[AcceptedImage], *, n_frames: int) -> list[AcceptedImage]:
    """The images of a file without constant ones, except slices of a series, which are flagged: a
    hole in the series would be worse. Where frames are left out, the others are flagged.

    Raises Ineligible (`constant_pixels`) where no frame is left, and where a file of several frames
    has only constant ones.
    """
    constant = [is_constant(image) for image, _, _ in accepted]
    if all(constant) and (len(accepted) > 1 or not _is_slice(accepted[0])):
        raise _constant_pixels()
    remaining = [
        _flag(_constant_slice(each), CONSTANT_SLICE) if is_one else each
        for each, is_one in zip(accepted, constant, strict=True)
        if not is_one or _is_slice(each)
    ]
    if len(remaining) == n_frames:
        return remaining
    return [_flag(each, "frames_left_out") for each in remaining]


def _is_slice(accepted: AcceptedImage) -> bool:
    return accepted.kind in kinds_with_series() and accepted.plane.position is not None


def _constant_slice(accepted: AcceptedImage) -> AcceptedImage:
    """With a hash of its own: equal constant slices of other series are no copies of it."""
    image, _, plane = accepted
    identifiers = image.header.identifiers
    patient = (identifiers.issuer_of_patient_id, identifiers.patient_id)
    content = repr((image.pixel_sha256, patient, plane.series, plane.position))
    digest = hashlib.sha256(content.encode()).hexdigest() if image.pixel_sha256 else ""
    return accepted._replace(image=replace(image, pixel_sha256=digest))


def _flag(accepted: AcceptedImage, code: str) -> AcceptedImage:
    image = accepted.image
    return accepted._replace(image=replace(image, repairs=(*image.repairs, code)))


def with_plane(image: Image) -> AcceptedImage:
    """An image of another format than DICOM with its kind and its plane, which has no position.
    Raises Ineligible (`constant_pixels`).
    """
    if is_constant(image):
        raise _constant_pixels()
    return AcceptedImage(image, kind_in_units(image.units).name, plane_of(image.header, 0))


def is_constant(image: Image) -> bool:
    """Whether all pixels have one value."""
    return bool(image.pixels.min() == image.pixels.max())


def _constant_pixels() -> Ineligible:
    return Ineligible("All pixels have the same value.", code="constant_pixels")
