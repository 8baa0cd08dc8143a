"""What one file holds that a model may learn from or be asked about. Loads neither pandas nor
TensorFlow: decode workers run it.
"""

from __future__ import annotations

from typing import Any

from data_pipelines.dicom.header import Header
from data_pipelines.errors import DicomError
from data_pipelines.ingestion.perceptual_hash import perceptual_hash
from data_pipelines.kinds import KindName, UnitName
from data_pipelines.pixels.image import Image
from data_pipelines.runtime.atomic_files import file_sha256
from data_pipelines.sources.acceptance import accepted_images, with_plane
from data_pipelines.sources.image_source import (
    file_format_of,
    npz_image,
    npz_images,
)
from data_pipelines.volumes.plane import Plane


def inspect_path(
    path: str, *, for_processing: bool, units: UnitName | None
) -> list[tuple[str, dict[str, Any] | DicomError]]:
    """What one file gives: (what to add to its path, row or reason), one a frame or image. Raises
    DicomError for a file of which nothing can be used. Runs in a worker.
    """
    if units is not None and file_format_of(path) == "npz":
        return [(f"#{name}", found) for name, found in inspect_array(path, units)]
    return [("", row) for row in inspect_file(path, for_processing=for_processing, units=units)]


def inspect_file(
    path: str, *, for_processing: bool = False, units: UnitName | None = None
) -> list[dict[str, Any]]:
    """Read, decode and describe each frame of a file. Raises DicomError."""
    digest = file_sha256(path)
    form = "dicom" if units is None else file_format_of(path)
    usable = accepted_images(path, for_processing=for_processing, units=units)
    return [{"file_sha256": digest, "form": form, **_row(*one)} for one in usable]


def inspect_array(path: str, units: UnitName) -> list[tuple[str, dict[str, Any] | DicomError]]:
    """Describe each image of an .npz, or say why it is of no use. Raises DicomError for the whole
    file.
    """
    digest = file_sha256(path)
    found: list[tuple[str, dict[str, Any] | DicomError]] = []
    for name, member in npz_images(path, digest).items():
        try:
            row = _row(*with_plane(npz_image(member, units)))
            own = {"own_split": member.split, "own_labels": member.labels}
            found.append((name, {"file_sha256": digest, "form": "npz", **own, **row}))
        except DicomError as error:
            found.append((name, error))
    return found


def _row(image: Image, kind: KindName, plane: Plane) -> dict[str, Any]:
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
