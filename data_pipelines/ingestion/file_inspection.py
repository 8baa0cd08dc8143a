"""What one file contains that a model may learn from. Runs in decode workers, so it loads neither
pandas nor TensorFlow.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict, cast

from pydicom.dataset import Dataset

from data_pipelines.dicom.eligibility import kind_of_header
from data_pipelines.dicom.header import Header, header_of, read_header
from data_pipelines.dicom.reader import ParsedDataset
from data_pipelines.dicom.standard_terms import standard_sop_class
from data_pipelines.errors import DicomError
from data_pipelines.ingestion.perceptual_hash import perceptual_hash
from data_pipelines.kinds import (
    ARRAY_FORMATS,
    ColorRule,
    FileFormat,
    KindName,
    UnitName,
    image_kind,
    kind_in_units,
)
from data_pipelines.pixels.image import Image
from data_pipelines.pixels.standardization import Moments, moments_of
from data_pipelines.runtime.archives import is_member
from data_pipelines.runtime.storage import read_source
from data_pipelines.sources.acceptance import accepted_images, with_plane
from data_pipelines.sources.array_files import NpzImage, is_cifar_name, parse_cifar
from data_pipelines.sources.image_source import (
    RASTER_FORMATS,
    file_format_of,
    npz_image,
    parse_npz,
)
from data_pipelines.sources.nifti import nifti_kind
from data_pipelines.volumes.plane import Plane


class HeaderColumns(TypedDict):
    """Columns that come from the header, and raw identifiers."""

    modality: str
    sop_class: str
    photometric: str
    transfer_syntax: str
    manufacturer: str
    model: str
    body_part: str
    view: str
    laterality: str
    site: str
    sex: str
    age: float
    sop_uid: str
    series_uid: str
    study_uid: str
    patient_id: str
    issuer: str
    patient_name: str
    birth_date: str
    accession_number: str


class ImageColumns(HeaderColumns):
    """Columns of one image: those of the manifest, raw identifiers, the hashes and the plane."""

    frame: int
    status: str
    repairs: str
    kind: KindName
    rows: int
    cols: int
    row_spacing: float
    col_spacing: float
    detector_row_spacing: float
    detector_col_spacing: float
    pixel_sha256: str
    perceptual_hash: str
    plane: Plane


class IndexRow(ImageColumns, total=False):
    """A row of the index, without source and path. own_split and own_labels: images of an .npz.
    moments: of a slice of a volume that is standardized.
    """

    moments: Moments
    file_sha256: str
    form: str
    own_split: str
    own_labels: tuple[int, ...]


class RejectedColumns(HeaderColumns):
    """What the header of a rejected file says. kind: '' where it is none that is read."""

    form: str
    kind: str
    frame: int


class RejectedMember(RejectedColumns):
    """The same of an image of an .npz, with its split and its labels."""

    own_split: str
    own_labels: tuple[int, ...]


class Rejection(NamedTuple):
    """Why a file or an image is rejected, and what its header says; None where it has none."""

    error: DicomError
    columns: RejectedColumns | None


#: for each image of a file: what to add to the path of the file, and its row or why it is rejected
Inspection = list[tuple[str, IndexRow | Rejection]]


def inspect_path(
    path: str,
    *,
    for_processing: bool,
    units: UnitName | None,
    nifti_units: UnitName | None = None,
    color: ColorRule = "refuse",
    declared: KindName | None = None,
) -> Inspection:
    """Inspect a file in a worker, reading it once. Raises DicomError when it cannot be read."""
    data = read_source(path)
    file_format = file_format_of(data, name=path)
    is_array = file_format in ARRAY_FORMATS and not is_member(path)
    try:
        if units is not None and is_array and file_format in kind_in_units(units).file_formats:
            results = inspect_array(data, units, path=path)
            return [(f"#{name}", result) for name, result in results]
        rows = inspect_file(
            data,
            for_processing=for_processing,
            units=units,
            nifti_units=nifti_units,
            color=color,
            file_format=file_format,
            declared=declared,
        )
        return [("", row) for row in rows]
    except DicomError as error:
        columns = rejected_columns(data, file_format, units, nifti_units)
        return [("", Rejection(error, columns))]


def rejected_columns(
    data: bytes,
    file_format: FileFormat,
    units: UnitName | None,
    nifti_units: UnitName | None = None,
) -> RejectedColumns | None:
    """What is known of a rejected file: its header, or that it is a NIfTI file or, where `units`
    are declared, a PNG or JPEG; else None.
    """
    if file_format == "nifti":
        return {**blank_columns(), "form": file_format, "kind": nifti_kind(nifti_units).name}
    if file_format in RASTER_FORMATS:
        return (
            None
            if units is None
            else {**blank_columns(), "form": file_format, "kind": kind_in_units(units).name}
        )
    try:
        header = read_header(data)
    except DicomError:
        return None
    kind = kind_of_header(header)
    name = "" if kind is None else kind.name
    return {"form": file_format, "kind": name, "frame": 0, **_of_header(header)}


def columns_of_row(row: Mapping[Any, Any]) -> RejectedColumns:
    """The columns of an image that was accepted at first, for the file when it is rejected."""
    columns = {name: row[name] for name in RejectedColumns.__annotations__}
    return cast(RejectedColumns, columns)


def blank_columns() -> RejectedColumns:
    """The columns of a file of which nothing is known."""
    header = header_of(ParsedDataset(Dataset(), ()))
    return {"form": "dicom", "kind": "", "frame": 0, **_of_header(header)}


def inspect_file(
    source: str | bytes,
    *,
    for_processing: bool = False,
    units: UnitName | None = None,
    nifti_units: UnitName | None = None,
    color: ColorRule = "refuse",
    file_format: FileFormat | None = None,
    declared: KindName | None = None,
) -> list[IndexRow]:
    """Decode and describe each frame of a file, given by its path or its bytes. Raises DicomError.

    for_processing: accept raw radiographs. units: of the values of a PNG or JPEG; None accepts
    DICOM only. nifti_units: of a NIfTI file. color: see accepted_images. file_format: where the
    caller knows it. declared: the only kind that is accepted, see eligible_kind.
    """
    data = source if isinstance(source, bytes) else read_source(source)
    digest = hashlib.sha256(data).hexdigest()
    form = file_format or file_format_of(data)
    images = accepted_images(
        data,
        for_processing=for_processing,
        units=units,
        nifti_units=nifti_units,
        color=color,
        file_format=form,
        declared=declared,
    )
    return [{"file_sha256": digest, "form": form, **_image_columns(*image)} for image in images]


def inspect_array(data: bytes, units: UnitName, *, path: str = "") -> Inspection:
    """Describe each image of the bytes of an .npz, or of a binary file of CIFAR by its path, or say
    why it is rejected. Raises DicomError for the whole file.
    """
    digest = hashlib.sha256(data).hexdigest()
    results: Inspection = []
    if is_cifar_name(path):
        members = parse_cifar(data, path)
    else:
        members = parse_npz(data, channels=kind_in_units(units).channels)
    for name, member in members.items():
        try:
            columns = _image_columns(*with_plane(npz_image(member, units)))
        except DicomError as error:
            results.append((name, Rejection(error, _rejected_member(member, units))))
            continue
        row: IndexRow = {
            "file_sha256": digest,
            "form": member.file_format,
            "own_split": member.split,
            "own_labels": member.labels,
            **columns,
        }
        results.append((name, row))
    return results


def _rejected_member(member: NpzImage, units: UnitName) -> RejectedMember:
    return {
        **blank_columns(),
        "form": member.file_format,
        "kind": kind_in_units(units).name,
        "own_split": member.split,
        "own_labels": member.labels,
    }


def _image_columns(image: Image, kind: KindName, plane: Plane) -> IndexRow:
    header = image.header
    unknown = (math.nan, math.nan)
    spacing, detector = image.spacing_mm or unknown, header.imager_pixel_spacing or unknown
    columns: IndexRow = {
        "frame": image.frame,
        "status": "repaired" if image.repairs else "ok",
        "repairs": ";".join(dict.fromkeys(image.repairs)),
        "kind": kind,
        **_of_header(header),
        "rows": image.pixels.shape[0],
        "cols": image.pixels.shape[1],
        "row_spacing": spacing[0],
        "col_spacing": spacing[1],
        "detector_row_spacing": detector[0],
        "detector_col_spacing": detector[1],
        "pixel_sha256": image.pixel_sha256,
        "perceptual_hash": perceptual_hash(image.gray),
        "plane": plane,
    }
    if image_kind(kind).is_standardized:
        columns["moments"] = moments_of(image)
    return columns


def _of_header(header: Header) -> HeaderColumns:
    return {
        "modality": header.modality,
        "sop_class": standard_sop_class(header.sop_class_uid),
        "photometric": header.photometric,
        "transfer_syntax": header.transfer_syntax,
        "manufacturer": header.manufacturer,
        "model": header.model_name,
        "body_part": header.body_part,
        "view": header.view_position,
        "laterality": header.laterality,
        "site": "",
        "sex": header.patient_sex,
        "age": math.nan if header.patient_age_years is None else header.patient_age_years,
        "sop_uid": header.identifiers.sop_instance_uid,
        "series_uid": header.identifiers.series_instance_uid,
        "study_uid": header.identifiers.study_instance_uid,
        "patient_id": header.identifiers.patient_id,
        "issuer": header.identifiers.issuer_of_patient_id,
        "patient_name": header.identifiers.patient_name,
        "birth_date": header.identifiers.birth_date,
        "accession_number": header.identifiers.accession_number,
    }
