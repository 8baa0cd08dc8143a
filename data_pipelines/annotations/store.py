"""The label maps of a WORK folder: `annotations/`, version 1.

`<key>.npz` has the label map of one image or of the slices of one volume, in the original grid:
`layers` (uint8, see LabelMap; compressed) and `meta`, the UTF-8 bytes of a JSON object with
`schema`, `classes`, `images`, `affine` (4 x 4 or null) and `flags`.
`index.parquet` has one row per image of the manifest: `image`, `series`, `file` ('' without a label
map), `slice` (in that file), `state`, `rows`, `cols` and `sha256` of the file.
`classes.json` has `schema` and `classes`, those of the cohort.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.annotations.label_map import LabelMap, MaskState
from data_pipelines.errors import ManifestError
from data_pipelines.runtime.atomic_files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "medres.annotations/1"
FOLDER = "annotations"
_READ_ERRORS = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
#: states from the one that says most against training
_WORST_FIRST: tuple[MaskState, ...] = ("rejected", "not_annotated", "annotated")


def read_label_map(work: Path | str, key: str | Sequence[str]) -> LabelMap:
    """The label map of a sample of a WORK folder, in the original grid of its image.

    key: an image of the manifest, which gives one slice; a series, which gives all its slices in
        the order of the column `order`; or several images, which give one slice each.

    The classes are those of the cohort, the same for every sample. A sample without an annotation
    has only background and another state than "annotated"; if one slice of a sample is rejected or
    not annotated, so is the sample.

    Raises ManifestError: no_annotations (WORK was ingested without masks), unknown_sample,
    annotations_changed (a file is not the one that the index describes), annotations_unreadable.
    """
    work = Path(work)
    index, classes = _opened(work)
    if isinstance(key, str):
        rows = index[index["image"] == key]
        rows = rows if len(rows) else index[index["series"] == key]
    else:
        by_image = index.set_index("image", drop=False)
        absent = [name for name in key if name not in by_image.index]
        rows = index.iloc[:0] if absent else by_image.loc[list(key)]
    if not len(rows):
        raise ManifestError(f"{work} has no image or series of this name.", code="unknown_sample")
    sizes = rows[["rows", "cols"]].drop_duplicates()
    if len(sizes) > 1:
        raise ManifestError(
            f"{work}: the images of the sample have {len(sizes)} sizes.", code="unknown_sample"
        )
    state = next(state for state in _WORST_FIRST if (rows["state"] == state).any())
    shape = (len(rows), int(sizes["rows"].iloc[0]), int(sizes["cols"].iloc[0]))
    images = tuple(rows["image"])
    if state != "annotated":
        return LabelMap.empty(shape, classes).changed(images=images, state=state)
    return _stacked(work, rows, classes)


def write_index(folder: Path, index: pd.DataFrame, classes: Sequence[str]) -> None:
    """Write index.parquet and, last, classes.json into `annotations/`."""
    write_atomic(folder / "index.parquet", index.to_parquet(index=False))
    content = {"schema": SCHEMA, "classes": list(classes)}
    write_atomic(folder / "classes.json", json.dumps(content, indent=1).encode())


def label_map_bytes(label_map: LabelMap) -> bytes:
    """The content of the file of one label map; see the top of this module."""
    affine = label_map.affine
    meta = {
        "schema": SCHEMA,
        "classes": list(label_map.classes),
        "images": list(label_map.images),
        "affine": None if affine is None else affine.tolist(),
        "flags": list(label_map.flags),
    }
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez_compressed(buffer, layers=label_map.layers, meta=text)
    return buffer.getvalue()


def parse_label_map(data: bytes) -> LabelMap:
    """The label map in the bytes of a file. Raises ManifestError (annotations_unreadable)."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            layers, meta = arrays["layers"], json.loads(arrays["meta"].tobytes())
        if meta["schema"] != SCHEMA or layers.dtype != np.uint8 or layers.ndim != 4:
            raise ValueError
        affine = None if meta["affine"] is None else np.array(meta["affine"], np.float64)
        return LabelMap(
            layers,
            tuple(meta["classes"]),
            affine,
            tuple(meta["images"]),
            flags=tuple(meta["flags"]),
        )
    except _READ_ERRORS as error:
        raise ManifestError(
            f"A label map cannot be read ({type(error).__name__}): run medres ingest again.",
            code="annotations_unreadable",
        ) from None


def _stacked(work: Path, rows: pd.DataFrame, classes: tuple[str, ...]) -> LabelMap:
    """The slices of the rows, in their order."""
    files = list(dict.fromkeys(rows["file"]))
    digests = dict(zip(rows["file"], rows["sha256"], strict=True))
    maps = {
        name: _file(str(work / FOLDER / name), digests[name]).renamed(classes) for name in files
    }
    if len(files) == 1 and rows["image"].tolist() == list(maps[files[0]].images):
        return maps[files[0]]
    most = max(len(label_map.layers) for label_map in maps.values())
    _, height, width = maps[files[0]].shape
    layers = np.zeros((most, len(rows), height, width), np.uint8)
    for n, (name, number) in enumerate(zip(rows["file"], rows["slice"], strict=True)):
        layers[: len(maps[name].layers), n] = maps[name].layers[:, number]
    while len(layers) > 1 and not layers[-1].any():
        layers = layers[:-1]
    flags = dict.fromkeys(flag for label_map in maps.values() for flag in label_map.flags)
    return LabelMap(layers, classes, None, tuple(rows["image"]), flags=tuple(flags))


@functools.lru_cache(maxsize=4)
def _file(path: str, sha256: str) -> LabelMap:
    try:
        data = Path(path).read_bytes()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ManifestError(
            f"{path} is not the label map that the index describes: run medres ingest again, into "
            f"a new folder.",
            code="annotations_changed",
        )
    return parse_label_map(data)


def _opened(work: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    folder = work / FOLDER
    if not (folder / "classes.json").is_file():
        raise ManifestError(
            f"{work} has no annotations: make the folder with medres ingest SOURCE --masks MASKS "
            f"--out {work}",
            code="no_annotations",
        )
    return _read_index(str(folder), (folder / "index.parquet").stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _read_index(folder: str, _: int) -> tuple[pd.DataFrame, tuple[str, ...]]:
    import pandas as pd

    try:
        content = json.loads((Path(folder) / "classes.json").read_bytes())
        if content["schema"] != SCHEMA:
            raise ValueError
        return pd.read_parquet(Path(folder) / "index.parquet"), tuple(content["classes"])
    except _READ_ERRORS as error:
        raise ManifestError(
            f"{folder} cannot be read ({type(error).__name__}): run medres ingest again.",
            code="annotations_unreadable",
        ) from None
