"""The position of one slice, and what it must share with other slices of the same volume. PS3.3
C.7.6.2, C.7.6.16, C.7.6.17.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pydicom.dataset import Dataset

from data_pipelines.dicom.elements import Elements, Orientation, Position
from data_pipelines.dicom.eligibility import non_slice_reason
from data_pipelines.dicom.header import PHASE_KEYWORDS, Header
from data_pipelines.dicom.reader import silence_pydicom
from data_pipelines.dicom.sop_classes import FRAME_TYPE_MODALITIES
from data_pipelines.pixels.grayscale_module import frame_group
from data_pipelines.pseudonyms import patient_key

#: dimensions that say where a frame is, not when or how it was acquired: ImagePositionPatient,
#: InStackPositionNumber
_POSITION_POINTERS = frozenset({0x00200032, 0x00209057})
#: functional group macros that tell phases apart (C.7.6.16.2)
_PHASE_SEQUENCES = (
    "TemporalPositionSequence",
    "CardiacSynchronizationSequence",
    "RespiratorySynchronizationSequence",
)


@dataclass(frozen=True, slots=True)
class Plane:
    """The plane of one slice: a file, or a frame of a file. Lengths are in mm, directions are
    cosines, both in the LPS axes of the patient.

    source_index: index of the file in the caller's list. frame: 0-based index in the file.
    dimensions, temporal, acquisition: these may differ between slices at the same position.
    phases: as `Header.phases`; they too may differ at one position.
    technique: slice thickness, kVp, rescale slope and intercept. times: as `Header.times`.
    non_slice_reason: the reason code where the image is not a slice, else ''.
    """

    source_index: int
    frame: int
    series: str = field(repr=False)
    frame_of_reference: str = field(repr=False)
    modality: str
    rows: int
    columns: int
    spacing: tuple[float, float] | None
    orientation: Orientation | None
    position: Position | None
    image_type: tuple[str, ...]
    kernel: str
    stack: str
    dimensions: tuple[int, ...]
    temporal: int | None
    acquisition: int | None
    non_slice_reason: str
    phases: tuple[float | None, ...] = ()
    technique: tuple[float | None, ...] = ()
    times: tuple[str, ...] = field(default=(), repr=False)
    study: str = field(default="", repr=False)
    patient: str = field(default="", repr=False)

    @property
    def is_slice(self) -> bool:
        """Whether its place in the patient is known, so that it may be part of a volume."""
        geometry = (self.orientation, self.position, self.spacing)
        return None not in geometry and not self.non_slice_reason


def plane_of(header: Header, source_index: int) -> Plane:
    """The plane of a single-frame file, or what all frames of a multi-frame file share."""
    return Plane(
        source_index=source_index,
        frame=0,
        series=header.identifiers.series_instance_uid,
        frame_of_reference=header.frame_of_reference,
        modality=header.modality,
        rows=header.rows or 0,
        columns=header.columns or 0,
        spacing=header.pixel_spacing,
        orientation=header.orientation,
        position=header.position,
        image_type=header.image_type,
        kernel=header.convolution_kernel,
        stack="",
        dimensions=(),
        temporal=header.temporal_index,
        acquisition=header.acquisition_number,
        non_slice_reason=_non_image_reason(header),
        phases=header.phases,
        technique=(header.slice_thickness, header.kvp, *header.rescale),
        times=header.times,
        study=header.identifiers.study_instance_uid,
        patient=patient_key(header.identifiers.issuer_of_patient_id, header.identifiers.patient_id),
    )


def _non_image_reason(header: Header) -> str:
    if not header.has_image:
        return "no_image"
    if not (header.is_grayscale or header.is_radiograph):
        return "colour"
    return non_slice_reason(header.image_type) or ""


def planes_of(dataset: Dataset, header: Header, source_index: int) -> list[Plane]:
    """The plane of each frame of a parsed file. An enhanced object has them in its functional
    groups.
    """
    if header.frames == 1 and "PerFrameFunctionalGroupsSequence" not in dataset:
        return [plane_of(header, source_index)]
    with silence_pydicom():
        non_spatial = _non_spatial_dimensions(dataset)
        return [
            _frame_plane(dataset, plane_of(header, source_index), frame, non_spatial)
            for frame in range(header.frames)
        ]


def _frame_plane(dataset: Dataset, shared: Plane, frame: int, non_spatial: list[int]) -> Plane:
    position = frame_group(dataset, frame, "PlanePositionSequence")
    plane = frame_group(dataset, frame, "PlaneOrientationSequence")
    measures = frame_group(dataset, frame, "PixelMeasuresSequence")
    content = frame_group(dataset, frame, "FrameContentSequence")
    frame_type = (
        frame_group(dataset, frame, f"{shared.modality}ImageFrameTypeSequence")
        if shared.modality in FRAME_TYPE_MODALITIES
        else position
    )
    image_type = frame_type.codes("FrameType") or shared.image_type
    values = frame_group(dataset, frame, "PixelValueTransformationSequence")
    x_ray = frame_group(dataset, frame, "CTXRayDetailsSequence")
    indices = [int(index) for index in content.numbers("DimensionIndexValues") or ()]
    return replace(
        shared,
        frame=frame,
        image_type=image_type,
        stack=content.text("StackID"),
        spacing=measures.pair("PixelSpacing", positive=True),
        orientation=plane.orientation(),
        position=position.position(),
        dimensions=tuple(indices[i] for i in non_spatial if i < len(indices)),
        temporal=content.integer("TemporalPositionIndex"),
        acquisition=content.integer("FrameAcquisitionNumber"),
        non_slice_reason=shared.non_slice_reason or non_slice_reason(image_type) or "",
        phases=_frame_phases(dataset, frame),
        technique=(
            measures.number("SliceThickness"),
            x_ray.number("KVP"),
            values.number("RescaleSlope"),
            values.number("RescaleIntercept"),
        ),
    )


def _frame_phases(dataset: Dataset, frame: int) -> tuple[float | None, ...]:
    groups = [frame_group(dataset, frame, sequence) for sequence in _PHASE_SEQUENCES]
    return tuple(
        next((n for group in groups if (n := group.number(keyword)) is not None), None)
        for keyword in ("TemporalPositionTimeOffset", *PHASE_KEYWORDS)
    )


def _non_spatial_dimensions(dataset: Dataset) -> list[int]:
    """Indices, in DimensionIndexValues, of the dimensions that do not say where a frame is."""
    pointers = [
        Elements(item).values("DimensionIndexPointer")
        for item in Elements(dataset).items("DimensionIndexSequence")
    ]
    return [
        index
        for index, pointer in enumerate(pointers)
        if not (pointer and int(pointer[0]) in _POSITION_POINTERS)
    ]
