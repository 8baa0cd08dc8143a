"""The images that a result is about, as clean headers: what the objects of a result take over from
them, and nothing else.

An attribute that DICOM allows to be empty (type 2) is written empty where the images do not have
it, never invented; one that it does not (type 1) refuses the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pydicom.config import RAISE
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.valuerep import PersonName, validate_value

from data_pipelines.dicom.elements import Elements
from data_pipelines.dicom.reader import silence_pydicom
from data_pipelines.pseudonyms import patient_key
from medres.errors import ResultError

REQUIRED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Rows",
    "Columns",
)
#: patient and study, type 2; and which of their values have a fixed form
_TYPE_2 = {
    "PatientName": "",
    "PatientID": "",
    "PatientBirthDate": "DA",
    "PatientSex": "CS",
    "StudyDate": "DA",
    "StudyTime": "TM",
    "ReferringPhysicianName": "",
    "StudyID": "SH",
    "AccessionNumber": "SH",
}
_SEXES = ("M", "F", "O")
_OPTIONAL = ("IssuerOfPatientID", "StudyDescription", "Modality")
_AXES = ("LR", "PA", "HF")  # letters of PatientOrientation towards + and - of each axis of LPS
_IMAGE = (
    "BurnedInAnnotation",
    "DimensionIndexSequence",
    "DimensionOrganizationSequence",
    "FrameOfReferenceUID",
    "ImageLaterality",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "Laterality",
    "LossyImageCompression",
    "LossyImageCompressionMethod",
    "LossyImageCompressionRatio",
    "NumberOfFrames",
    "PatientOrientation",
    "PerFrameFunctionalGroupsSequence",
    "PixelSpacing",
    "PositionReferenceIndicator",
    "SharedFunctionalGroupsSequence",
    "SliceThickness",
    "SpacingBetweenSlices",
)


@dataclass(frozen=True, eq=False)
class SourceStudy:
    """The images of one study of one patient: SOP Instance UID -> header without pixels, see
    `source_study`, in the order in which they were given.
    """

    by_uid: dict[str, Dataset] = field(repr=False)

    @property
    def headers(self) -> tuple[Dataset, ...]:
        """All images, in the order of their UIDs: in whichever order they were given, an object
        that refers to them is the same.
        """
        return tuple(self.by_uid[uid] for uid in sorted(self.by_uid))

    @property
    def frames(self) -> tuple[tuple[str, int], ...]:
        """(SOP Instance UID, frame from 0 on) of all images, in the order in which they were
        given.
        """
        return tuple(
            (uid, frame)
            for uid, header in self.by_uid.items()
            for frame in range(int(header.get("NumberOfFrames") or 1))
        )

    @property
    def first(self) -> Dataset:
        """The image from which patient and study are taken."""
        return self.headers[0]

    def header(self, sop_instance_uid: str) -> Dataset:
        """The image with this UID. Raises ResultError (unknown_image)."""
        if sop_instance_uid not in self.by_uid:
            raise ResultError(
                "a result refers to an image that is not among the images of its study",
                code="unknown_image",
            )
        return self.by_uid[sop_instance_uid]


def source_study(datasets: Sequence[Dataset]) -> SourceStudy:
    """Check the images of a result and take over what its objects need.

    Raises ResultError: no_image; missing_attribute (a type 1 attribute is absent);
    several_studies; several_patients.
    """
    if not datasets:
        raise ResultError("a result needs the images that it is about", code="no_image")
    with silence_pydicom():
        headers = {str(header.SOPInstanceUID): header for header in map(_header, datasets)}
        first = next(iter(headers.values()))
        if any(h.StudyInstanceUID != first.StudyInstanceUID for h in headers.values()):
            raise ResultError(
                "the images are of several studies; make one result for each of them",
                code="several_studies",
            )
        if len({_patient(header) for header in headers.values()}) > 1:
            raise ResultError(
                "the images are of several patients; make one result for each of them",
                code="several_patients",
            )
    return SourceStudy(headers)


def require_attribute(header: Dataset, keyword: str, what: str) -> None:
    """Raise ResultError (missing_attribute) where an image has no value of a type 1 attribute."""
    if not header.get(keyword):
        raise missing(keyword, what)


def missing(keyword: str, what: str) -> ResultError:
    return ResultError(
        f"an image has no {keyword}, which {what} must have (type 1). It is never invented: "
        f"correct the image at its source",
        code="missing_attribute",
    )


def patient_orientation(header: Dataset) -> list[str] | str:
    """PatientOrientation of an image: its own, else from the axes that its rows and columns follow
    most; '' where neither is known.
    """
    own = header.get("PatientOrientation")
    if own is not None and not isinstance(own, str) and len(own) == 2 and all(own):
        return [str(value) for value in own]
    cosines = header.get("ImageOrientationPatient")
    if cosines is None or len(cosines) != 6:
        return ""
    letters = []
    for direction in np.reshape([float(v) for v in cosines], (2, 3)):
        axis = int(np.abs(direction).argmax())
        letters.append(_AXES[axis][0 if direction[axis] > 0 else 1])
    return letters


def _patient(header: Dataset) -> str:
    return patient_key(str(header.get("IssuerOfPatientID", "")), str(header.PatientID))


def _header(dataset: Dataset) -> Dataset:
    e, header = Elements(dataset), Dataset()
    for keyword in REQUIRED:
        value = e.text(keyword) if keyword.endswith("UID") else e.integer(keyword)
        if not value:
            raise missing(keyword, "the object of a result")
        setattr(header, keyword, value)
    for keyword, vr in _TYPE_2.items():
        text = "\\".join(map(str, e.values(keyword))).strip()
        is_valid = _is_valid(vr, text) and (keyword != "PatientSex" or text in _SEXES)
        value = text if is_valid else ""
        setattr(header, keyword, PersonName(value) if keyword.endswith("Name") else value)
    for keyword in _OPTIONAL:
        if e.text(keyword):
            setattr(header, keyword, e.text(keyword))
    for keyword in _IMAGE:
        _copy(e, keyword, header)
    return header


def _copy(e: Elements, keyword: str, header: Dataset) -> None:
    values = e.values(keyword)
    if keyword.endswith("Sequence"):
        if e.items(keyword):
            setattr(header, keyword, DicomSequence(e.items(keyword)))
    elif values and values != [""]:
        setattr(header, keyword, values if len(values) > 1 else values[0])


def _is_valid(vr: str, text: str) -> bool:
    if not vr:
        return True
    try:
        validate_value(vr, text, RAISE)
    except ValueError:
        return False
    return True
