"""Where one slice lies, and what it must share with others to lie in the same volume. PS3.3
C.7.6.2, C.7.6.16, C.7.6.17.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from pydicom.dataset import Dataset

from data_pipelines.dicom.elements import Elements
from data_pipelines.dicom.eligibility import non_slice_reason
from data_pipelines.dicom.header import Header
from data_pipelines.dicom.reader import silence_pydicom
from data_pipelines.pixels.grayscale_module import frame_group

#: dimensions that say where a frame lies, not when or how it was taken: ImagePositionPatient,
#: InStackPositionNumber
_PLACE_POINTERS = frozenset({0x00200032, 0x00209057})

_TYPED = frozenset({"CT", "MR"})

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Plane:
    """One slice: a file, or a frame of one. Lengths in mm, directions as cosines, in the patient's
    LPS axes.

    `member` and `frame` lead back to its file; `not_a_slice` is '' or the reason why it is no slice
    at all; `dimensions`, `temporal` and `acquisition` may tell apart slices at the same place.
    """

    member: int
    frame: int
    series: str = field(repr=False)
    frame_of_reference: str = field(repr=False)
    modality: str
    rows: int
    columns: int
    spacing: tuple[float, float] | None
    orientation: tuple[float, float, float, float, float, float] | None
    position: Vector | None
    image_type: tuple[str, ...]
    kernel: str
    stack: str
    dimensions: tuple[int, ...]
    temporal: int | None
    acquisition: int | None
    not_a_slice: str


def plane_of(header: Header, member: int) -> Plane:
    """The plane of a single-frame file, or what the frames of a multi-frame one share."""
    return Plane(
        member=member,
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
        not_a_slice=_reason(header),
    )


def _reason(header: Header) -> str:
    if not (header.rows and header.columns and header.bits_allocated):
        return "no_image"
    colour = header.samples_per_pixel != 1 or header.photometric not in (
        "MONOCHROME1",
        "MONOCHROME2",
        "",
    )
    return "colour" if colour else non_slice_reason(header.image_type) or ""


def planes_of(dataset: Dataset, header: Header, member: int) -> list[Plane]:
    """The planes of every frame of a parsed file: an enhanced object keeps them in its functional
    groups.
    """
    if header.frames == 1 and "PerFrameFunctionalGroupsSequence" not in dataset:
        return [plane_of(header, member)]
    with silence_pydicom():
        kept = _kept_dimensions(dataset)
        return [
            _frame_plane(dataset, plane_of(header, member), frame, kept)
            for frame in range(header.frames)
        ]


def _frame_plane(dataset: Dataset, shared: Plane, frame: int, kept: list[int]) -> Plane:
    place = frame_group(dataset, frame, "PlanePositionSequence")
    plane = frame_group(dataset, frame, "PlaneOrientationSequence")
    measures = frame_group(dataset, frame, "PixelMeasuresSequence")
    content = frame_group(dataset, frame, "FrameContentSequence")
    kind = (
        frame_group(dataset, frame, f"{shared.modality}ImageFrameTypeSequence")
        if shared.modality in _TYPED
        else place
    )
    image_type = kind.codes("FrameType") or shared.image_type
    indices = [int(index) for index in content.numbers("DimensionIndexValues") or ()]
    fields: dict[str, Any] = {
        "spacing": measures.numbers("PixelSpacing", 2, positive=True),
        "orientation": plane.numbers("ImageOrientationPatient", 6),
        "position": place.numbers("ImagePositionPatient", 3),
        "dimensions": tuple(indices[at] for at in kept if at < len(indices)),
        "temporal": content.integer("TemporalPositionIndex"),
        "acquisition": content.integer("FrameAcquisitionNumber"),
        "not_a_slice": shared.not_a_slice or non_slice_reason(image_type) or "",
    }
    return replace(
        shared, frame=frame, image_type=image_type, stack=content.text("StackID"), **fields
    )


def _kept_dimensions(dataset: Dataset) -> list[int]:
    """Places, in DimensionIndexValues, of the dimensions that do not say where a frame lies."""
    pointers = [
        Elements(item).values("DimensionIndexPointer")
        for item in Elements(dataset).items("DimensionIndexSequence")
    ]
    return [
        at
        for at, pointer in enumerate(pointers)
        if not (pointer and int(pointer[0]) in _PLACE_POINTERS)
    ]
