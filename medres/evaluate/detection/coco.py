"""Reading COCO annotations (the reference) and COCO results (the predictions), and the table of
patients. Messages count entries, and name classes and positions, but no image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medres.errors import EvaluationError
from medres.evaluate.detection.boxes import Boxes, Images
from medres.evaluate.scores.ids import id_texts
from medres.evaluate.scores.io import read_table
from medres.evaluate.scores.sample import Float64Array, Int64Array

KEYS_OF_IMAGES = ("image_id", "file_name", "case")
TO_IGNORE = ("iscrowd", "ignore")

Source = str | Path | Mapping[str, Any] | Sequence[Any]


@dataclass(frozen=True)
class Reference:
    """images: all that were assessed; one without boxes is a true negative. classes: names by
    category id.
    """

    images: Images
    classes: dict[int, str]
    boxes: Boxes


def read_reference(source: Source) -> Reference:
    """COCO annotations: `images` (id, file_name, width, height), `categories` (id, name) and
    `annotations` (image_id, category_id, bbox = x, y, width, height; iscrowd).

    Raises EvaluationError. Codes: unreadable, not_coco, no_images, repeated_id, unknown_image,
    unknown_class, bad_box.
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
    entries = list(content["images"])
    images = Images(
        _unique([_field(e, "id", "images", i) for i, e in enumerate(entries)], "images"),
        [str(entry.get("file_name", "")) for entry in entries],
        np.array([int(entry.get("width") or 0) for entry in entries], dtype=np.int64),
        np.array([int(entry.get("height") or 0) for entry in entries], dtype=np.int64),
        np.arange(len(entries)),
    )
    if not len(images):
        raise EvaluationError("the reference lists no image", code="no_images")
    categories = list(content["categories"])
    ids = _unique(
        [_field(c, "id", "categories", i) for i, c in enumerate(categories)], "categories"
    )
    names = [
        str(category.get("name", number)) for category, number in zip(categories, ids, strict=True)
    ]
    classes = dict(zip(ids, _unique(names, "categories (by name)"), strict=True))
    boxes = _boxes(list(content["annotations"]), images, classes, "annotations", scored=False)
    return Reference(images, classes, _inside(boxes, images, "annotations"))


def read_predictions(source: Source, reference: Reference) -> Boxes:
    """COCO results: a list of image_id, category_id, bbox and score.

    Raises EvaluationError. Codes: those of `read_reference`, and bad_score.
    """
    content = _load(source, "predictions")
    if isinstance(content, Mapping):
        raise EvaluationError(
            "the predictions are not a COCO results file: it is a list of objects with image_id, "
            "category_id, bbox and score",
            code="not_coco",
        )
    return _boxes(list(content), reference.images, reference.classes, "predictions", scored=True)


def with_patients(
    images: Images, source: pd.DataFrame | str | Path, columns: Sequence[str] = ()
) -> tuple[Images, pd.DataFrame]:
    """The images with their patients, and the `columns` of the table in the order of the images.

    The table has one row an image: `image_id`, `file_name` (or `case`), and `patient`.

    Raises EvaluationError. Codes: missing_column, missing_id, repeated_id, unmatched_images.
    """
    table = (
        source.copy() if isinstance(source, pd.DataFrame) else read_table(Path(source), "patients")
    )
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


def _field(entry: Any, key: str, where: str, position: int) -> Any:
    if not isinstance(entry, Mapping) or key not in entry:
        raise EvaluationError(f"entry {position} of {where} has no {key!r}", code="not_coco")
    return entry[key]


def _unique(values: list[Any], where: str) -> list[Any]:
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
        stated = [entry.get("area") for entry in entries]
        area = np.array(
            [own if a is None else float(a) for a, own in zip(stated, area, strict=True)]
        )
    ignore = np.array(
        [not scored and any(bool(entry.get(key)) for key in TO_IGNORE) for entry in entries],
        dtype=bool,
    )
    corners = np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], axis=1)
    return Boxes(image, category, corners, score, area.astype(np.float64), ignore)


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
    try:
        score = np.array([float(value) for value in values], dtype=np.float64)
    except (TypeError, ValueError):
        score = np.full(len(values), np.nan)
    if np.isnan(score).any():
        raise EvaluationError(
            f"{int(np.isnan(score).sum())} of {score.size} {where} have a score that is not a "
            "number",
            code="bad_score",
        )
    return score


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
