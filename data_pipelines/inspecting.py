"""What one file holds that a model may learn from or be asked about. Loads neither pandas nor TensorFlow: decode workers run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_pipelines.doors import Units, array_image, array_members, form_of, picture_image
from data_pipelines.errors import DicomError, Ineligible
from data_pipelines.files import file_sha256
from data_pipelines.headers import Header, Kind, eligibility, header_of
from data_pipelines.images import Image, image_of
from data_pipelines.looks import perceptual_hash
from data_pipelines.parsing import Source, parse
from data_pipelines.planes import Plane, plane_of, planes_of
from data_pipelines.preprocess import UNITS


def look_at(path: str, *, for_processing: bool, units: Units | None) -> list[tuple[str, dict[str, Any] | DicomError]]:
    """What one file gives: (what to add to its path, row or reason), one a frame or image. Raises DicomError for a file
    of which nothing can be used. Runs in a worker."""
    if units is not None and form_of(path) == "npz":
        return [(f"#{name}", found) for name, found in inspect_array(path, units)]
    return [("", row) for row in inspect_file(path, for_processing=for_processing, units=units)]


def inspect_file(path: str, *, for_processing: bool = False, units: Units | None = None) -> list[dict[str, Any]]:
    """Read, decode and describe each frame of a file. Raises DicomError."""
    digest = file_sha256(path)
    form = "dicom" if units is None else form_of(path)
    usable = usable_images(path, for_processing=for_processing, units=units)
    return [{"file_sha256": digest, "form": form, **_row(*one)} for one in usable]


def inspect_array(path: str, units: Units) -> list[tuple[str, dict[str, Any] | DicomError]]:
    """Describe each image of an .npz, or say why it is of no use. Raises DicomError for the whole file."""
    digest = file_sha256(path)
    found: list[tuple[str, dict[str, Any] | DicomError]] = []
    for name, member in array_members(path, digest).items():
        try:
            row = _row(*_with_plane(array_image(member, units)))
            own = {"own_split": member.split, "own_labels": member.labels}
            found.append((name, {"file_sha256": digest, "form": "npz", **own, **row}))
        except DicomError as error:
            found.append((name, error))
    return found


def usable_images(
    source: Source, *, for_processing: bool = False, units: Units | None = None, digest: bool = True
) -> list[tuple[Image, Kind, Plane]]:
    """Every frame of a file that a model may learn from or be asked about: ingest and prediction share this gate.

    `units` lets a PNG or JPEG in; without `digest`, a DICOM image's `pixel_sha256` is ''. Raises DicomError; Ineligible says what
    makes a sound file no picture to learn from.
    """
    if units is not None and form_of(source) in ("png", "jpeg"):
        data = bytes(source) if isinstance(source, bytes | bytearray | memoryview) else Path(str(source)).read_bytes()
        return [_with_plane(picture_image(data, units))]
    parsed = parse(source, pixels=True)
    header = header_of(parsed)
    kind = eligibility(header, for_processing=for_processing)
    planes = planes_of(parsed.dataset, header, 0)
    if any(plane.not_a_slice for plane in planes):
        code = next(plane.not_a_slice for plane in planes if plane.not_a_slice)
        raise Ineligible("A frame of it is no slice of intensities.", code=code)
    images = [image_of(parsed.dataset, header, plane.frame, digest=digest) for plane in planes]
    for image in images:
        if image.units != UNITS[kind]:
            raise Ineligible("A CT without a rescale to HU: its values have no known unit.", code="not_hu")
        _refuse_constant(image)
    return [(image, kind, plane) for image, plane in zip(images, planes, strict=True)]


def _with_plane(image: Image) -> tuple[Image, Kind, Plane]:
    _refuse_constant(image)
    return image, "ct" if image.units == "HU" else "radiograph", plane_of(image.header, 0)


def _refuse_constant(image: Image) -> None:
    if image.pixels.min() == image.pixels.max():
        raise Ineligible("All pixels are equal: there is nothing to see.", code="constant_pixels")


def _row(image: Image, kind: Kind, plane: Plane) -> dict[str, Any]:
    header = image.header
    spacing = image.spacing_mm or (float("nan"), float("nan"))
    return {
        "frame": image.frame,
        "status": "repaired" if image.repairs else "ok",
        "repairs": ";".join(dict.fromkeys(image.repairs)),
        "kind": kind,
        **_technical(header),
        "rows": image.pixels.shape[0],
        "cols": image.pixels.shape[1],
        "row_spacing": spacing[0],
        "col_spacing": spacing[1],
        "pixel_sha256": image.pixel_sha256,
        "look": perceptual_hash(image.pixels),
        "sop_uid": header.identifiers.sop_instance_uid,
        "series_uid": header.identifiers.series_instance_uid,
        "study_uid": header.identifiers.study_instance_uid,
        "patient_id": header.identifiers.patient_id,
        "issuer": header.identifiers.issuer_of_patient_id,
        "plane": plane,
    }


def _technical(header: Header) -> dict[str, Any]:
    return {
        "modality": header.modality,
        "photometric": header.photometric,
        "transfer_syntax": header.transfer_syntax,
        "manufacturer": header.manufacturer,
        "model": header.model_name,
        "body_part": header.body_part,
        "view": header.view_position,
        "laterality": header.laterality,
        "site": "",
        "sex": header.patient_sex,
        "age": float("nan") if header.patient_age_years is None else header.patient_age_years,
    }
