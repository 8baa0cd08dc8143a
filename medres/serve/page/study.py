"""What the page of one study shows: the answers of its result, and the order of its images."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from medres.serve.page.drawing import MOST_PICTURES
from medres.serve.page.reports import Figure, ModelReport
from medres.serve.routing import ServedModel

MOST_IMAGE_ROWS = 200  # of the table of single images


class Answer(NamedTuple):
    """One finding (or class). threshold: None without one. decision: '' without one. set_text: the
    conformal set in words. figures: what the report said of the finding.
    """

    finding: str
    probability: float
    threshold: float | None
    decision: str
    set_text: str
    figures: list[Figure]


class Volume(NamedTuple):
    """The size of one class of a mask, in words."""

    name: str
    size: str
    voxels: int


class ShownBox(NamedTuple):
    """A box above the threshold of its class. image: its number, 0 where it is not known. size: in
    words. frame: from 1 on. x, y, width, height: in pixels of the original image.
    """

    label: str
    score: float
    image: int
    size: str
    frame: int
    x: float
    y: float
    width: float
    height: float


class Shown(NamedTuple):
    """One prediction. title: what it is about. decision: the class of exclusive classes, else ''.
    masks: of each mask, its classes. boxes: of a detector, None for other models. n_drawings:
    pictures that the model can draw.
    """

    title: str
    refused: str | None
    code: str | None
    answers: list[Answer]
    decision: str
    masks: list[list[Volume]]
    boxes: list[ShownBox] | None
    n_drawings: int


def shown_predictions(
    predictions: Sequence[Mapping[str, Any]], report: ModelReport | None, order: Sequence[str] = ()
) -> list[Shown]:
    """predictions: of a result document. order: as `images_in_order`."""
    count = len(predictions)
    return [
        _shown(prediction, f"Series {number} of {count}" if count > 1 else "", report, order)
        for number, prediction in enumerate(predictions, start=1)
    ]


def _shown(
    prediction: Mapping[str, Any], title: str, report: ModelReport | None, order: Sequence[str]
) -> Shown:
    decisions = prediction.get("decisions") or {}
    conformal = prediction.get("conformal") or {}
    chosen = decisions.get("class")
    masks = [_volumes(mask) for mask in prediction.get("masks") or ()]
    is_answered = prediction["refused"] is None
    return Shown(
        title=title,
        refused=prediction["refused"],
        code=prediction["code"],
        answers=[
            _answer(name, float(value), prediction, report)
            for name, value in (prediction.get("probabilities") or {}).items()
        ],
        decision=f"{chosen}{_doubt(conformal, 'class')}" if isinstance(chosen, str) else "",
        masks=masks,
        boxes=_boxes(prediction["boxes"], order) if "boxes" in prediction else None,
        n_drawings=_count_drawings(prediction) if is_answered else 0,
    )


def _answer(
    name: str, value: float, prediction: Mapping[str, Any], report: ModelReport | None
) -> Answer:
    decisions, conformal = prediction.get("decisions") or {}, prediction.get("conformal") or {}
    decision = ""
    if isinstance(decisions.get(name), bool):
        decision = ("positive" if decisions[name] else "negative") + _doubt(conformal, name)
    return Answer(
        name,
        value,
        (prediction.get("thresholds") or {}).get(name),
        decision,
        _set_text(conformal, name),
        figures_of(report, name),
    )


def _count_drawings(prediction: Mapping[str, Any]) -> int:
    """How many pictures `drawing.drawings` makes of a prediction."""
    if "boxes" in prediction:
        return min(int(prediction.get("n_images") or 0), MOST_PICTURES)
    return min(len(prediction.get("masks") or (0,)), MOST_PICTURES)


def _boxes(boxes: Sequence[Mapping[str, Any]], order: Sequence[str]) -> list[ShownBox]:
    """Those above the threshold of their class, the highest score first."""
    numbers = {sop: number for number, sop in enumerate(order, start=1)}
    shown = [box for box in boxes if box["is_positive"]]
    shown.sort(key=lambda box: -box["score"])
    return [
        ShownBox(
            box["label"],
            float(box["score"]),
            numbers.get(box["sop_instance_uid"], 0),
            _box_size(box),
            int(box.get("frame") or 0) + 1,
            float(box["x_min"]),
            float(box["y_min"]),
            float(box["x_max"] - box["x_min"]),
            float(box["y_max"] - box["y_min"]),
        )
        for box in shown
    ]


def boxes_on(shown: Sequence[Shown], number: int, frame: int) -> list[ShownBox]:
    """Those on one frame of one image, the highest score last: it is drawn on top."""
    boxes = [box for one in shown for box in one.boxes or ()]
    return [box for box in boxes if (box.image, box.frame) == (number, frame)][::-1]


def _box_size(box: Mapping[str, Any]) -> str:
    if box.get("size_mm") is None:
        return f"{box['x_max'] - box['x_min']:.0f} × {box['y_max'] - box['y_min']:.0f} pixels"
    width, height = box["size_mm"]
    return f"{width:.1f} × {height:.1f} mm" + (" at the detector" if box["at_detector"] else "")


def figures_of(report: ModelReport | None, finding: str) -> list[Figure]:
    """Of the finding; of a report with a single finding, those of that one."""
    if report is None:
        return []
    if len(report.figures) == 1:
        return next(iter(report.figures.values()))
    return report.figures.get(finding, [])


def _doubt(conformal: Mapping[str, Any], name: str) -> str:
    if name in conformal.get("uncertain", ()):
        return " (uncertain)"
    return " (atypical)" if name in conformal.get("atypical", ()) else ""


def _set_text(conformal: Mapping[str, Any], name: str) -> str:
    labels = (conformal.get("sets") or {}).get(name)
    if labels is None:
        return ""
    words = [{0: "negative", 1: "positive"}.get(one, str(one)) for one in labels]
    return " or ".join(words) if words else "empty: unlike the tuning patients"


def class_set(prediction: Mapping[str, Any]) -> str:
    """The conformal set of exclusive classes in words, '' without one."""
    return _set_text(prediction.get("conformal") or {}, "class")


def _volumes(mask: Mapping[str, Any]) -> list[Volume]:
    return [
        Volume(name, _size(mask["volumes"].get(name, {})), voxels)
        for name, voxels in mask["voxels"].items()
    ]


def mask_colors(model: ServedModel | None) -> dict[str, str]:
    """The color of each class of a segmenter, as "rgb(230, 46, 46)"; {} for other models."""
    segmentation = (model.card.get("segmentation") if model else None) or {}
    names = model.card["names"] if model and segmentation else []
    colors = segmentation.get("colors") or ()
    return {
        name: f"rgb({', '.join(str(int(one)) for one in color)})"
        for name, color in zip(names, colors, strict=False)
    }


def _size(size: Mapping[str, Any]) -> str:
    if size.get("ml") is not None:
        text = f"{size['ml']:.2f} ml"
        if size.get("ml_low") is not None:
            text += f" ({size['ml_low']:.2f} to {size['ml_high']:.2f})"
        return text
    return f"{size['mm2']:.1f} mm²" if size.get("mm2") is not None else "without a spacing"


def objects_text(objects: Sequence[Mapping[str, Any]], *, has_pacs: bool) -> str:
    """What became of the DICOM objects of a result.

    >>> objects_text([{"role": "report", "is_sent": True}], has_pacs=True)
    'report: delivered to the PACS'
    """
    if not objects:
        return "none"
    roles = ", ".join(dict.fromkeys(one["role"] or "object" for one in objects))
    if not has_pacs:
        return f"{roles}: made, and sent nowhere, since this server was started without a PACS"
    n_sent = sum(bool(one["is_sent"]) for one in objects)
    if n_sent == len(objects):
        return f"{roles}: delivered to the PACS"
    return f"{roles}: {n_sent} of {len(objects)} delivered to the PACS"


def images_in_order(job: sqlite3.Row, predictions: Sequence[Mapping[str, Any]]) -> list[str]:
    """The SOP Instance UIDs of the job: first those that were scored, in the order of the model
    (CT: of their positions), then the others.
    """
    scored = [
        str(position[0])
        for prediction in predictions
        for image in prediction.get("slices") or ()
        for position in image
    ]
    held = json.loads(job["instances"])
    return list(dict.fromkeys([*(sop for sop in scored if sop in {*held}), *held]))


def first_image(predictions: Sequence[Mapping[str, Any]], order: Sequence[str]) -> int:
    """The number, from 1 on, of the image with the surest box or the highest probability; 1 where
    none has one.
    """
    boxes = [
        (box["score"], order.index(box["sop_instance_uid"]) + 1)
        for prediction in predictions
        for box in prediction.get("boxes") or ()
        if box["is_positive"] and box["sop_instance_uid"] in order
    ]
    if boxes:
        return max(boxes)[1]
    best, number = -1.0, 1
    for prediction in predictions:
        images = zip(prediction.get("images") or (), prediction.get("slices") or (), strict=False)
        for probabilities, positions in images:
            top = max(probabilities.values(), default=-1.0)
            if top > best and positions and positions[len(positions) // 2][0] in order:
                best = top
                number = order.index(positions[len(positions) // 2][0]) + 1
    return number


def image_probabilities(
    predictions: Sequence[Mapping[str, Any]], order: Sequence[str]
) -> list[tuple[int, dict[str, float]]]:
    """The number of an image and its probabilities, where the model scores single images."""
    numbers = {sop: number for number, sop in enumerate(order, start=1)}
    rows = [
        (numbers[positions[len(positions) // 2][0]], dict(probabilities))
        for prediction in predictions
        for probabilities, positions in zip(
            prediction.get("images") or (), prediction.get("slices") or (), strict=False
        )
        if positions and positions[len(positions) // 2][0] in numbers
    ]
    return rows[:MOST_IMAGE_ROWS]
