"""Reading COCO annotations (the reference) and COCO results (the predictions), and the table of
patients. Messages count entries, and name classes and positions, but no image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medres.errors import EvaluationError
from medres.evaluate.detection.boxes import BoolArray, Boxes, Images
from medres.evaluate.scores.ids import id_texts
from medres.evaluate.scores.io import read_table
from medres.evaluate.scores.sample import Float64Array, Int64Array
from medres.evaluate.scores.table import STATUSES

KEYS_OF_IMAGES = ("image_id", "file_name", "case")
TO_IGNORE = ("iscrowd", "ignore")

Source = str | Path | Mapping[str, Any] | Sequence[Any]


@dataclass(frozen=True)
class Reference:
    """images: all that were assessed; one without boxes is a true negative. classes: names by
    category id. left_out: ids of images for which the detector gave no answer.
    """

    images: Images
    classes: dict[int, str]
    boxes: Boxes
    left_out: frozenset[str] = frozenset()

    def without(self, images: BoolArray) -> Reference:
        """Without these images (n,) and what is in them; predictions in them will be skipped."""
        kept = np.flatnonzero(~images)
        if not kept.size:
            raise EvaluationError(
                "every image has the status refused or failed: nothing is left", code="no_images"
            )
        boxes = self.boxes.take(~images[self.boxes.image])
        return Reference(
            self.images.take(kept),
            self.classes,
            replace(boxes, image=np.searchsorted(kept, boxes.image)),
            frozenset(str(self.images.ids[i]) for i in np.flatnonzero(images)),
        )


def read_reference(source: Source) -> Reference:
    """COCO annotations: `images` (id, file_name, width, height), `categories` (id, name) and
    `annotations` (image_id, category_id, bbox = x, y, width, height; iscrowd). The images are put
    in the order of their ids, as pycocotools does: it decides between equal scores.

    Raises EvaluationError. Codes: unreadable, not_coco, no_images, no_classes, repeated_id,
    unknown_image, unknown_class, bad_box.
    """
    content = _load(source, "reference")
    if not isinstance(content, Mapping) or not {"images", "annotations", "categories"} <= set(
        content
    ):
        raise EvaluationError(
            "the reference is not a COCO annotations file: it needs the keys images, annotations "
            "and categories",
            code="not_coco",
        )
    entries = _entries(content, "images")
    _unique([_field(entry, "id", "images", i) for i, entry in enumerate(entries)], "images")
    entries.sort(key=lambda entry: _id_order(entry["id"]))
    images = Images(
        [entry["id"] for entry in entries],
        [str(entry.get("file_name") or "") for entry in entries],
        _sides_of_images(entries, "width"),
        _sides_of_images(entries, "height"),
        np.arange(len(entries)),
    )
    if not len(images):
        raise EvaluationError("the reference lists no image", code="no_images")
    categories = _entries(content, "categories")
    if not categories:
        raise EvaluationError("the reference lists no category", code="no_classes")
    ids = _unique(
        [_field(c, "id", "categories", i) for i, c in enumerate(categories)], "categories"
    )
    names = [
        str(number if category.get("name") is None else category["name"])
        for category, number in zip(categories, ids, strict=True)
    ]
    classes = dict(zip(ids, _unique(names, "categories (by name)"), strict=True))
    annotations = _entries(content, "annotations")
    boxes = _boxes(annotations, images, classes, "annotations", scored=False)
    return Reference(images, classes, _inside(boxes, images, "annotations"))


def read_predictions(source: Source, reference: Reference) -> Boxes:
    """COCO results: a list of image_id, category_id, bbox and score.

    Raises EvaluationError. Codes: those of `read_reference`, and bad_score.
    """
    content = _load(source, "predictions")
    if isinstance(content, Mapping | str) or not isinstance(content, Sequence):
        raise EvaluationError(
            "the predictions are not a COCO results file: it is a list of objects with image_id, "
            "category_id, bbox and score",
            code="not_coco",
        )
    entries = list(content)
    image = [_field(entry, "image_id", "predictions", i) for i, entry in enumerate(entries)]
    entries = [e for e, i in zip(entries, image, strict=True) if str(i) not in reference.left_out]
    return _boxes(entries, reference.images, reference.classes, "predictions", scored=True)


def with_patients(
    images: Images, source: pd.DataFrame | str | Path, columns: Sequence[str] = ()
) -> tuple[Images, pd.DataFrame]:
    """The images with their patients, and the `columns` of the table in the order of the images.

    The table has one row an image: `image_id`, `file_name` (or `case`), and `patient`.

    Raises EvaluationError. Codes: duplicate_column, missing_column, missing_id, repeated_id,
    unmatched_images.
    """
    table = read_patients(source)
    key = next((name for name in KEYS_OF_IMAGES if name in table.columns), None)
    absent = [name for name in ("patient", *columns) if name not in table.columns]
    if key is None or absent:
        raise EvaluationError(
            f"the patients table has no column {absent[0] if absent else 'image_id'!r}; it needs "
            "image_id (or file_name, or case) and patient, one row for each image",
            code="missing_column",
        )
    keys, patients = id_texts(table[key]), id_texts(table["patient"])
    if (patients == "").any() or (keys == "").any():
        raise EvaluationError(
            f"{int(((patients == '') | (keys == '')).sum())} rows of the patients table have no "
            f"{key} or no patient",
            code="missing_id",
        )
    if keys.duplicated().any():
        raise EvaluationError(
            f"{int(keys.duplicated().sum())} rows of the patients table repeat an image: keep one "
            "row for each",
            code="repeated_id",
        )
    wanted = _texts_of(images, key)
    if len(set(wanted)) < len(wanted):
        raise EvaluationError(
            f"images of the reference have the same {key}, so the patients table cannot tell them "
            "apart: give it the column image_id",
            code="repeated_id",
        )
    at = pd.Index(keys).get_indexer(pd.Index(wanted))
    if (at < 0).any():
        raise EvaluationError(
            f"{int((at < 0).sum())} of {len(images)} images of the reference are not in the "
            f"patients table (by {key})",
            code="unmatched_images",
        )
    codes = pd.factorize(patients.to_numpy()[at])[0]
    return (
        replace(images, patient=codes.astype(np.int64), clustered=True),
        table.iloc[at].reset_index(drop=True)[list(columns)],
    )


def read_patients(source: pd.DataFrame | str | Path) -> pd.DataFrame:
    """The table of the patients. Raises EvaluationError (duplicate_column, and the codes of
    `read_table`)."""
    table = (
        source.copy() if isinstance(source, pd.DataFrame) else read_table(Path(source), "patients")
    )
    if not table.columns.is_unique:
        raise EvaluationError(
            "the patients table has two columns of the same name: keep one of them",
            code="duplicate_column",
        )
    return table


def no_answer(status: pd.Series) -> BoolArray:
    """Where the detector gave no answer (refused, failed). Raises EvaluationError (bad_status)."""
    invalid = ~status.isin(STATUSES)
    if invalid.any():
        raise EvaluationError(
            f"column 'status' of the patients table: {int(invalid.sum())} rows with something "
            "other than scored, refused or failed",
            code="bad_status",
        )
    return np.asarray(status != "scored")


def describe_source(source: Source) -> dict[str, object]:
    """Name and SHA-256 of a file, or of what was given instead of one."""
    if isinstance(source, str | Path):
        data, name = Path(source).read_bytes(), Path(source).name
    else:
        data, name = json.dumps(source, sort_keys=True, default=str).encode(), "object"
    return {"name": name, "sha256": hashlib.sha256(data).hexdigest()}


def _texts_of(images: Images, key: str) -> list[str]:
    if key == "image_id":
        return [str(number) for number in images.ids]
    if key == "file_name":
        return images.names
    return [Path(name).stem for name in images.names]


def _load(source: Source, what: str) -> Any:
    if not isinstance(source, str | Path):
        return source
    try:
        return json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"the {what} file {Path(source).name!r} cannot be read as JSON: {type(error).__name__}",
            code="unreadable",
        ) from error


def _entries(content: Mapping[str, Any], key: str) -> list[Any]:
    value = content[key]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise EvaluationError(f"{key} of the reference is not a list", code="not_coco")
    return list(value)


def _id_order(value: Any) -> tuple[bool, float, str]:
    """Numbers by value, then texts."""
    is_number = isinstance(value, int | float)
    return not is_number, float(value) if is_number else 0.0, str(value)


def _sides_of_images(entries: Sequence[Mapping[str, Any]], side: str) -> Int64Array:
    """(n,) whole pixels, 0 where the size is not given."""
    try:
        values = np.array([float(entry.get(side) or 0.0) for entry in entries], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.array([np.nan])
    if not ((values >= 0.0) & (values < 2.0**31)).all():
        raise EvaluationError(f"images have a {side} that is not in pixels", code="not_coco")
    return values.astype(np.int64)


def _field(entry: Any, key: str, where: str, position: int) -> Any:
    if not isinstance(entry, Mapping) or key not in entry:
        raise EvaluationError(f"entry {position} of {where} has no {key!r}", code="not_coco")
    return entry[key]


def _unique(values: list[Any], where: str) -> list[Any]:
    if not all(isinstance(value, Hashable) for value in values):
        raise EvaluationError(f"an id of {where} is no number or text", code="not_coco")
    repeated = len(values) - len(set(map(str, values)))
    if repeated:
        raise EvaluationError(
            f"{repeated} entries of {where} repeat an id or a name", code="repeated_id"
        )
    return values


def _boxes(
    entries: list[Any], images: Images, classes: Mapping[int, str], where: str, *, scored: bool
) -> Boxes:
    n = len(entries)

    def column(key: str) -> list[Any]:
        return [_field(entry, key, where, i) for i, entry in enumerate(entries)]

    image = _positions(column("image_id"), images.ids, where, "image", "unknown_image")
    category = _positions(column("category_id"), list(classes), where, "class", "unknown_class")
    sides = _numbers(column("bbox"), where, (n, 4))
    score = _scores(column("score"), where) if scored else np.zeros(n)
    area = sides[:, 2] * sides[:, 3]
    if not scored:
        area = _stated(entries, "area", area)
        flags = [_stated(entries, key, np.zeros(n)) for key in TO_IGNORE]
    ignore = np.zeros(n, dtype=bool) if scored else np.any(flags, axis=0)
    corners = np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], axis=1)
    return Boxes(image, category, corners, score, area.astype(np.float64), ignore)


def _stated(entries: list[Any], key: str, otherwise: Float64Array) -> Float64Array:
    """(n,) a number of each annotation, from 0 up; `otherwise` where there is none."""
    stated = [entry.get(key) for entry in entries]
    try:
        values = [own if a is None else float(a) for a, own in zip(stated, otherwise, strict=True)]
    except (TypeError, ValueError, OverflowError):
        values = [np.nan]
    out = np.array(values, dtype=np.float64)
    if not (np.isfinite(out) & (out >= 0.0)).all():
        raise EvaluationError(
            f"annotations have {key!r} that is not a number from 0 up", code="bad_box"
        )
    return out


def _positions(values: list[Any], among: list[Any], where: str, what: str, code: str) -> Int64Array:
    place: dict[str, int] = {str(value): i for i, value in enumerate(among)}
    found = np.array([place.get(str(value), -1) for value in values], dtype=np.int64)
    if (found < 0).any():
        raise EvaluationError(
            f"{int((found < 0).sum())} of {found.size} {where} name a {what} that the reference "
            "does not have",
            code=code,
        )
    return found


def _numbers(values: list[Any], where: str, shape: tuple[int, int]) -> Float64Array:
    def bad(of: Callable[[Any], bool]) -> int:
        return sum(map(of, values))

    wrong = bad(
        lambda box: (
            not isinstance(box, Sequence | np.ndarray)
            or len(box) != shape[1]
            or not all(isinstance(side, int | float | np.number) for side in box)
        )
    )
    sides = np.zeros(shape) if wrong else np.array(values, dtype=np.float64).reshape(shape)
    wrong += int((~np.isfinite(sides)).any(axis=1).sum()) if not wrong else 0
    if wrong:
        raise EvaluationError(
            f"{wrong} of {shape[0]} {where} have a bbox that is not four finite numbers: x, y, "
            "width, height in pixels",
            code="bad_box",
        )
    empty = int((sides[:, 2:] <= 0.0).any(axis=1).sum())
    if empty and where == "predictions":
        empty = int((sides[:, 2:] < 0.0).any(axis=1).sum())
    if empty:
        raise EvaluationError(
            f"{empty} of {shape[0]} {where} have a bbox without area: it is x, y, width, height, "
            "and not two corners; width and height must be above 0",
            code="bad_box",
        )
    return sides


def _scores(values: list[Any], where: str) -> Float64Array:
    score = np.array([_number(value) for value in values], dtype=np.float64)
    if np.isnan(score).any():
        raise EvaluationError(
            f"{int(np.isnan(score).sum())} of {score.size} {where} have a score that is not a "
            "number",
            code="bad_score",
        )
    return score


def _number(value: Any) -> float:
    """NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _inside(boxes: Boxes, images: Images, where: str) -> Boxes:
    """Refuses references that lie wholly outside their image, where its size is given."""
    width, height = images.width[boxes.image], images.height[boxes.image]
    x_min, y_min, x_max, y_max = boxes.corners.T
    outside = (width > 0) & ((x_min >= width) | (x_max <= 0))
    outside |= (height > 0) & ((y_min >= height) | (y_max <= 0))
    if outside.any():
        raise EvaluationError(
            f"{int(outside.sum())} of {len(boxes)} {where} lie outside their image: are the boxes "
            "in pixels of the original image, as x, y, width, height?",
            code="bad_box",
        )
    return boxes


def count_copies(boxes: Boxes) -> int:
    """How many boxes repeat another one of the same image and class."""
    rows = np.column_stack([boxes.image, boxes.category, boxes.corners])
    return len(boxes) - len(np.unique(rows, axis=0))
