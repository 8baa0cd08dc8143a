"""What a file below MASKS is, and what it refers to, from its header alone. Runs in workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from pydicom.dataset import Dataset

from data_pipelines.annotations.dicom_seg import LABEL_MAP_SEGMENTATION, SEGMENTATION
from data_pipelines.annotations.raw_mask import Identity
from data_pipelines.annotations.rtstruct import STRUCTURE_SET
from data_pipelines.dicom.elements import Elements
from data_pipelines.dicom.reader import parse
from data_pipelines.errors import NotDicom
from data_pipelines.runtime.storage import read_source
from data_pipelines.sources.image_source import RASTER_FORMATS, file_format_of

MaskFormat = Literal["raster", "nifti", "segmentation", "structures", "none"]
#: formats that say themselves which images they belong to
WITH_REFERENCES: tuple[MaskFormat, ...] = ("segmentation", "structures")
_FORMAT_OF_CLASS: dict[str, MaskFormat] = {
    SEGMENTATION: "segmentation",
    LABEL_MAP_SEGMENTATION: "segmentation",
    STRUCTURE_SET: "structures",
}
#: sequences on the way to the images that a segmentation or a structure set refers to
_PATHS = (
    ("ReferencedSeriesSequence", "ReferencedInstanceSequence"),
    ("SourceImageSequence",),
    ("SharedFunctionalGroupsSequence", "DerivationImageSequence", "SourceImageSequence"),
    ("PerFrameFunctionalGroupsSequence", "DerivationImageSequence", "SourceImageSequence"),
    (
        "ReferencedFrameOfReferenceSequence",
        "RTReferencedStudySequence",
        "RTReferencedSeriesSequence",
        "ContourImageSequence",
    ),
    ("ROIContourSequence", "ContourSequence", "ContourImageSequence"),
)
_SERIES_PATHS = (
    ("ReferencedSeriesSequence",),
    (
        "ReferencedFrameOfReferenceSequence",
        "RTReferencedStudySequence",
        "RTReferencedSeriesSequence",
    ),
)


@dataclass(frozen=True)
class MaskFile:
    """What a file is, and for DICOM whom and what it is about."""

    file_format: MaskFormat
    identity: Identity = field(default_factory=Identity)


def inspect_mask(path: str) -> MaskFile:
    """What one file is; the format "none" where it is no mask. Raises DicomError where it cannot be
    read.
    """
    data = read_source(path)
    form = file_format_of(data, name=path)
    if form in RASTER_FORMATS:
        return MaskFile("raster")
    if form == "nifti":
        return MaskFile("nifti")
    try:
        dataset = parse(data, pixels=False).dataset
    except NotDicom:
        return MaskFile("none")
    e = Elements(dataset)
    kind = _FORMAT_OF_CLASS.get(e.text("SOPClassUID"))
    return MaskFile("none") if kind is None else MaskFile(kind, identity_of(e))


def identity_of(e: Elements) -> Identity:
    """Whom and what a segmentation or a structure set is about."""
    frames = [e.text("FrameOfReferenceUID")]
    for sequence, keyword in (
        ("ReferencedFrameOfReferenceSequence", "FrameOfReferenceUID"),
        ("StructureSetROISequence", "ReferencedFrameOfReferenceUID"),
    ):
        frames += [Elements(item).text(keyword) for item in e.items(sequence)]
    return Identity(
        patient_id=e.text("PatientID"),
        issuer=e.text("IssuerOfPatientID"),
        frame_of_reference=next(filter(None, frames), ""),
        sop_uids=_uids(e, _PATHS, "ReferencedSOPInstanceUID"),
        series_uids=_uids(e, _SERIES_PATHS, "SeriesInstanceUID"),
    )


def _uids(e: Elements, paths: tuple[tuple[str, ...], ...], keyword: str) -> frozenset[str]:
    uids = {
        Elements(item).text(keyword) for path in paths for item in _items_along(e.dataset, path)
    }
    return frozenset(uids - {""})


def _items_along(dataset: Dataset, path: tuple[str, ...]) -> Iterator[Dataset]:
    first, *rest = path
    for item in Elements(dataset).items(first):
        if rest:
            yield from _items_along(item, tuple(rest))
        else:
            yield item
