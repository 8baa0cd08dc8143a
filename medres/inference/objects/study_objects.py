"""The objects of one prediction: report, segmentations, FHIR and JSON by `medres.results`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.errors import CodedError
from medres.artefact.card import Card
from medres.errors import ResultError
from medres.inference.decoder import Decoder
from medres.inference.objects.source_files import SourceRequest, read_sources
from medres.inference.prediction import Prediction
from medres.inference.request_files import portable
from medres.results.result import model_identity, results_of
from medres.results.writing import Masks, write_results

RESAMPLED = "resampled_grid"


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
        return _written(prediction, files, card, out, decoder)
    except CodedError as error:
        return StudyObjects(refused=(_refusal("all", error),))


def _written(
    prediction: Prediction, files: Sequence[Any], card: Card, out: Path, decoder: Decoder
) -> StudyObjects:
    wanted = frozenset(uid for sample in prediction.slices for uid, _ in sample)
    request = SourceRequest(tuple(map(portable, files)), wanted)
    sources = decoder.call(read_sources, request, n_files=len(files))
    if isinstance(sources, CodedError):
        raise sources
    result = results_of(
        prediction,
        [source.header for source in sources],
        model_identity(card, prediction.model_sha256, name=_model_name(card)),
        contents=[source.content for source in sources],
        boxes=prediction.positive_boxes,
    )
    masks = [mask for mask in prediction.masks if mask.slices]
    fields = card.segmentation
    colors = {} if fields is None else dict(zip(card.names, fields.colors, strict=True))
    layers = [Masks(mask.label_map, mask.slices) for mask in masks]
    written = write_results(out, result, masks=layers, colors=colors)
    refused = list(json.loads(written["result"].read_text())["refused_objects"])
    if len(masks) < len(prediction.masks):
        error = ResultError(
            "the mask lies on a grid of its own, since the series has gaps or a tilt: it has no "
            "slices that a segmentation could refer to; use its NIfTI file",
            code=RESAMPLED,
        )
        refused.append(_refusal("segmentation", error))
    return StudyObjects(tuple(file.name for file in written.values()), tuple(refused))


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
