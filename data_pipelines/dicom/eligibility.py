"""Which images a model may be trained on or applied to, by their header."""

from __future__ import annotations

import re

from data_pipelines.dicom.header import Header
from data_pipelines.dicom.sop_classes import (
    NON_SLICE_IMAGE_TYPES,
    SECONDARY_CAPTURE,
    SYNTHETIC_2D_WORDS,
    TOMO_PROJECTION_CLASSES,
    TOMOSYNTHESIS_CLASSES,
    TOMOSYNTHESIS_WORDS,
    ULTRASOUND_CLASSES,
    X_RAY_SEQUENCE_MODALITIES,
)
from data_pipelines.errors import Ineligible
from data_pipelines.kinds import CT, HU, MR, RADIOGRAPH, ImageKind, KindName


def eligible_kind(
    header: Header, *, for_processing: bool = False, declared: KindName | None = None
) -> KindName:
    """The kind of image that a header describes.

    declared: the only kind that is accepted; None: those that need no declaration.
    Raises Ineligible, whose `.code` is one of:

    no_image (rows, columns or bits are missing), tomosynthesis (also its projections),
    multiframe_projection (several frames of a radiograph, angiography or fluoroscopy), modality
    (no kind that is read; MR, unless it is declared), other_kind (another kind than the declared
    one), colour (a CT or MR image), localizer, projection (MIP, MinIP),
    rendering, subtraction, screen_capture, parametric_map, burned_in (BurnedInAnnotation is YES, or
    is not NO on a secondary capture), not_hu (a CT whose RescaleType is another unit),
    for_processing (unless requested).

    Whether a radiograph that is stored as color is gray is decided by its pixels, see luminance_of.
    Derived, secondary and lossy images are accepted; `Header.flags` names them.
    """
    if not header.has_image:
        raise Ineligible("No image: Rows, Columns or BitsAllocated are missing.", code="no_image")
    _refuse_several_projections(header)
    kind = _kind_of(header, declared)
    if kind.has_series and not header.is_grayscale:
        raise Ineligible(
            "Color image: a summary or a screenshot, which is no slice of intensities.",
            code="colour",
        )
    code = non_slice_reason(header.image_type) if kind.has_series else None
    if code:
        raise Ineligible(
            f"ImageType (0008,0008) does not describe a slice of {kind.title}.", code=code
        )
    _refuse_burned_in(header)
    if kind.has_series and header.sop_class_uid == SECONDARY_CAPTURE:
        raise Ineligible(
            f"A secondary capture of {kind.title} is a screenshot, not a slice.",
            code="screen_capture",
        )
    if kind is MR:
        return kind.name
    if header.is_ct:
        _refuse_other_ct(header)
        return CT.name
    if header.presentation_intent == "FOR PROCESSING" and not for_processing:
        raise Ineligible(
            "The image is FOR PROCESSING (raw detector data). Use the FOR PRESENTATION image of "
            "the same exposure.",
            code="for_processing",
        )
    return RADIOGRAPH.name


def kind_of_header(header: Header) -> ImageKind | None:
    """The kind of image by modality and SOP class alone; None where it is none that is read."""
    for is_kind, kind in (
        (header.is_ct, CT),
        (header.is_radiograph, RADIOGRAPH),
        (header.is_mr, MR),
    ):
        if is_kind:
            return kind
    return None


def _kind_of(header: Header, declared: KindName | None) -> ImageKind:
    kind = kind_of_header(header)
    if kind is None:
        raise Ineligible(
            "The modality is neither CT nor a projection radiograph (CR, DX, MG, PX, IO, RG), nor "
            "MR.",
            code="modality",
        )
    if declared is not None and kind.name != declared:
        raise Ineligible(
            f"The kind {declared} is declared, and this is a file of kind {kind.name}.",
            code="other_kind",
        )
    if declared is None and kind.is_declared:
        raise Ineligible(
            f"{kind.title} is read only where it is declared: use --kind {kind.name} (in Python: "
            f'kind="{kind.name}").',
            code="modality",
        )
    return kind


def non_slice_reason(image_type: tuple[str, ...]) -> str | None:
    """The reason code when ImageType (C.7.6.1.1.2) names something that is not a slice of
    intensities, else None.

    >>> non_slice_reason(("ORIGINAL", "PRIMARY", "LOCALIZER"))
    'localizer'
    >>> non_slice_reason(("ORIGINAL", "PRIMARY", "AXIAL")) is None
    True
    """
    words = _words(image_type)
    return next(
        (NON_SLICE_IMAGE_TYPES[word] for word in words if word in NON_SLICE_IMAGE_TYPES), None
    )


def _words(image_type: tuple[str, ...]) -> list[str]:
    return [word for value in image_type for word in (value, *re.split("[ _]", value))]


def _refuse_several_projections(header: Header) -> None:
    """A slice of a tomosynthesis, and a frame of a sequence, are no radiographs. A 2D image that
    was computed from a tomosynthesis is one; `Header.flags` says that it is derived.
    """
    words = {*_words(header.image_type)}
    is_tomosynthesis = header.sop_class_uid in TOMOSYNTHESIS_CLASSES | TOMO_PROJECTION_CLASSES or (
        header.is_radiograph and words & TOMOSYNTHESIS_WORDS and not words & SYNTHETIC_2D_WORDS
    )
    if is_tomosynthesis:
        raise Ineligible(
            "A tomosynthesis or another reconstruction of X-ray projections, or one of the "
            "projections: neither a radiograph nor a CT. Use the 2D image of the same exposure.",
            code="tomosynthesis",
        )
    is_projection = header.is_radiograph or header.modality in X_RAY_SEQUENCE_MODALITIES
    if is_projection and not header.is_ct and header.frames > 1:
        raise Ineligible(
            f"A projection with {header.frames} frames (a sequence, or several exposures) is not "
            f"one radiograph. Export the frame that is meant.",
            code="multiframe_projection",
        )


def _refuse_other_ct(header: Header) -> None:
    if header.rescale_type not in ("", HU.name):
        raise Ineligible("RescaleType (0028,1054) names a unit other than HU.", code="not_hu")


def _refuse_burned_in(header: Header) -> None:
    must_deny = (
        header.sop_class_uid == SECONDARY_CAPTURE or header.sop_class_uid in ULTRASOUND_CLASSES
    )
    if header.burned_in == "YES" or (must_deny and header.burned_in != "NO"):
        raise Ineligible(
            "Text may be burned into the pixels: BurnedInAnnotation (0028,0301) is not NO.",
            code="burned_in",
        )
