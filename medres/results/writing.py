"""The files of one result in a folder. Their names begin with the key of the result: no identifier
of a patient, a study or an image is in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from data_pipelines.annotations.label_map import LabelMap
from data_pipelines.dicom.reader import silence_pydicom
from data_pipelines.runtime.atomic_files import write_atomic
from data_pipelines.runtime.plain_text import json_text
from medres.errors import ResultError
from medres.results.capture import secondary_capture
from medres.results.coco import coco_results
from medres.results.drawing import Overlay, Rgb
from medres.results.fhir import fhir_bundle
from medres.results.report import structured_report
from medres.results.result import NOTICE, Result
from medres.results.segmentation import Frame, SegmentationKind, segmentation_object

#: codes of images that cannot have a segmentation, though the other objects can be made
NO_SEGMENTATION = frozenset(
    {"missing_attribute", "mixed_geometry", "same_position", "several_images"}
)
SCHEMA = "medres.result-files/1"
_KEY = 16  # characters of the key in a file name


@dataclass(frozen=True, eq=False)
class Masks:
    """A label map and the images of its slices; see `segmentation_object`."""

    label_map: LabelMap
    frames: tuple[Frame, ...] | None = None
    kind: SegmentationKind = "BINARY"


class ResultObjects(NamedTuple):
    """datasets: role -> DICOM object; roles are `report`, `overlay 1` ..., `segmentation 1` ...
    refusals: role -> why an object was left out.
    """

    datasets: dict[str, Dataset]
    refusals: dict[str, ResultError]


def result_objects(
    result: Result,
    *,
    overlays: Sequence[Overlay] = (),
    masks: Sequence[Masks] = (),
    colors: Mapping[str, Rgb] | None = None,
) -> ResultObjects:
    """The DICOM objects of a result, the report first. A segmentation that the images do not allow
    (NO_SEGMENTATION, such as CT slices without a frame of reference) is left out.

    Raises ResultError as the functions that make the objects do.
    """
    datasets, refusals = {"report": structured_report(result)}, {}
    for n, overlay in enumerate(overlays, start=1):
        datasets[f"overlay {n}"] = secondary_capture(result, overlay, n)
    for n, entry in enumerate(masks, start=1):
        role = f"segmentation {n}"
        try:
            datasets[role] = segmentation_object(
                result, entry.label_map, entry.frames, kind=entry.kind, colors=colors, number=n
            )
        except ResultError as error:
            if error.code not in NO_SEGMENTATION:
                raise
            refusals[role] = error
    return ResultObjects(datasets, refusals)


def write_results(
    folder: Path | str,
    result: Result,
    *,
    overlays: Sequence[Overlay] = (),
    masks: Sequence[Masks] = (),
    colors: Mapping[str, Rgb] | None = None,
    categories: Sequence[str] = (),
    fhir: bool = True,
) -> dict[str, Path]:
    """Write a result, and return role -> file: `report`, `overlay 1` ..., `segmentation 1` ...
    (all DICOM), `coco` where there are boxes or categories, `fhir`, and `result` (JSON), which is
    written last. All objects are made before the first file is written. The same result replaces
    its files. What `result_objects` leaves out is in `refused_objects` of the JSON with its code.

    categories: the classes of a detector, whose COCO ids are 1, 2 ... in this order; the ids of
    images are 1, 2 ... in the order of the images (and their frames).

    Raises ResultError as the functions that make the objects do, and OSError.
    """
    datasets, refusals = result_objects(result, overlays=overlays, masks=masks, colors=colors)
    contents = {role: (".dcm", file_bytes(dataset)) for role, dataset in datasets.items()}
    if result.boxes or categories:
        contents["coco"] = (".json", _json(_coco(result, categories)))
    if fhir:
        contents["fhir"] = (".json", _json(fhir_bundle(result)))
    contents["result"] = (".json", _json(result_document(result, datasets, refusals)))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for role, (suffix, data) in contents.items():
        files[role] = folder / f"{result.key[:_KEY]}_{role.replace(' ', '_')}{suffix}"
        write_atomic(files[role], data)
    return files


def result_document(
    result: Result,
    objects: Mapping[str, Dataset] | None = None,
    refusals: Mapping[str, ResultError] | None = None,
) -> dict[str, Any]:
    """A result as a JSON object. objects: role -> DICOM object that was made of it. refusals: role
    -> why an object could not be made.
    """
    prediction, model = result.prediction, result.model
    return {
        "schema": SCHEMA,
        "research_use_only": NOTICE,
        "notes": list(result.notes),
        "result_key": result.key,
        "predecessor": result.predecessor or None,
        "created": result.created.isoformat(),
        "study_uid": str(result.sources.first.StudyInstanceUID),
        "model": {
            "name": model.name,
            "version": model.version,
            "sha256": model.sha256,
            "preprocessing_sha256": model.preprocessing_sha256,
        },
        "probabilities": dict(prediction.probabilities),
        "thresholds": dict(prediction.thresholds),
        "decisions": dict(prediction.decisions),
        "sets": {name: list(labels) for name, labels in prediction.sets.items()},
        "conformal": prediction.conformal,
        "refused": prediction.refused,
        "code": prediction.code,
        "novelty": prediction.novelty,
        "images": [dict(image) for image in prediction.images],
        "slices": [[list(position) for position in image] for image in prediction.slices],
        "masks": [
            {
                "voxels": dict(mask.counts),
                "volumes": {name: dict(size) for name, size in mask.volumes.items()},
                "slices": [list(position) for position in mask.slices],
            }
            for mask in prediction.masks
        ],
        "boxes": [
            {
                "label": box.label,
                "score": float(box.score),
                "x_min": float(box.x_min),
                "y_min": float(box.y_min),
                "x_max": float(box.x_max),
                "y_max": float(box.y_max),
                "sop_instance_uid": str(box.sop_instance_uid),
                "frame": box.frame,
            }
            for box in result.boxes
        ],
        "objects": [
            {
                "role": role,
                "sop_class_uid": str(dataset.SOPClassUID),
                "sop_instance_uid": str(dataset.SOPInstanceUID),
                "series_uid": str(dataset.SeriesInstanceUID),
            }
            for role, dataset in (objects or {}).items()
        ],
        "refused_objects": [
            {"role": role, "code": error.code, "reason": str(error)}
            for role, error in (refusals or {}).items()
        ],
    }


def file_bytes(dataset: Dataset) -> bytes:
    """A data set as a DICOM file (PS3.10)."""
    buffer = BytesIO()
    with silence_pydicom():
        dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _coco(result: Result, categories: Sequence[str]) -> list[dict[str, Any]]:
    names = list(dict.fromkeys([*categories, *sorted({box.label for box in result.boxes})]))
    return coco_results(
        result.boxes,
        {frame: n for n, frame in enumerate(result.sources.frames, start=1)},
        {name: n for n, name in enumerate(names, start=1)},
    )


def _json(value: Any) -> bytes:
    return json_text(value, ensure_ascii=False, indent=1).encode()
