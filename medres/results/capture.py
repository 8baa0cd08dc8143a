"""The overlay of a result as a Secondary Capture image, which every viewer shows."""

from __future__ import annotations

from dataclasses import replace

from pydicom.dataset import Dataset

from medres.errors import ResultError
from medres.results.dicom_objects import finished, object_arguments, quiet_highdicom
from medres.results.drawing import Overlay, draw_overlay
from medres.results.result import NOTICE, Result, summary_lines
from medres.results.source_study import patient_orientation

_SIDES = ("R", "L")


def secondary_capture(result: Result, overlay: Overlay, number: int = 1) -> Dataset:
    """The overlay as a DICOM data set, ready to be written. number: of the overlay within the
    result, from 1 on.

    BurnedInAnnotation is that of the image: the banner identifies nobody. Laterality is that of the
    image, empty where it is unknown.

    Raises ResultError: no_highdicom, not_made, unknown_image, wrong_size.
    """
    header = result.sources.header(overlay.sop_instance_uid)
    _require_sizes(overlay, header)
    on_image = [
        box
        for box in result.boxes
        if (box.sop_instance_uid, box.frame) == (overlay.sop_instance_uid, overlay.frame)
    ]
    drawn = replace(overlay, boxes=(*overlay.boxes, *on_image))
    pixels = draw_overlay(drawn, [*summary_lines(result), *result.notes])
    first = result.sources.first
    with quiet_highdicom("Secondary Capture"):
        from highdicom.sc import SCImage

        dataset = SCImage(
            pixel_array=pixels,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            study_instance_uid=first.StudyInstanceUID,
            patient_id=first.PatientID,
            patient_name=first.PatientName,
            patient_birth_date=first.PatientBirthDate,
            patient_sex=first.PatientSex,
            accession_number=first.AccessionNumber,
            study_id=first.StudyID,
            study_date=first.StudyDate or None,
            study_time=first.StudyTime or None,
            referring_physician_name=first.ReferringPhysicianName,
            patient_orientation=("L", "P"),  # replaced below: highdicom refuses an empty one
            **object_arguments(result, "overlay", number),
        )
        _describe(dataset, header, overlay)
        return finished(dataset, result)


def _describe(dataset: Dataset, header: Dataset, overlay: Overlay) -> None:
    """What the image states of itself, and of the image that it was made from."""
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.ConversionType = "WSD"
    sides = [header.get("Laterality"), header.get("ImageLaterality")]
    dataset.Laterality = next((side for side in sides if side in _SIDES), "")
    dataset.PatientOrientation = patient_orientation(header)
    if header.get("BurnedInAnnotation") in ("YES", "NO"):
        dataset.BurnedInAnnotation = header.BurnedInAnnotation
    dataset.DerivationDescription = NOTICE
    dataset.ImageComments = NOTICE
    if header.get("LossyImageCompression") == "01":
        for keyword in (
            "LossyImageCompression",
            "LossyImageCompressionRatio",
            "LossyImageCompressionMethod",
        ):
            if keyword in header:
                setattr(dataset, keyword, header[keyword].value)
    if header.get("StudyDescription"):
        dataset.StudyDescription = header.StudyDescription
    source, purpose = Dataset(), Dataset()
    source.ReferencedSOPClassUID = header.SOPClassUID
    source.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if (header.get("NumberOfFrames") or 1) > 1:
        source.ReferencedFrameNumber = overlay.frame + 1
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    source.PurposeOfReferenceCodeSequence = [purpose]
    dataset.SourceImageSequence = [source]


def _require_sizes(overlay: Overlay, header: Dataset) -> None:
    size = (header.Rows, header.Columns)
    arrays = [overlay.picture, *overlay.masks.values()]
    arrays += [] if overlay.heat is None else [overlay.heat]
    for array in arrays:
        if array.shape[:2] != size:
            raise ResultError(
                f"an overlay of {array.shape[0]} x {array.shape[1]} pixels does not lie on its "
                f"image of {size[0]} x {size[1]}: bring it onto the original pixels first",
                code="wrong_size",
            )
