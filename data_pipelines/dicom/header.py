"""The technical header of an image: an allow-list of fields, read without the pixel data.

Rules: PS3.3 C.7.6.2 (plane), C.7.6.3 (pixels), C.8.2.1 and C.8.15 (CT), C.8.7.3, C.8.11
(radiographs), PS3.15 Annex E.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from data_pipelines.dicom.elements import Elements, Orientation, Position
from data_pipelines.dicom.reader import (
    DicomSource,
    ParsedDataset,
    parse,
    silence_pydicom,
    transfer_syntax_of,
)
from data_pipelines.dicom.sop_classes import (
    CT_CLASSES,
    GRAYSCALE_PHOTOMETRICS,
    MEDIA_DIRECTORY,
    MR_CLASSES,
    RADIOGRAPH_MODALITIES,
    VIEWS,
)
from data_pipelines.errors import Ineligible

_KEYWORDS = """
SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID Modality PresentationIntentType
Manufacturer ManufacturerModelName PatientID IssuerOfPatientID PatientName PatientBirthDate
PatientSex PatientAge AccessionNumber
BodyPartExamined ConvolutionKernel ImagerPixelSpacing EstimatedRadiographicMagnificationFactor
PixelSpacingCalibrationType FieldOfViewHorizontalFlip FieldOfViewRotation ViewPosition
ViewCodeSequence StudyInstanceUID SeriesInstanceUID AcquisitionNumber TemporalPositionIndex
ImagePositionPatient ImageOrientationPatient FrameOfReferenceUID Laterality ImageLaterality
PatientOrientation SamplesPerPixel PhotometricInterpretation NumberOfFrames Rows Columns
PixelSpacing PixelAspectRatio BitsAllocated BitsStored HighBit PixelRepresentation
BurnedInAnnotation PixelIntensityRelationship PixelIntensityRelationshipSign RescaleType
LossyImageCompression SliceThickness KVP RescaleSlope RescaleIntercept
SharedFunctionalGroupsSequence
TemporalPositionIdentifier TriggerTime FrameReferenceTime NominalPercentageOfCardiacPhase
NominalPercentageOfRespiratoryPhase NominalCardiacTriggerDelayTime
AcquisitionDateTime AcquisitionTime ContentTime
"""
#: elements that tell phases at one position apart, most specific first
PHASE_KEYWORDS = (
    "TemporalPositionIdentifier",
    "NominalPercentageOfCardiacPhase",
    "NominalCardiacTriggerDelayTime",
    "NominalPercentageOfRespiratoryPhase",
    "TriggerTime",
    "FrameReferenceTime",
)
#: the same, where no element above does: the slices of a phase may share one of these
TIME_KEYWORDS = ("AcquisitionDateTime", "AcquisitionTime", "ContentTime")
_TAGS = frozenset(tag for tag in map(tag_for_keyword, _KEYWORDS.split()) if tag is not None)


@dataclass(frozen=True)
class Identifiers:
    """Identifiers of the patient and of the object. `repr` hides the values; they are stored as
    keyed hashes only.
    """

    sop_instance_uid: str = field(repr=False)
    series_instance_uid: str = field(repr=False)
    study_instance_uid: str = field(repr=False)
    patient_id: str = field(repr=False)
    issuer_of_patient_id: str = field(repr=False)
    accession_number: str = field(repr=False, default="")
    patient_name: str = field(repr=False, default="")
    birth_date: str = field(repr=False, default="")


@dataclass(frozen=True)
class Header:
    """Technical fields of one file. '' or None means absent; nothing is guessed.

    Lengths are in mm. Pairs are (row, column), that is (y, x). phases: the values of
    PHASE_KEYWORDS. rescale: slope and intercept. times: the texts of TIME_KEYWORDS.
    """

    sop_class_uid: str
    modality: str
    transfer_syntax: str
    rows: int | None
    columns: int | None
    frames: int
    samples_per_pixel: int
    bits_allocated: int | None
    bits_stored: int | None
    high_bit: int | None
    pixel_representation: int | None
    photometric: str
    pixel_spacing: tuple[float, float] | None
    imager_pixel_spacing: tuple[float, float] | None
    spacing_calibration: str
    magnification: float | None
    pixel_aspect_ratio: tuple[float, float] | None
    position: Position | None
    orientation: Orientation | None
    image_type: tuple[str, ...]
    presentation_intent: str
    body_part: str
    view_position: str
    laterality: str
    patient_orientation: tuple[str, ...]
    field_of_view_flip: str
    field_of_view_rotation: float | None
    manufacturer: str
    model_name: str
    convolution_kernel: str
    patient_sex: str
    patient_age_years: float | None
    burned_in: str
    lossy: bool
    rescale_type: str
    intensity_relationship: str
    intensity_sign: int | None
    acquisition_number: int | None
    temporal_index: int | None
    phases: tuple[float | None, ...]
    slice_thickness: float | None
    kvp: float | None
    rescale: tuple[float | None, float | None]
    times: tuple[str, ...] = field(repr=False)
    frame_of_reference: str = field(repr=False)
    identifiers: Identifiers
    repairs: tuple[str, ...]

    @property
    def has_image(self) -> bool:
        """Whether Rows, Columns and BitsAllocated are there and above 0."""
        return bool(self.rows and self.columns and self.bits_allocated)

    @property
    def is_ct(self) -> bool:
        """Whether Modality or the SOP class is CT."""
        return self.modality == "CT" or self.sop_class_uid in CT_CLASSES

    @property
    def is_mr(self) -> bool:
        """Whether Modality or the SOP class is MR."""
        return self.modality == "MR" or self.sop_class_uid in MR_CLASSES

    @property
    def is_radiograph(self) -> bool:
        """Whether Modality is a projection radiograph (CR, DX, DR, RG, MG, PX, IO)."""
        return self.modality in RADIOGRAPH_MODALITIES

    @property
    def is_grayscale(self) -> bool:
        """Whether a pixel has one sample, and PhotometricInterpretation is grayscale or absent."""
        return self.samples_per_pixel == 1 and self.photometric in GRAYSCALE_PHOTOMETRICS

    @property
    def flags(self) -> tuple[str, ...]:
        """Properties of a valid image that a reader of results should know: derived, secondary,
        lossy.
        """
        flags = {
            "derived": "DERIVED" in self.image_type[:1],
            "secondary": "SECONDARY" in self.image_type[1:2],
            "lossy": self.lossy,
        }
        return tuple(flag for flag, present in flags.items() if present)


def read_header(source: DicomSource) -> Header:
    """The header of a path, of a file's bytes or of a data set; pixel data are not read.

    Raises NotDicom, Unreadable, LimitExceeded, or Ineligible (`not_an_image`) for a DICOMDIR.
    """
    return header_of(parse(source, pixels=False, tags=_TAGS))


def header_of(parsed: ParsedDataset) -> Header:
    """The header of a parsed data set. A malformed optional field counts as absent; `repairs` then
    has the code `invalid_<Keyword>`.
    """
    dataset = parsed.dataset
    meta = getattr(dataset, "file_meta", None) or Dataset()
    with silence_pydicom():
        if Elements(meta).text("MediaStorageSOPClassUID") == MEDIA_DIRECTORY:
            raise Ineligible(
                "A DICOMDIR is an index of files and has no image. Give its folder instead.",
                code="not_an_image",
            )
        return _header(Elements(dataset), transfer_syntax_of(dataset), parsed.repairs)


def _header(e: Elements, transfer_syntax: str, repairs: tuple[str, ...]) -> Header:
    """An enhanced object has what all its frames share in the shared functional groups."""
    shared = Elements(e.item("SharedFunctionalGroupsSequence") or Dataset())
    measures = Elements(shared.item("PixelMeasuresSequence") or e.dataset, e.repairs)
    plane = Elements(shared.item("PlaneOrientationSequence") or e.dataset, e.repairs)
    position = Elements(shared.item("PlanePositionSequence") or e.dataset, e.repairs)
    view = Elements(e.item("ViewCodeSequence") or Dataset())
    return Header(
        transfer_syntax=transfer_syntax,
        sop_class_uid=e.text("SOPClassUID"),
        frame_of_reference=e.text("FrameOfReferenceUID"),
        identifiers=Identifiers(
            sop_instance_uid=e.text("SOPInstanceUID"),
            series_instance_uid=e.text("SeriesInstanceUID"),
            study_instance_uid=e.text("StudyInstanceUID"),
            patient_id=e.text("PatientID"),
            issuer_of_patient_id=e.text("IssuerOfPatientID"),
            accession_number=e.text("AccessionNumber"),
            patient_name=e.text("PatientName"),
            birth_date=e.text("PatientBirthDate"),
        ),
        frames=_frames(e),
        samples_per_pixel=_samples_per_pixel(e),
        rows=e.integer("Rows"),
        columns=e.integer("Columns"),
        bits_allocated=e.integer("BitsAllocated"),
        bits_stored=e.integer("BitsStored"),
        high_bit=e.integer("HighBit"),
        pixel_representation=e.integer("PixelRepresentation"),
        photometric=e.code("PhotometricInterpretation"),
        rescale_type=e.text("RescaleType").upper(),
        intensity_relationship=e.code("PixelIntensityRelationship"),
        intensity_sign=e.integer("PixelIntensityRelationshipSign"),
        imager_pixel_spacing=e.pair("ImagerPixelSpacing", positive=True),
        spacing_calibration=e.code("PixelSpacingCalibrationType"),
        magnification=e.number("EstimatedRadiographicMagnificationFactor"),
        pixel_aspect_ratio=e.pair("PixelAspectRatio", positive=True),
        patient_orientation=e.codes("PatientOrientation"),
        field_of_view_flip=e.code("FieldOfViewHorizontalFlip"),
        field_of_view_rotation=e.number("FieldOfViewRotation"),
        pixel_spacing=measures.pair("PixelSpacing", positive=True),
        orientation=plane.orientation(),
        position=position.position(),
        patient_sex=_sex(e),
        modality=e.code("Modality"),
        image_type=e.codes("ImageType"),
        presentation_intent=e.code("PresentationIntentType"),
        body_part=e.code("BodyPartExamined"),
        view_position=VIEWS.get(view.text("CodeValue"), e.code("ViewPosition")),
        laterality=e.code("ImageLaterality") or e.code("Laterality"),
        manufacturer=e.text("Manufacturer"),
        model_name=e.text("ManufacturerModelName"),
        convolution_kernel=e.text("ConvolutionKernel"),
        patient_age_years=e.age_years(),
        burned_in=e.code("BurnedInAnnotation"),
        lossy=e.code("LossyImageCompression") == "01",
        acquisition_number=e.integer("AcquisitionNumber"),
        temporal_index=e.integer("TemporalPositionIndex"),
        phases=tuple(e.number(keyword) for keyword in PHASE_KEYWORDS),
        slice_thickness=measures.number("SliceThickness"),
        kvp=e.number("KVP"),
        rescale=(e.number("RescaleSlope"), e.number("RescaleIntercept")),
        times=tuple(e.text(keyword) for keyword in TIME_KEYWORDS),
        repairs=repairs + tuple(e.repairs + shared.repairs),
    )


def _frames(e: Elements) -> int:
    frames = e.integer("NumberOfFrames")
    if frames is not None and frames < 1:
        e.repairs.append("invalid_NumberOfFrames")
    return max(frames or 1, 1)


def _samples_per_pixel(e: Elements) -> int:
    samples = e.integer("SamplesPerPixel")
    return 1 if samples is None else samples


def _sex(e: Elements) -> str:
    sex = e.code("PatientSex")
    return sex if sex in ("M", "F", "O") else ""
