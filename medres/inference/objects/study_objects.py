"""The objects of one prediction: report, overlays, segmentations, FHIR and JSON by
`medres.results`. The command line and the server assemble them here.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.errors import CodedError
from medres.artefact.card import Card
from medres.errors import ResultError
from medres.inference.decoder import Decoder
from medres.inference.objects.overlays import overlays_of
from medres.inference.objects.source_files import SourceRequest, read_sources
from medres.inference.prediction import Prediction
from medres.inference.request_files import portable
from medres.results.drawing import Overlay, Rgb
from medres.results.result import Result, model_identity, results_of
from medres.results.writing import Masks, ResultObjects, result_objects, write_results

RESAMPLED, NO_DICOM_IMAGE = "resampled_grid", "no_dicom_image"


class Edition(NamedTuple):
    """What a server knows of a result beside its prediction; see `Result`. key: None is computed
    from the images. created: None is now.
    """

    key: str | None = None
    predecessor: str = ""
    created: dt.datetime | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Assembly:
    """A result, and what its objects are made of. refused: role, code and reason of each object
    that cannot be made.
    """

    result: Result
    overlays: list[Overlay]
    masks: list[Masks]
    colors: dict[str, Rgb]
    refused: list[dict[str, str]]

    def objects(self) -> ResultObjects:
        """The DICOM objects. Raises ResultError as `result_objects`."""
        return result_objects(
            self.result, overlays=self.overlays, masks=self.masks, colors=self.colors
        )


def assemble(
    prediction: Prediction,
    files: Sequence[Any],
    card: Card,
    decoder: Decoder,
    edition: Edition | None = None,
    *,
    sha256: str = "",
    shows_overlays: bool = False,
) -> Assembly:
    """The result of a prediction with the images that it is about; of a refused study, with all
    of its images, and without overlays and masks.

    files: of the study; they are read again in the workers of `decoder`. sha256: of the model file,
    where the prediction does not say it.

    Raises DicomError (no_dicom_image, and as the files are refused) and ResultError as
    `results_of`.
    """
    edition = edition or Edition()
    sources = decoder.call(read_sources, _request(prediction, files, edition), n_files=len(files))
    if isinstance(sources, CodedError):
        raise sources
    result = results_of(
        prediction,
        [source.header for source in sources],
        model_identity(card, prediction.model_sha256 or sha256, name=_model_name(card)),
        contents=[source.content for source in sources if source.content is not None],
        key=edition.key,
        created=edition.created,
        boxes=prediction.positive_boxes,
        notes=edition.notes,
        predecessor=edition.predecessor,
    )
    if prediction.refused is not None:
        return Assembly(result, [], [], {}, [])
    shown: list[Overlay | CodedError] = []
    if shows_overlays:
        by_uid = {
            str(source.header.SOPInstanceUID): portable(files[source.number]) for source in sources
        }
        shown = overlays_of(prediction, by_uid, card, decoder)
    masks = [Masks(mask.label_map, mask.slices) for mask in prediction.masks if mask.slices]
    return Assembly(
        result,
        [overlay for overlay in shown if isinstance(overlay, Overlay)],
        masks,
        prediction.masks[0].class_colors if prediction.masks else {},
        [
            *(_refusal("overlay", error) for error in shown if isinstance(error, CodedError)),
            *_resampled(len(prediction.masks) - len(masks)),
        ],
    )


def _request(prediction: Prediction, files: Sequence[Any], edition: Edition) -> SourceRequest:
    uids = {uid for sample in prediction.slices for uid, _ in sample}
    wanted = frozenset(uids | {*prediction.sop_instance_uids})
    return SourceRequest(
        tuple(map(portable, files)),
        None if prediction.refused is not None else wanted,
        has_contents=edition.key is None,
    )


def _resampled(count: int) -> list[dict[str, str]]:
    """The refusal of segmentations of so many masks."""
    error = ResultError(
        "the mask lies on a grid of its own, since the series has gaps or a tilt: it has no slices "
        "that a segmentation could refer to; use its NIfTI file",
        code=RESAMPLED,
    )
    return [_refusal("segmentation", error)] if count else []


@dataclass(frozen=True)
class StudyObjects:
    """files: names of the written files. refused: role, code and reason of each object that was not
    made; the role `all` where none was.
    """

    files: tuple[str, ...] = ()
    refused: tuple[dict[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"objects": list(self.files), "refused_objects": list(self.refused)}


def write_objects(
    prediction: Prediction,
    files: Sequence[Any],
    card: Card,
    out: Path,
    decoder: Decoder,
) -> StudyObjects:
    """Write the objects of a study into `out`; see `medres.results.write_results`. What cannot be
    made, all of it where highdicom is not installed or the images are no DICOM files, is named with
    its code and stops nothing. A refused study has no objects.

    files: of the study, as they were predicted; they are read again in the workers of `decoder`.
    """
    if prediction.refused is not None:
        return StudyObjects()
    try:
        return _written(assemble(prediction, files, card, decoder), out)
    except CodedError as error:
        return StudyObjects(refused=(_refusal("all", error),))


def _written(assembly: Assembly, out: Path) -> StudyObjects:
    written = write_results(out, assembly.result, masks=assembly.masks, colors=assembly.colors)
    refused = list(json.loads(written["result"].read_text())["refused_objects"])
    return StudyObjects(
        tuple(file.name for file in written.values()), (*refused, *assembly.refused)
    )


def _model_name(card: Card) -> str:
    """The architecture, such as resnet18; of a backbone of the user's own, the task."""
    network = card.training.get("config", {}).get("model", {})
    return str(network.get("variant") or card.task)


def _refusal(role: str, error: CodedError) -> dict[str, str]:
    return {"role": role, "code": error.code, "reason": str(error)}


def object_lines(studies: Sequence[Mapping[str, Any]]) -> list[str]:
    """For people: how many objects were written, and for each code once why others were not.

    studies: with the fields of `StudyObjects.as_dict`.
    """
    studies = [study for study in studies if "objects" in study]
    count = sum(len(study["objects"]) for study in studies)
    lines = [f"DICOM and FHIR objects: {count} files"] if count else []
    reasons = {row["code"]: row["reason"] for study in studies for row in study["refused_objects"]}
    counts = Counter(row["code"] for study in studies for row in study["refused_objects"])
    return lines + [
        f"objects that were not written: {n} {code}: {reasons[code]}" for code, n in counts.items()
    ]
