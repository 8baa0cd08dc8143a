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
from typing import TYPE_CHECKING, NamedTuple

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


class SliceRef(NamedTuple):
    """Where the label map of one image lies: a slice of a file below `annotations/`, with the
    SHA-256 of the file. state: see LabelMap; without a label map, `file` is ''.
    """

    image: str
    file: str
    slice: int
    sha256: str
    state: MaskState


def slice_refs(work: Path | str, images: Sequence[str]) -> tuple[list[SliceRef], tuple[str, ...]]:
    """Where the label map of each image lies, and the classes of the cohort. Raises ManifestError
    (no_annotations, unknown_sample, annotations_unreadable).
    """
    index, classes = _opened(Path(work))
    by_image = index.set_index("image", drop=False)
    if not set(images) <= set(by_image.index):
        raise ManifestError(
            f"{work}: the annotations do not know all images of the manifest: run medres ingest "
            f"again, into a new folder.",
            code="unknown_sample",
        )
    return _refs(by_image.loc[list(images)]), classes


def stacked(folder: Path, refs: Sequence[SliceRef], classes: tuple[str, ...]) -> LabelMap:
    """The label map of some slices, all annotated, in their order. folder: `annotations/`. Does not
    load pandas. Raises ManifestError (annotations_changed, annotations_unreadable).
    """
    digests = {ref.file: ref.sha256 for ref in refs}
    maps = {name: _file(str(folder / name), digest) for name, digest in digests.items()}
    maps = {name: label_map.renamed(classes) for name, label_map in maps.items()}
    images = tuple(ref.image for ref in refs)
    first = maps[refs[0].file]
    if len(maps) == 1 and images == first.images:
        return first
    most = max(len(label_map.layers) for label_map in maps.values())
    layers = np.zeros((most, len(refs), *first.shape[1:]), np.uint8)
    for n, ref in enumerate(refs):
        layers[: len(maps[ref.file].layers), n] = maps[ref.file].layers[:, ref.slice]
    while len(layers) > 1 and not layers[-1].any():
        layers = layers[:-1]
    flags = dict.fromkeys(flag for label_map in maps.values() for flag in label_map.flags)
    return LabelMap(layers, classes, None, images, flags=tuple(flags))


def worst_state(states: Sequence[MaskState]) -> MaskState:
    """The state of a sample from those of its slices."""
    return next(state for state in _WORST_FIRST if state in states)


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
    state = worst_state(rows["state"].tolist())
    shape = (len(rows), int(sizes["rows"].iloc[0]), int(sizes["cols"].iloc[0]))
    images = tuple(rows["image"])
    if state != "annotated":
        return LabelMap.empty(shape, classes).changed(images=images, state=state)
    return stacked(work / FOLDER, _refs(rows), classes)


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


def _refs(rows: pd.DataFrame) -> list[SliceRef]:
    columns = (rows[name].tolist() for name in SliceRef._fields)
    return [SliceRef(*values) for values in zip(*columns, strict=True)]


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
