"""The structured report of a result (TID 1500, Comprehensive 3D SR): what the model said of the
study, of each image and of each region, on which images, by which model. UNVERIFIED always.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset

from medres.errors import ResultError
from medres.results.dicom_objects import (
    SCHEME,
    code,
    finished,
    name_code,
    object_arguments,
    quiet_highdicom,
    short_text,
)
from medres.results.identity import MANUFACTURER, result_uid
from medres.results.result import CLASS, NOTICE, BoxLike, Result

if TYPE_CHECKING:
    from highdicom.sr import Measurement, QualitativeEvaluation
    from highdicom.sr.coding import CodedConcept

MAX_IMAGES = 20  # that have a group of their own
ONE = ("1", "UCUM", "no units")
_LABELS = {0: ("260385009", "SCT", "Negative"), 1: ("10828004", "SCT", "Positive")}
_REPORT_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"
Group = Any  # a measurement group of highdicom


def structured_report(result: Result) -> Dataset:
    """The report as a DICOM data set, ready to be written.

    Measurement groups: one per finding or class (tracking identifier: its name) with probability
    and threshold, decision and conformal set; for exclusive classes one more (`class`); one per
    image where there are several (`image N`, at most 20); one per box (`box N`) with its region;
    one per label map and class (the name of the class; `mask N NAME` where there are several label
    maps, at most 20) with its volume in ml, its interval and alpha, or its area in mm2, or
    without a spacing its number of pixels.
    Of a refused study one group (`refusal`) with the code.

    Raises ResultError: no_highdicom, not_made, unknown_image, bad_box.
    """
    boxes = [_checked(box, result) for box in result.boxes]
    with quiet_highdicom("structured report"):
        from highdicom.coding_schemes import CodingSchemeIdentificationItem
        from highdicom.sr import Comprehensive3DSR

        scheme = CodingSchemeIdentificationItem(
            designator=SCHEME, name="Codes of medres", responsible_organization="medres"
        )
        dataset = Comprehensive3DSR(
            evidence=result.sources.headers,
            content=_content(result, boxes),
            is_complete=True,
            is_final=False,
            is_verified=False,
            previous_versions=_predecessor(result),
            coding_schemes=[scheme],
            **object_arguments(result, "report"),
        )
        return finished(dataset, result)


def _predecessor(result: Result) -> list[Dataset] | None:
    if not result.predecessor:
        return None
    previous = Dataset()
    previous.StudyInstanceUID = result.sources.first.StudyInstanceUID
    previous.SeriesInstanceUID = result_uid(result.predecessor, "series report")
    previous.SOPInstanceUID = result_uid(result.predecessor, "report 1")
    previous.SOPClassUID = _REPORT_CLASS
    return [previous]


def _content(result: Result, boxes: Sequence[BoxLike]) -> Any:
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
        TextContentItem,
    )
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    device = DeviceObserverIdentifyingAttributes(
        uid=result_uid(result.model.sha256, "model"),
        name=short_text(result.model.name),
        manufacturer_name=MANUFACTURER,
        model_name=short_text(f"{result.model.name} {result.model.version}"),
        serial_number=result.model.sha256,
    )
    observer = ObserverContext(codes.DCM.Device, device)
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=Code("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=list(_groups(result, boxes)),
    )
    comments = [NOTICE, *result.notes]
    if result.prediction.refused is not None:
        comments.append(f"Refused ({result.prediction.code}): {result.prediction.refused}")
    if len(result.prediction.images) > MAX_IMAGES:
        comments.append(
            f"Of {len(result.prediction.images)} images, the {MAX_IMAGES} with the highest "
            f"probabilities are listed."
        )
    report[0].ContentSequence.extend(
        TextContentItem(codes.DCM.Comment, short_text(text, 1024), "CONTAINS") for text in comments
    )
    return report


def _groups(result: Result, boxes: Sequence[BoxLike]) -> Iterable[Group]:
    prediction = result.prediction
    if prediction.refused is not None:
        reason = code(short_text(prediction.code or "refused", 16), prediction.code or "refused")
        yield _study_group(result, "refusal", evaluations=[_evaluation("refusal", reason)])
        return
    for name, probability in prediction.probabilities.items():
        numbers = [_number("probability", probability)]
        if name in prediction.thresholds:
            numbers.append(_number("threshold", prediction.thresholds[name]))
        yield _study_group(
            result, name, finding=name, numbers=numbers, evaluations=_answers(result, name)
        )
    if CLASS in prediction.decisions:
        yield _study_group(result, CLASS, evaluations=_answers(result, CLASS))
    for name in prediction.decisions:  # of a detector, whether it found the class or not
        if name != CLASS and name not in prediction.probabilities:
            yield _study_group(result, name, finding=name, evaluations=_answers(result, name))
    slices = prediction.slices or [()] * len(prediction.images)
    for n in _listed_images(result):
        yield _image_group(result, n + 1, prediction.images[n], slices[n])
    for n, box in enumerate(boxes, start=1):
        yield _box_group(result, n, box)
    yield from _mask_groups(result)


def _mask_groups(result: Result) -> Iterable[Group]:
    """The size of each class in each label map; of many label maps those with most voxels."""
    masks = result.prediction.masks
    ranked = sorted(range(len(masks)), key=lambda n: -sum(masks[n].counts.values()))
    for n in sorted(ranked[:MAX_IMAGES]):
        for name, voxels in masks[n].counts.items():
            size = masks[n].volumes.get(name) or {"voxels": voxels}
            identifier = name if len(masks) == 1 else f"mask {n + 1} {name}"
            yield _mask_group(result, identifier, name, size, masks[n].slices)


def _mask_group(
    result: Result,
    identifier: str,
    name: str,
    size: Mapping[str, float | None],
    slices: Sequence[tuple[str, int]],
) -> Group:
    from highdicom.sr import MeasurementsAndQualitativeEvaluations, SourceImageForMeasurementGroup

    images = slices or [(h.SOPInstanceUID, 0) for h in result.sources.headers]
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(result, f"mask {identifier}", identifier),
        finding_type=name_code(name),
        algorithm_id=_algorithm(result),
        measurements=[
            _measurement(_size_concept(key), value, _UNITS.get(key, ONE))
            for key, value in size.items()
            if value is not None
        ],
        source_images=[
            SourceImageForMeasurementGroup(*_reference(result, uid, frame)) for uid, frame in images
        ],
    )


_UNITS = dict.fromkeys(("ml", "ml_low", "ml_high"), ("ml", "UCUM", "milliliter"))
_UNITS |= {"mm2": ("mm2", "UCUM", "square millimeter"), "voxels": ("{pixels}", "UCUM", "pixels")}
_SIZES = {"ml": ("118565006", "SCT", "Volume"), "mm2": ("42798000", "SCT", "Area")}


def _size_concept(name: str) -> CodedConcept:
    from highdicom.sr.coding import CodedConcept

    return CodedConcept(*_SIZES[name]) if name in _SIZES else code(name, _CONCEPTS[name])


def _listed_images(result: Result) -> list[int]:
    """The numbers of the images that have a group of their own, in order: none where there is one
    image only, and of many those with the highest probabilities.
    """
    images = result.prediction.images
    ranked = sorted(range(len(images)), key=lambda n: -max(images[n].values(), default=0.0))
    return sorted(ranked[:MAX_IMAGES]) if len(images) > 1 else []


def _answers(result: Result, name: str) -> list[QualitativeEvaluation]:
    """Decision, and the labels of the conformal set with its error rate."""
    prediction = result.prediction
    evaluations = []
    decision = prediction.decisions.get(name)
    if decision is not None:
        value = name_code(decision) if isinstance(decision, str) else _label(int(decision))
        evaluations.append(_evaluation("decision", value))
    if name in prediction.sets:
        labels = prediction.sets[name]
        values = [name_code(v) if isinstance(v, str) else _label(v) for v in labels]
        if len(values) != 1:
            word = "uncertain" if values else "atypical"
            evaluations.append(_evaluation("certainty", code(word, word)))
        evaluations += [_evaluation("conformal_set", value) for value in values]
    return evaluations


def _study_group(
    result: Result,
    identifier: str,
    *,
    finding: str | None = None,
    numbers: Sequence[Measurement] = (),
    evaluations: Sequence[QualitativeEvaluation] = (),
) -> Group:
    """What was said of the whole study, with references to all its images."""
    from highdicom.sr import MeasurementsAndQualitativeEvaluations, SourceImageForMeasurementGroup

    prediction, more = result.prediction, []
    if prediction.conformal is not None and identifier in prediction.sets:
        more.append(_number("alpha", prediction.conformal["alpha"]))
    if prediction.novelty is not None:
        more.append(_number("novelty", prediction.novelty))
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(result, f"study {identifier}", identifier),
        finding_type=None if finding is None else name_code(finding),
        algorithm_id=_algorithm(result),
        measurements=[*numbers, *more],
        qualitative_evaluations=list(evaluations),
        source_images=[
            SourceImageForMeasurementGroup(h.SOPClassUID, h.SOPInstanceUID)
            for h in result.sources.headers
        ],
    )


def _image_group(
    result: Result, number: int, image: Any, slices: Sequence[tuple[str, int]]
) -> Group:
    """The probabilities of one image, with references to its slices."""
    from highdicom.sr import MeasurementsAndQualitativeEvaluations, SourceImageForMeasurementGroup

    identifier = f"image {number}"
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(result, identifier, identifier),
        measurements=[_measurement(name_code(name), value) for name, value in image.items()],
        source_images=[
            SourceImageForMeasurementGroup(*_reference(result, uid, frame)) for uid, frame in slices
        ],
    )


def _box_group(result: Result, number: int, box: BoxLike) -> Group:
    """One box as a closed polyline. Its coordinates are those of SCOORD (PS3.3 C.18.6): 0 0 is the
    outer corner of the first pixel.
    """
    from highdicom.sr import (
        ImageRegion,
        PlanarROIMeasurementsAndQualitativeEvaluations,
        SourceImageForRegion,
    )

    x, y = (box.x_min, box.x_max), (box.y_min, box.y_max)
    corners = np.array([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]), (x[0], y[0])])
    region = ImageRegion(
        "POLYLINE",
        corners,
        SourceImageForRegion(*_reference(result, box.sop_instance_uid, box.frame)),
    )
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(result, f"box {number}", f"box {number}"),
        referenced_region=region,
        finding_type=name_code(box.label),
        algorithm_id=_algorithm(result),
        measurements=[_number("probability", box.score)],
    )


def _checked(box: BoxLike, result: Result) -> BoxLike:
    """The box, if it lies in its image. Raises ResultError: bad_box, unknown_image."""
    header = result.sources.header(box.sop_instance_uid)
    inside = 0 <= box.x_min < box.x_max <= header.Columns and (
        0 <= box.y_min < box.y_max <= header.Rows
    )
    if not inside or not 0 <= box.frame < (header.get("NumberOfFrames") or 1):
        raise ResultError(
            f"a box {box.x_min}, {box.y_min}, {box.x_max}, {box.y_max} on frame {box.frame} does "
            f"not lie in its image of {header.Columns} x {header.Rows} pixels",
            code="bad_box",
        )
    return box


def _reference(result: Result, uid: str, frame: int) -> tuple[str, str, list[int] | None]:
    """Class, UID and frames of an image; frames from 1 on, None for an image of one frame."""
    header = result.sources.header(uid)
    frames = None if (header.get("NumberOfFrames") or 1) == 1 else [frame + 1]
    return header.SOPClassUID, uid, frames


def _tracking(result: Result, role: str, identifier: str) -> Any:
    from highdicom.sr import TrackingIdentifier

    return TrackingIdentifier(result.uid(f"tracking {role}"), short_text(identifier))


def _algorithm(result: Result) -> Any:
    from highdicom.sr import AlgorithmIdentification

    model = result.model
    return AlgorithmIdentification(
        name=short_text(model.name),
        version=short_text(model.version),
        parameters=[
            f"model SHA-256: {model.sha256}",
            f"preprocessing SHA-256: {model.preprocessing_sha256}",
        ],
    )


_CONCEPTS = {
    "alpha": "Error rate of the conformal prediction set",
    "certainty": "Certainty by the conformal prediction set",
    "conformal_set": "Label in the conformal prediction set",
    "decision": "Decision at the threshold",
    "ml_high": "Upper bound of the volume by the conformal error",
    "ml_low": "Lower bound of the volume by the conformal error",
    "novelty": "Distance from the training images",
    "probability": "Probability given by the model",
    "refusal": "Reason code of the refusal",
    "threshold": "Threshold of the decision",
    "voxels": "Number of pixels or voxels",
}


def _number(name: str, value: float) -> Measurement:
    return _measurement(code(name, _CONCEPTS[name]), value)


def _measurement(name: CodedConcept, value: float, unit: tuple[str, str, str] = ONE) -> Measurement:
    """A number: as text of at most 16 characters, and exactly as a double."""
    from highdicom.sr import Measurement
    from highdicom.sr.coding import CodedConcept

    measurement = Measurement(name, float(value), CodedConcept(*unit))
    measurement[0].MeasuredValueSequence[0].FloatingPointValue = float(value)
    return measurement


def _evaluation(name: str, value: CodedConcept) -> QualitativeEvaluation:
    from highdicom.sr import QualitativeEvaluation

    return QualitativeEvaluation(code(name, _CONCEPTS[name]), value)


def _label(label: int) -> CodedConcept:
    from highdicom.sr.coding import CodedConcept

    return CodedConcept(*_LABELS[int(label)])
