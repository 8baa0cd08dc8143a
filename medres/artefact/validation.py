"""What is checked about a model file before TensorFlow or Keras sees it. Reads a zip piece by
piece; runs nothing from it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import json
import math
import re
import stat
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from medres.artefact.graph_check import Shape, weight_shapes
from medres.errors import ArtefactError

SCHEMA = "medres.artefact/1"
CARD, GOLDEN, NOVELTY, UPRIGHT, WEIGHTS = (
    "medres.json",
    "golden.npz",
    "novelty.npz",
    "upright.npz",
    "model.weights.h5",
)
KERAS_MEMBERS = ("metadata.json", "config.json", WEIGHTS)
MEMBERS = {*KERAS_MEMBERS, CARD, GOLDEN}
OPTIONAL = {NOVELTY, UPRIGHT}
MAX_FILE, MAX_INFLATED, MAX_JSON, MAX_ARRAYS = 1 << 30, 1 << 30, 8 << 20, 40 << 20
KERAS_NEWEST = (3, 15)
MAX_NODES = 1 << 16
_CHUNK = 1 << 20
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<|][fiu]\d)', 'fortran_order': False, 'shape': \(([\d, "
    rb"]*)\), \} *\n",
    re.DOTALL,
)
_ZIP_FAULTS = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
)


def read_members(path: Path | str, *, weights_to: IO[bytes] | None = None) -> dict[str, bytes]:
    """All members of a medres model file but its weights, checked: {name: bytes}. The weights are
    checked in pieces, and written to `weights_to` (opened for reading and writing) where one is
    given.

    Raises ArtefactError, before anything is inflated beyond the limits, for: another suffix than
    .keras; a link or no zip; members off the closed list; JSON over 8 MiB or 1 GiB inflated in all;
    a missing or wrong SHA-256; a version that is not this one's; a graph that `weight_shapes`
    refuses; weights that are not those of the graph, not finite, or lie outside the file.
    """
    path = Path(path)
    try:
        with _opened(path) as archive:
            return _checked(archive, weights_to)
    except ArtefactError as error:
        raise ArtefactError(f"{path.name}: {error}") from None
    except _ZIP_FAULTS as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise ArtefactError(
            f"{path.name}: no sound .keras file ({type(error).__name__}): copy it again from its "
            f"source"
        ) from None


def parse_json(data: bytes, member: str) -> dict[str, Any]:
    """A JSON object, or ArtefactError. NaN and infinities are no JSON."""
    try:
        value = json.loads(data, parse_constant=lambda text: 1 / 0)
    except (ValueError, RecursionError, ZeroDivisionError):
        value = None
    if not isinstance(value, dict):
        raise ArtefactError(f"{member} holds no JSON object")
    return value


def read_arrays(data: bytes, member: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz of at most 40 MiB inflated, numbers only; their sizes are checked
    before memory is taken.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_ARRAYS:
                raise ArtefactError(f"{member} inflates to more than {MAX_ARRAYS >> 20} MiB")
            for entry in archive.infolist():
                arrays[entry.filename.removesuffix(".npy")] = _array(archive.read(entry))
    except _ZIP_FAULTS:
        raise ArtefactError(f"{member} holds no sound arrays") from None
    return arrays


def _array(data: bytes) -> np.ndarray:
    """One .npy of numbers, as numpy.save writes it
    (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
    """
    head = _NPY.match(data)
    if head is None:
        raise ValueError
    dtype, shape = (
        np.dtype(head[1].decode()),
        tuple(int(n) for n in head[2].split(b",") if n.strip()),
    )
    content = data[10 + int.from_bytes(data[8:10], "little") :]
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError
    return np.frombuffer(content, dtype).reshape(shape)


def _opened(path: Path) -> zipfile.ZipFile:
    if path.suffix != ".keras":
        raise ArtefactError("a medres model file ends in .keras")
    try:
        status = path.stat()
    except OSError:
        raise ArtefactError("no such file") from None
    if not stat.S_ISREG(status.st_mode):
        raise ArtefactError("a folder or a device, where a file is needed")
    if status.st_size > MAX_FILE:
        raise ArtefactError(f"larger than {MAX_FILE >> 30} GiB")
    return zipfile.ZipFile(path)


def _checked(archive: zipfile.ZipFile, weights_to: IO[bytes] | None) -> dict[str, bytes]:
    _check_directory(archive)
    card = parse_json(archive.read(CARD), CARD)
    _check_version(card)
    expected = card.get("members")
    names = {entry.filename for entry in archive.infolist()}
    if not isinstance(expected, dict) or {*expected} != names:
        raise ArtefactError(
            f"{CARD} does not list the checksums of all members, itself included: save the model "
            f"again"
        )
    members = {name: archive.read(name) for name in names - {WEIGHTS}}
    with contextlib.nullcontext(weights_to) if weights_to else tempfile.TemporaryFile() as weights:
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
        digests |= {CARD: card_sha256(card), WEIGHTS: _copied(archive, WEIGHTS, weights)}
        for name in sorted(names):
            if digests[name] != expected[name]:
                raise ArtefactError(
                    f"the member {name} was altered after medres wrote it: take the file from its "
                    f"source again"
                )
        _check_keras_version(parse_json(members["metadata.json"], "metadata.json"))
        _check_weights(weights, weight_shapes(parse_json(members["config.json"], "config.json")))
    return members


def card_sha256(card: dict[str, Any]) -> str:
    """Of the values of a card (parsed JSON) without its list of checksums, whatever the white space
    and the order of keys.
    """
    values = {key: value for key, value in card.items() if key != "members"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _check_directory(archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        raise ArtefactError("a member is there twice")
    if {*names} == {*KERAS_MEMBERS}:
        raise ArtefactError(_whose(archive))
    if not MEMBERS <= {*names} <= MEMBERS | OPTIONAL:
        odd = len({*names} - MEMBERS - OPTIONAL) + len(MEMBERS - {*names})
        raise ArtefactError(
            f"its members differ from those of a medres model ({odd} unexpected or missing)"
        )
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        raise ArtefactError("a member is compressed or encrypted: medres stores them as they are")
    if sum(entry.file_size for entry in entries) > MAX_INFLATED:
        raise ArtefactError(f"inflates to more than {MAX_INFLATED >> 30} GiB")
    for entry in entries:
        limit = MAX_INFLATED if entry.filename == WEIGHTS else MAX_ARRAYS
        if entry.file_size > (MAX_JSON if entry.filename.endswith(".json") else limit):
            raise ArtefactError(f"the member {entry.filename} is too large")


def _whose(archive: zipfile.ZipFile) -> str:
    """A plain Keras file: one that plain Keras made of a medres model, or another program's."""
    entry = archive.getinfo("config.json")
    layers: Any = []
    if entry.file_size <= MAX_JSON:
        options = parse_json(archive.read(entry), "config.json").get("config")
        layers = options.get("layers") if isinstance(options, dict) else []
    names = (
        {layer.get("name") for layer in layers if isinstance(layer, dict)}
        if isinstance(layers, list)
        else set()
    )
    if {"calibration", "probability"} <= names:
        return (
            f"a medres model that plain Keras saved again, which dropped {CARD} (classes, "
            f"preprocessing, thresholds): "
            "use the file that medres train wrote"
        )
    return (
        f"a plain Keras file without {CARD}: medres opens only what medres train wrote. Open "
        f"it with keras.saving.load_model"
    )


def _check_version(card: dict[str, Any]) -> None:
    schema = card.get("schema_")
    if schema != SCHEMA:
        said = (
            repr(schema)
            if isinstance(schema, str) and re.fullmatch(r"[\w./-]{1,40}", schema)
            else "none that is known"
        )
        raise ArtefactError(
            f"written by another version of medres (schema {said}; this one reads {SCHEMA!r}): "
            f"use the medres version that wrote it"
        )


def _check_keras_version(metadata: dict[str, Any]) -> None:
    found = re.fullmatch(r"(\d{1,3})\.(\d{1,3})\.\w{1,12}", str(metadata.get("keras_version")))
    if found is None or found[1] != "3" or (int(found[1]), int(found[2])) > KERAS_NEWEST:
        raise ArtefactError(
            f"written by another Keras than 3.0 to {KERAS_NEWEST[0]}.{KERAS_NEWEST[1]}"
        )


def _check_weights(stored: IO[bytes], wanted: Counter[Shape]) -> None:
    """HDF5 that holds exactly the weights of the graph: inside this file, not compressed, each
    value there and finite.
    """
    import h5py

    found: Counter[Shape] = Counter()
    try:
        with h5py.File(stored, "r") as file:
            for dataset in _datasets(file, itertools.count()):
                if dataset.name.split("/")[-2] == "vars" and "seed_generator" not in dataset.name:
                    found[dataset.shape] += 1
    except (*_ZIP_FAULTS, KeyError, TypeError, AttributeError):
        raise ArtefactError(f"{WEIGHTS} is no sound HDF5 file") from None
    if found != wanted:
        raise ArtefactError(f"{WEIGHTS} does not hold the weights of the graph in config.json")


def _datasets(group: Any, met: Iterator[int], depth: int = 0) -> Iterator[Any]:
    """All data sets below a group, checked. `met` counts what was seen."""
    import h5py

    for name in group:
        if (
            depth > 16
            or next(met) > MAX_NODES
            or type(group.get(name, getlink=True)) is not h5py.HardLink
        ):
            raise ArtefactError(
                f"{WEIGHTS} points elsewhere, nests too deep or holds too many groups"
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _datasets(item, met, depth + 1)
            continue
        plain = (
            isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu" and item.external is None
        )
        if (
            not plain
            or item.is_virtual
            or item.chunks is not None
            or item.id.get_storage_size() != item.nbytes
        ):
            raise ArtefactError(
                f"{WEIGHTS} holds data that Keras does not write: compressed, external or absent"
            )
        if item.dtype.kind == "f" and not np.isfinite(item[()]).all():
            raise ArtefactError("it holds weights that are not finite")
        yield item


def _copied(archive: zipfile.ZipFile, name: str, target: IO[bytes]) -> str:
    """Copy a member piece by piece; returns its SHA-256."""
    digest = hashlib.sha256()
    with archive.open(name) as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
            target.write(piece)
    target.seek(0)
    return digest.hexdigest()
