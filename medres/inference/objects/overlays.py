"""The images of a prediction that are shown as overlays: with a saliency map, masks or boxes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.dicom.reader import DicomSource
from data_pipelines.errors import CodedError
from data_pipelines.kinds import image_kind
from medres.artefact.card import Card
from medres.inference.decoder import Decoder
from medres.inference.masks.study_mask import StudyMask
from medres.inference.prediction import Prediction
from medres.results.drawing import SOFT_TISSUE, Overlay, display_picture

Slice = tuple[str, int]


def overlays_of(
    prediction: Prediction, files: Mapping[str, DicomSource], card: Card, decoder: Decoder
) -> list[Overlay | CodedError]:
    """One for each label map that lies on the pixels of its images, else one of the study; in place
    of one whose image cannot be shown, the reason. files: SOP Instance UID -> file.
    """
    show = functools.partial(_shown, files=files, card=card, decoder=decoder)
    if prediction.masks:
        return [_of_mask(mask, show) for mask in prediction.masks if mask.slices]
    overlay = _of_scores(prediction, card, show)
    return [] if overlay is None else [overlay]


def _of_scores(
    prediction: Prediction, card: Card, show: functools.partial[Overlay | CodedError]
) -> Overlay | CodedError | None:
    """The image with the highest probability under its saliency map; without the map where the
    model has none on the pixels of the image (a volume, another engine). An image with boxes comes
    before others. None without images.
    """
    if boxes := prediction.positive_boxes:
        best = max(boxes, key=lambda box: box.score)
        return show((best.sop_instance_uid, best.frame))
    if not prediction.slices:
        return None
    if prediction.probabilities and card.preprocess.form != "volume":
        try:
            saliency = prediction.saliency()
        except CodedError:
            pass
        else:
            uid, frame = _middle(prediction.slices[saliency.index])
            return Overlay(saliency.picture, uid, frame, heat=saliency.values)
    scores = [max(image.values(), default=0.0) for image in prediction.images]
    return show(_middle(prediction.slices[int(np.argmax(scores)) if scores else 0]))


def _middle(slices: Sequence[Slice]) -> Slice:
    return slices[len(slices) // 2]


def _of_mask(
    mask: StudyMask, show: functools.partial[Overlay | CodedError]
) -> Overlay | CodedError:
    """The slice with most foreground, and the outlines of the classes on it."""
    volume = mask.label_map.layers[0]
    at = int((volume > 0).sum(axis=(1, 2)).argmax())
    masks = {name: volume[at] == n for n, name in enumerate(mask.names) if n}
    return show(mask.slices[at], masks=masks, colors=mask.class_colors)


def _shown(
    at: Slice, *, files: Mapping[str, DicomSource], card: Card, decoder: Decoder, **drawn: Any
) -> Overlay | CodedError:
    """An image as it is displayed, decoded in a worker; or why it cannot be read."""
    uid, frame = at
    window = SOFT_TISSUE
    if image_kind(card.preprocess.kind).has_windows and card.windows:
        center, width = card.windows[0]
        window = float(center), float(width)
    picture = decoder.call(
        functools.partial(display_picture, frame=frame, window=window), files[uid]
    )
    return picture if isinstance(picture, CodedError) else Overlay(picture, uid, frame, **drawn)
