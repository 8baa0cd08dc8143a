"""The DICOM objects of a result: a structured report, an overlay, and segmentations of masks. They
are made in the process of the model; the same study gives the same objects again.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from data_pipelines.errors import CodedError
from data_pipelines.kinds import image_kind
from medres.errors import ResultError
from medres.results.capture import secondary_capture
from medres.results.drawing import SOFT_TISSUE, Overlay, display_picture
from medres.results.report import structured_report
from medres.results.result import Result, model_identity
from medres.results.segmentation import segmentation_object
from medres.results.source_study import source_study
from medres.results.writing import NO_SEGMENTATION
from medres.serve.results import UNSIGNED

if TYPE_CHECKING:
    from medres.inference.masks.study_mask import StudyMask
    from medres.inference.prediction import Prediction
    from medres.inference.predictor import Predictor


def make_objects(
    prediction: Prediction,
    datasets: Sequence[Dataset],
    *,
    key: str,
    revision: int,
    predecessor: str,
    created: float,
    predictor: Predictor,
    files: Mapping[str, Path],
) -> list[Dataset]:
    """The objects of one prediction: the report first; no object of a study without images.

    datasets: headers of all files of the study. key, predecessor: see `part_key`. created: when the
    result was made, seconds since 1970. files: SOP Instance UID -> file.

    Raises ResultError as `structured_report`, `secondary_capture` and `segmentation_object` do.
    """
    images = _images_of(prediction, datasets)
    if not images:
        return []
    artefact = predictor.artefact
    result = Result(
        key=key,
        prediction=prediction,
        model=model_identity(artefact.card, artefact.sha256),
        sources=source_study(images),
        created=dt.datetime.fromtimestamp(created, dt.UTC),
        boxes=tuple(prediction.positive_boxes),
        notes=_notes(artefact.signer, revision),
        predecessor=predecessor,
    )
    made = [structured_report(result)]
    if prediction.refused is not None:
        return made
    overlays = [_mask_overlay(mask, predictor, files) for mask in prediction.masks if mask.slices]
    if not prediction.masks:
        overlays = [_score_overlay(prediction, predictor, files)]
    for number, overlay in enumerate(filter(None, overlays), start=1):
        made.append(secondary_capture(result, overlay, number))
    return made + _segmentations(result, prediction.masks)


def _images_of(prediction: Prediction, datasets: Sequence[Dataset]) -> list[Dataset]:
    """The headers of the images that the prediction is about; of a refusal, of all images."""
    images = [one for one in datasets if one.get("Rows") and one.get("Columns")]
    if prediction.refused is not None:
        return images
    scored = {*prediction.sop_instance_uids}
    return [one for one in images if str(one.SOPInstanceUID) in scored]


def _notes(signer: str | None, revision: int) -> tuple[str, ...]:
    notes = () if signer else (UNSIGNED,)
    return notes if revision == 1 else (*notes, f"Revision {revision}: the study has grown.")


def _score_overlay(
    prediction: Prediction, predictor: Predictor, files: Mapping[str, Path]
) -> Overlay | None:
    """The image with the highest probability under its saliency map; without the map where the
    model has none on the pixels of the image (a volume, another engine). An image with boxes comes
    before others. None where the image cannot be shown.
    """
    if boxes := prediction.positive_boxes:
        best = max(boxes, key=lambda box: box.score)
        return _plain(best.sop_instance_uid, best.frame, predictor, files)
    if prediction.probabilities and predictor.card.preprocess.form != "volume":
        try:
            saliency = prediction.saliency()
        except CodedError:
            pass
        else:
            uid, frame = _middle(prediction.slices[saliency.index])
            return Overlay(saliency.picture, uid, frame, heat=saliency.values)
    scores = [max(image.values(), default=0.0) for image in prediction.images]
    if not prediction.slices:
        return None
    slices = prediction.slices[int(np.argmax(scores)) if scores else 0]
    return _plain(*_middle(slices), predictor, files)


def _middle(slices: Sequence[tuple[str, int]]) -> tuple[str, int]:
    return slices[len(slices) // 2]


def _plain(uid: str, frame: int, predictor: Predictor, files: Mapping[str, Path]) -> Overlay | None:
    picture = _picture(uid, frame, predictor, files)
    return None if picture is None else Overlay(picture, uid, frame)


def _mask_overlay(
    mask: StudyMask, predictor: Predictor, files: Mapping[str, Path]
) -> Overlay | None:
    """The slice with most foreground, and the outlines of the classes on it."""
    volume = mask.label_map.layers[0]
    at = int((volume > 0).sum(axis=(1, 2)).argmax())
    uid, frame = mask.slices[at]
    picture = _picture(uid, frame, predictor, files)
    if picture is None:
        return None
    masks = {name: volume[at] == n for n, name in enumerate(mask.names) if n}
    return Overlay(picture, uid, frame, masks=masks, colors=dict(_colors(mask)))


def _picture(
    uid: str, frame: int, predictor: Predictor, files: Mapping[str, Path]
) -> NDArray[np.float32] | None:
    """An image as it is displayed, decoded in a worker; None if it cannot be read."""
    card = predictor.card
    has_windows = image_kind(card.preprocess.kind).has_windows
    window = SOFT_TISSUE
    if has_windows and card.windows:
        center, width = card.windows[0]
        window = float(center), float(width)
    show = functools.partial(display_picture, frame=frame, window=window)
    picture = predictor.decoder.call(show, str(files[uid]))
    return None if isinstance(picture, CodedError) else picture


def _segmentations(result: Result, masks: Sequence[StudyMask]) -> list[Dataset]:
    """A segmentation of each label map that lies on the pixels of its images; one that the images
    do not allow is left out (see NO_SEGMENTATION).
    """
    made = []
    for number, mask in enumerate(masks, start=1):
        if not mask.slices:
            continue
        try:
            made.append(
                segmentation_object(
                    result, mask.label_map, mask.slices, colors=dict(_colors(mask)), number=number
                )
            )
        except ResultError as error:
            if error.code not in NO_SEGMENTATION:
                raise
    return made


def _colors(mask: StudyMask) -> list[tuple[str, tuple[int, int, int]]]:
    return list(zip(mask.names[1:], mask.colors[1:], strict=False))
