"""Which images a model may learn from or be asked about, by their header."""

from __future__ import annotations

import re

from data_pipelines.dicom.header import Header
from data_pipelines.dicom.sop_classes import (
    CT_CLASSES,
    NON_SLICE_IMAGE_TYPES,
    RADIOGRAPH_MODALITIES,
    SECONDARY_CAPTURE,
    ULTRASOUND_CLASSES,
)
from data_pipelines.errors import Ineligible
from data_pipelines.kinds import KindName


def eligible_kind(header: Header, *, for_processing: bool = False) -> KindName:
    """The kind of picture a header promises. Raises Ineligible, whose `.code` is one of

    no_image (no rows, columns or bits), modality (neither CT nor a projection radiograph), colour,
    localizer, projection (MIP, MinIP), rendering, subtraction, screen_capture, parametric_map,
    burned_in (said so, or not denied on a secondary capture), not_hu (a CT whose RescaleType is
    another unit), for_processing (unless asked for). Derived, secondary and lossy images are
    accepted and carry `Header.flags`.
    """
    if not (header.rows and header.columns and header.bits_allocated):
        raise Ineligible("No image: rows, columns or bits allocated are missing.", code="no_image")
    is_ct = header.modality == "CT" or header.sop_class_uid in CT_CLASSES
    if not is_ct and header.modality not in RADIOGRAPH_MODALITIES:
        raise Ineligible(
            "Neither CT nor a projection radiograph (CR, DX, MG, PX, IO, RG).", code="modality"
        )
    if header.samples_per_pixel != 1 or header.photometric not in (
        "MONOCHROME1",
        "MONOCHROME2",
        "",
    ):
        raise Ineligible(
            "A colour image: a summary, a screen or a photograph, not intensities.", code="colour"
        )
    code = non_slice_reason(header.image_type) if is_ct else None
    if code:
        raise Ineligible("ImageType says that this is no slice of CT intensities.", code=code)
    _refuse_burned_in(header)
    if is_ct:
        _refuse_other_ct(header)
        return "ct"
    if header.presentation_intent == "FOR PROCESSING" and not for_processing:
        raise Ineligible(
            "FOR PROCESSING: raw detector data. Use its FOR PRESENTATION twin.",
            code="for_processing",
        )
    return "radiograph"


def non_slice_reason(image_type: tuple[str, ...]) -> str | None:
    """Reason code when ImageType (C.7.6.1.1.2) names something that is no slice of intensities,
    else None.
    """
    words = [word for value in image_type for word in (value, *re.split("[ _]", value))]
    return next(
        (NON_SLICE_IMAGE_TYPES[word] for word in words if word in NON_SLICE_IMAGE_TYPES), None
    )


def _refuse_other_ct(header: Header) -> None:
    if header.sop_class_uid == SECONDARY_CAPTURE:
        raise Ineligible(
            "A secondary capture of a CT is a picture of a screen.", code="screen_capture"
        )
    if header.rescale_type not in ("", "HU"):
        raise Ineligible("RescaleType (0028,1054) names another unit than HU.", code="not_hu")


def _refuse_burned_in(header: Header) -> None:
    unsaid = header.sop_class_uid == SECONDARY_CAPTURE or header.sop_class_uid in ULTRASOUND_CLASSES
    if header.burned_in == "YES" or (unsaid and header.burned_in != "NO"):
        raise Ineligible(
            "Text may be burned in: BurnedInAnnotation (0028,0301) does not deny it.",
            code="burned_in",
        )
