"""The masks of a result as a DICOM segmentation, on the slices of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from data_pipelines.annotations.label_map import LabelMap
from data_pipelines.dicom.sop_classes import CT_CLASSES, MR_CLASSES
from medres.errors import ResultError
from medres.results.dicom_objects import (
    finished,
    name_code,
    object_arguments,
    quiet_highdicom,
    short_text,
)
from medres.results.drawing import Rgb, color_of
from medres.results.result import RESEARCH_USE, Result
from medres.results.source_study import patient_orientation, require_attribute

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription

Frame = tuple[str, int]
SegmentationKind = Literal["BINARY", "LABELMAP"]
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
#: decimals of mm and of cosines within which slices are at one place, or parallel
_DECIMALS = 4
#: (value, scheme, meaning) of a category that claims nothing about a class, and of the family of
#: the algorithm
_CATEGORY = ("309825002", "SCT", "Spatial and Relational Concept")
_FAMILY = ("123110", "DCM", "Artificial Intelligence")


def segmentation_object(
    result: Result,
    label_map: LabelMap,
    frames: Sequence[Frame] | None = None,
    *,
    kind: SegmentationKind = "BINARY",
    colors: Mapping[str, Rgb] | None = None,
    number: int = 1,
) -> Dataset:
    """The masks as a DICOM data set, ready to be written: one segment per class, also of a class
    without a voxel.

    frames: (SOP Instance UID, frame from 0 on) of each slice of the label map; None: the images in
        the order in which the result received them. Slices may come in any order. Images without a
        position have one object each.
    kind: "LABELMAP" (Supplement 243, smaller, not read by older programs) needs classes without
        overlap. colors: class -> RGB. number: of the object within the result, from 1 on.

    Raises ResultError: no_highdicom, not_made, unknown_image, no_class, same_label, wrong_size,
    several_images (of images without a position, or of several multi-frame images),
    missing_attribute, mixed_geometry, same_position; AnnotationError: overlapping_classes.
    """
    if not label_map.classes:
        raise ResultError("a segmentation needs at least one class", code="no_class")
    labels = [short_text(name) for name in label_map.classes]
    if len(set(labels)) < len(labels):
        raise ResultError(
            "two classes have names with the same first 64 bytes; shorten them", code="same_label"
        )
    frames = result.sources.frames if frames is None else tuple(frames)
    headers = [result.sources.header(uid) for uid, _ in frames]
    _require_shape(label_map, headers)
    images, has_position = _source_images(frames, headers)
    values = _values(label_map, kind)
    if len(images) == 1 and (images[0].get("NumberOfFrames") or 1) > 1:
        values = _all_frames(values, [frame for _, frame in frames], images[0])
    with quiet_highdicom("segmentation"):
        from highdicom.seg import Segmentation

        dataset = Segmentation(
            source_images=images,
            pixel_array=values,
            segmentation_type=kind,
            segment_descriptions=list(_descriptions(result, labels, colors or {})),
            content_label="MEDRES",
            content_description=RESEARCH_USE,
            **object_arguments(result, "segmentation", number),
        )
        if has_position and not headers[0].get("SliceThickness"):
            _set_depth(dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0])
        if "FrameOfReferenceUID" not in images[0]:
            dataset.PatientOrientation = patient_orientation(images[0])
        uid = result.uid(f"dimensions {number}")
        for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
            item.DimensionOrganizationUID = uid
        return finished(dataset, result)


def _values(label_map: LabelMap, kind: SegmentationKind) -> NDArray[np.uint8]:
    """(slices, rows, columns) of labels, or with a last axis of classes where they overlap."""
    if len(label_map.layers) == 1 or kind == "LABELMAP":
        return label_map.resolved(None).layers[0]
    planes = [label_map.plane(name) for name in label_map.classes]
    return np.stack(planes, axis=-1).astype(np.uint8)


def _all_frames(values: NDArray, numbers: Sequence[int], image: Dataset) -> NDArray:
    """Slices at their frames of a multi-frame image, background in the others."""
    everything = np.zeros((int(image.NumberOfFrames), *values.shape[1:]), values.dtype)
    everything[list(numbers)] = values
    return everything


def _require_shape(label_map: LabelMap, headers: Sequence[Dataset]) -> None:
    slices, rows, columns = label_map.shape
    if slices != len(headers):
        raise ResultError(
            f"the label map has {slices} slices and {len(headers)} images", code="wrong_size"
        )
    for header in headers:
        if (header.Rows, header.Columns) != (rows, columns):
            raise ResultError(
                f"the label map has {rows} x {columns} pixels, an image of it {header.Rows} x "
                f"{header.Columns}: bring it onto the grid of its images first",
                code="wrong_size",
            )


def _source_images(
    frames: Sequence[Frame], headers: Sequence[Dataset]
) -> tuple[list[Dataset], bool]:
    """The images of the slices, one per slice or a multi-frame one, and whether they have a place
    in the patient.
    """
    first = headers[0]
    if len({*frames}) < len(frames):
        raise ResultError("two slices of the label map are of one image", code="same_position")
    if any((header.get("NumberOfFrames") or 1) > 1 for header in headers):
        if len({uid for uid, _ in frames}) > 1:
            raise ResultError(
                "the slices are of several images of which one has several frames; make one "
                "segmentation for each image",
                code="several_images",
            )
        if "PerFrameFunctionalGroupsSequence" in first:
            require_attribute(first, "FrameOfReferenceUID", "a segmentation of slices")
        return [first], False
    is_slice = first.SOPClassUID in CT_CLASSES | MR_CLASSES
    if not is_slice and not any("ImagePositionPatient" in header for header in headers):
        if len(headers) > 1:
            raise ResultError(
                f"{len(headers)} images without a position in the patient cannot be in one "
                f"segmentation; make one for each image",
                code="several_images",
            )
        return [_without_frame_of_reference(first)], False
    _require_geometry(headers)
    return [_with_thickness(header) for header in headers], True


def _without_frame_of_reference(header: Dataset) -> Dataset:
    """A frame of reference says nothing where there is no position in it."""
    flat = Dataset()
    flat.update({e.tag: e for e in header if e.keyword != "FrameOfReferenceUID"})
    return flat


def _require_geometry(headers: Sequence[Dataset]) -> None:
    for header in headers:
        for keyword in ("FrameOfReferenceUID", *_PLACE):
            require_attribute(header, keyword, "a segmentation of slices")
    if len({header.FrameOfReferenceUID for header in headers}) > 1:
        raise ResultError("the slices have several frames of reference", code="mixed_geometry")
    planes = np.array(
        [[float(v) for key in _PLACE[1:] for v in header[key].value] for header in headers]
    )
    if np.abs(planes - planes[0]).max() > 10.0**-_DECIMALS:
        raise ResultError("the slices have several orientations or spacings", code="mixed_geometry")
    positions = {
        tuple(round(float(v), _DECIMALS) for v in header.ImagePositionPatient) for header in headers
    }
    if len(positions) < len(headers):
        raise ResultError(
            f"{len(headers)} slices lie at {len(positions)} positions: a segmentation cannot tell "
            f"them apart",
            code="same_position",
        )


def _with_thickness(header: Dataset) -> Dataset:
    """highdicom needs a thickness, and takes the spacing between slices from the header, where it
    is often wrong: the first gets a stand-in that is removed afterwards, the second is computed.
    """
    changed = Dataset()
    changed.update({e.tag: e for e in header if e.keyword != "SpacingBetweenSlices"})
    changed.SliceThickness = header.get("SliceThickness") or 1
    return changed


def _set_depth(measures: Dataset) -> None:
    """Where the images do not state a thickness: the constant step of the slices, which is the
    depth of a voxel of the mask; else none.
    """
    if "SpacingBetweenSlices" in measures:
        measures.SliceThickness = measures.SpacingBetweenSlices
    else:
        del measures.SliceThickness


def _descriptions(
    result: Result, labels: Sequence[str], colors: Mapping[str, Rgb]
) -> list[SegmentDescription]:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from highdicom.sr.coding import CodedConcept

    model = result.model
    algorithm = AlgorithmIdentificationSequence(
        name=short_text(model.name),
        family=CodedConcept(*_FAMILY),
        version=short_text(model.version),
        source="medres",
        parameters={
            "model SHA-256": model.sha256,
            "preprocessing SHA-256": model.preprocessing_sha256,
        },
    )
    return [
        SegmentDescription(
            segment_number=n,
            segment_label=label,
            segmented_property_category=CodedConcept(*_CATEGORY),
            segmented_property_type=name_code(label),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=result.uid(f"tracking segment {label}"),
            tracking_id=label,
            display_color=CIELabColor.from_rgb(*color_of(label, labels, colors)),
        )
        for n, label in enumerate(labels, start=1)
    ]
