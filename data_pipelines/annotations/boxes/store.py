"""The boxes of a WORK folder: `boxes/`, version 1.

`boxes.parquet` has one row per used box: `image`, `class`, `x_min`, `y_min`, `x_max`, `y_max`
(edges, half-open, in pixels of the original image), `score` (NaN without one), `reader`, `ignore`
and `flags`. `index.parquet` has one row per image of the manifest: `image`, `state`, `rows`,
`cols`. `classes.json` has `schema`, `classes` and the `sha256` of both files.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data_pipelines.annotations.boxes.edge_boxes import BoxState, EdgeBoxes
from data_pipelines.errors import ManifestError
from data_pipelines.runtime.atomic_files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "medres.boxes/1"
FOLDER = "boxes"
CORNERS = ("x_min", "y_min", "x_max", "y_max")
_FILES = ("boxes.parquet", "index.parquet")
_READ_ERRORS = (OSError, ValueError, KeyError, TypeError)


def read_boxes(work: Path | str, image: str) -> EdgeBoxes:
    """The boxes of an image of the manifest, in the pixels of the original image.

    The classes are those of the cohort, the same for every image. An image that is not annotated
    has no boxes and another state than "annotated".

    Raises ManifestError: no_boxes (WORK was ingested without boxes), unknown_sample,
    boxes_changed (a file is not the one that classes.json describes), boxes_unreadable.
    """
    return _boxes_of(_opened(Path(work)), work, image)


def boxes_of_images(
    work: Path | str, images: Sequence[str]
) -> tuple[list[EdgeBoxes], tuple[str, ...]]:
    """The boxes of each image, as `read_boxes` gives them, and the classes of the cohort."""
    content = _opened(Path(work))
    return [_boxes_of(content, work, image) for image in images], content.classes


def _boxes_of(content: _Content, work: Path | str, image: str) -> EdgeBoxes:
    if image not in content.images:
        raise ManifestError(f"{work} has no image of this name.", code="unknown_sample")
    state, rows, columns = content.images[image]
    at, columns_of = content.positions.get(image, []), content.columns
    return EdgeBoxes.of(
        columns_of["edges"][at],
        columns_of["label"][at],
        content.classes,
        (rows, columns),
        scores=columns_of["score"][at],
        ignore=columns_of["ignore"][at],
        readers=tuple(columns_of["reader"][at]),
        image=image,
        state=state,
        flags=tuple(
            dict.fromkeys(f for text in columns_of["flags"][at] for f in text.split(";") if f)
        ),
    )


def write_boxes(
    folder: Path, boxes: pd.DataFrame, index: pd.DataFrame, classes: Sequence[str]
) -> None:
    """Write boxes.parquet, index.parquet and, last, classes.json into `boxes/`."""
    digests = {}
    for name, table in zip(_FILES, (boxes, index), strict=True):
        data = table.to_parquet(index=False)
        digests[name] = hashlib.sha256(data).hexdigest()
        write_atomic(folder / name, data)
    content = {"schema": SCHEMA, "classes": list(classes), "sha256": digests}
    write_atomic(folder / "classes.json", json.dumps(content, indent=1).encode())


class _Content(NamedTuple):
    """columns: edges (boxes, 4), label, score, ignore, reader and flags of all boxes. positions:
    image -> the numbers of its boxes.
    """

    classes: tuple[str, ...]
    columns: dict[str, np.ndarray]
    positions: dict[str, list[int]]
    images: dict[str, tuple[BoxState, int, int]]


def _opened(work: Path) -> _Content:
    path = work / FOLDER / "classes.json"
    if not path.is_file():
        raise ManifestError(
            f"{work} has no boxes: make the folder with medres ingest SOURCE --boxes BOXES --out "
            f"{work}",
            code="no_boxes",
        )
    return _read(str(path.parent), path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _read(folder: str, _: int) -> _Content:
    import pandas as pd

    try:
        content = json.loads((Path(folder) / "classes.json").read_bytes())
        if content["schema"] != SCHEMA:
            raise ValueError
        data = [(Path(folder) / name).read_bytes() for name in _FILES]
        digests = [hashlib.sha256(each).hexdigest() for each in data]
        if digests != [content["sha256"][name] for name in _FILES]:
            raise ManifestError(
                f"The files of {folder} are not those that classes.json describes: run medres "
                f"ingest again, into a new folder.",
                code="boxes_changed",
            )
        boxes, index = (pd.read_parquet(io.BytesIO(each)) for each in data)
        positions = {str(k): list(v) for k, v in boxes.groupby("image").indices.items()}
        images = {name: (state, rows, cols) for name, state, rows, cols in index.values.tolist()}
        classes = tuple(content["classes"])
        number = {name: label for label, name in enumerate(classes)}
        columns = {
            "edges": boxes[list(CORNERS)].to_numpy(np.float64),
            "label": np.array([number[name] for name in boxes["class"]], np.int32),
            "score": boxes["score"].to_numpy(np.float64),
            "ignore": boxes["ignore"].to_numpy(np.bool_),
            "reader": boxes["reader"].to_numpy(np.object_),
            "flags": boxes["flags"].to_numpy(np.object_),
        }
        return _Content(classes, columns, positions, images)
    except _READ_ERRORS as error:
        raise ManifestError(
            f"{folder} cannot be read ({type(error).__name__}): run medres ingest again.",
            code="boxes_unreadable",
        ) from None
