"""The checks that a model file must pass before TensorFlow or Keras opens it. The zip is read in
pieces, and nothing from it is run.
"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import json
import math
import re
import struct
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from medres.artefact.graph_check import Shape, weight_shapes
from medres.artefact.model_file import ModelFile, no_space, private_copy
from medres.errors import ArtefactError

SCHEMA = "medres.artefact/1"
CARD, WEIGHTS = "medres.json", "model.weights.h5"
GOLDEN, NOVELTY, UPRIGHT = "golden.npz", "novelty.npz", "upright.npz"
KERAS_MEMBERS = ("metadata.json", "config.json", WEIGHTS)
MEMBERS = {*KERAS_MEMBERS, CARD, GOLDEN}
OPTIONAL = {NOVELTY, UPRIGHT}
MAX_INFLATED, MAX_JSON, MAX_ARRAYS = 1 << 30, 8 << 20, 40 << 20  # bytes
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
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    MemoryError,
    struct.error,
    zlib.error,
)


def read_members(path: Path | str) -> dict[str, bytes]:
    """All members of the model file at a path except its weights, checked: {name: bytes}. Raises
    ArtefactError, with the codes of `private_copy` and `checked_members`.
    """
    with private_copy(path) as file:
        return checked_members(file)


def checked_members(file: ModelFile) -> dict[str, bytes]:
    """All members of a medres model file except its weights, checked: {name: bytes}. The weights
    are checked in pieces.

    Raises ArtefactError before anything is inflated beyond the limits. Its codes: not_a_zip;
    unexpected_members, duplicate_member, compressed_member, member_too_large (JSON above 8 MiB,
    1 GiB inflated in total); malformed_json, no_checksums, altered; schema_version, keras_version;
    resaved_by_keras, foreign_keras_file; the codes of `weight_shapes`; malformed_weights,
    weights_storage (compressed, or outside the file), weights_mismatch, non_finite_weights.
    """
    try:
        with zipfile.ZipFile(file.path) as archive:
            return _checked_members(archive)
    except ArtefactError as error:
        raise ArtefactError(f"{file.name}: {error}", code=error.code) from None
    except _ZIP_FAULTS as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise no_space(file.name) from None
        raise ArtefactError(
            f"{file.name}: damaged, not a readable .keras file ({type(error).__name__}): copy it "
            f"again from its source",
            code="not_a_zip",
        ) from None


def parse_json(data: bytes, member: str) -> dict[str, Any]:
    """The JSON object that a member holds. Raises ArtefactError (malformed_json), also for NaN and
    infinities, which JSON does not have, and for numbers that are read as such (1e999).
    """
    try:
        value = json.loads(data, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ArtefactError(f"{member} is not a JSON object", code="malformed_json")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def read_arrays(data: bytes, member: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name: numbers only, at most 40 MiB inflated. Sizes are checked
    before memory is allocated. Raises ArtefactError (malformed_arrays, arrays_too_large).
    """
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_ARRAYS:
                raise ArtefactError(
                    f"{member} inflates to more than {MAX_ARRAYS >> 20} MiB",
                    code="arrays_too_large",
                )
            for entry in archive.infolist():
                arrays[entry.filename.removesuffix(".npy")] = _array(archive.read(entry))
    except _ZIP_FAULTS:
        raise ArtefactError(
            f"{member} does not hold readable numeric arrays", code="malformed_arrays"
        ) from None
    return arrays


def _array(data: bytes) -> np.ndarray:
    """One .npy of numbers in the format of numpy.save
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


def _checked_members(archive: zipfile.ZipFile) -> dict[str, bytes]:
    _check_directory(archive)
    card = parse_json(archive.read(CARD), CARD)
    _check_version(card)
    expected = card.get("members")
    names = {entry.filename for entry in archive.infolist()}
    if not isinstance(expected, dict) or {*expected} != names:
        raise ArtefactError(
            f"{CARD} does not list the checksums of all members, its own included: save the model "
            f"again",
            code="no_checksums",
        )
    members = {name: archive.read(name) for name in names - {WEIGHTS}}
    with tempfile.TemporaryFile() as weights:
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
        digests |= {CARD: card_sha256(card), WEIGHTS: _copy_hashed(archive, WEIGHTS, weights)}
        for name in sorted(names):
            if digests[name] != expected[name]:
                raise ArtefactError(
                    f"the member {name} was altered after medres wrote it: copy the file again "
                    f"from its source",
                    code="altered",
                )
        _check_keras_version(parse_json(members["metadata.json"], "metadata.json"))
        _check_weights(weights, weight_shapes(parse_json(members["config.json"], "config.json")))
    return members


def card_sha256(card: dict[str, Any]) -> str:
    """SHA-256 of the values of a card (parsed JSON), without its list of checksums. White space and
    the order of keys do not matter.
    """
    values = {key: value for key, value in card.items() if key != "members"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _check_directory(archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        raise ArtefactError("two members have the same name", code="duplicate_member")
    if {*names} == {*KERAS_MEMBERS}:
        raise _plain_keras_error(archive)
    if not MEMBERS <= {*names} <= MEMBERS | OPTIONAL:
        unexpected, missing = len({*names} - MEMBERS - OPTIONAL), sorted(MEMBERS - {*names})
        raise ArtefactError(
            f"not the members of a medres model: {unexpected} unexpected, missing "
            f"{', '.join(missing) or 'none'}",
            code="unexpected_members",
        )
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        raise ArtefactError(
            "a member is compressed or encrypted; medres stores members uncompressed",
            code="compressed_member",
        )
    if sum(entry.file_size for entry in entries) > MAX_INFLATED:
        raise ArtefactError(
            f"inflates to more than {MAX_INFLATED >> 30} GiB", code="member_too_large"
        )
    for entry in entries:
        limit = MAX_INFLATED if entry.filename == WEIGHTS else MAX_ARRAYS
        if entry.file_size > (MAX_JSON if entry.filename.endswith(".json") else limit):
            raise ArtefactError(
                f"the member {entry.filename} is too large", code="member_too_large"
            )


def _plain_keras_error(archive: zipfile.ZipFile) -> ArtefactError:
    """The error for a plain Keras file: a medres model that Keras saved again, or the file of
    another program.
    """
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
        return ArtefactError(
            f"a medres model that plain Keras saved again, which dropped {CARD} (classes, "
            f"preprocessing, thresholds): use the file that medres train wrote",
            code="resaved_by_keras",
        )
    return ArtefactError(
        f"a plain Keras file without {CARD}: medres opens only files that medres train wrote. Open "
        f"it with keras.saving.load_model",
        code="foreign_keras_file",
    )


def _check_version(card: dict[str, Any]) -> None:
    schema = card.get("schema_")
    if schema != SCHEMA:
        printable = isinstance(schema, str) and re.fullmatch(r"[\w./-]{1,40}", schema)
        raise ArtefactError(
            f"written by another version of medres (schema "
            f"{repr(schema) if printable else 'unknown'}; this version reads {SCHEMA!r}): use the "
            f"medres version that wrote it",
            code="schema_version",
        )


def _check_keras_version(metadata: dict[str, Any]) -> None:
    version = re.fullmatch(r"(\d{1,3})\.(\d{1,3})\.\w{1,12}", str(metadata.get("keras_version")))
    if version is None or version[1] != "3" or (int(version[1]), int(version[2])) > KERAS_NEWEST:
        raise ArtefactError(
            f"written by an unsupported version of Keras; supported: 3.0 to "
            f"{KERAS_NEWEST[0]}.{KERAS_NEWEST[1]}",
            code="keras_version",
        )


def _check_weights(stored: IO[bytes], expected: Counter[Shape]) -> None:
    """Raise ArtefactError unless the HDF5 file holds exactly the weights of the graph, inside the
    file itself, uncompressed, complete and finite.
    """
    import h5py

    shapes: Counter[Shape] = Counter()
    try:
        with h5py.File(stored, "r") as file:
            for dataset in _datasets(file, itertools.count()):
                if dataset.name.split("/")[-2] == "vars" and "seed_generator" not in dataset.name:
                    shapes[dataset.shape] += 1
    except _ZIP_FAULTS:
        raise ArtefactError(
            f"{WEIGHTS} is not a readable HDF5 file", code="malformed_weights"
        ) from None
    if shapes != expected:
        raise ArtefactError(
            f"{WEIGHTS} does not hold the weights of the graph in config.json",
            code="weights_mismatch",
        )


def _datasets(group: Any, visited: Iterator[int], depth: int = 0) -> Iterator[Any]:
    """All datasets below a group, checked. visited: counts the nodes of the whole file."""
    import h5py

    for name in group:
        if (
            depth > 16
            or next(visited) > MAX_NODES
            or type(group.get(name, getlink=True)) is not h5py.HardLink
        ):
            raise ArtefactError(
                f"{WEIGHTS} links to another place, nests too deeply or holds too many groups",
                code="weights_storage",
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _datasets(item, visited, depth + 1)
            continue
        is_numeric = (
            isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu" and item.external is None
        )
        if (
            not is_numeric
            or item.is_virtual
            or item.chunks is not None
            or item.id.get_storage_size() != item.nbytes
        ):
            raise ArtefactError(
                f"{WEIGHTS} holds data that Keras does not write: compressed, external, missing or "
                f"not numeric",
                code="weights_storage",
            )
        if item.dtype.kind == "f" and not np.isfinite(item[()]).all():
            raise ArtefactError(
                f"{WEIGHTS} holds weights that are not finite", code="non_finite_weights"
            )
        yield item


def _copy_hashed(archive: zipfile.ZipFile, name: str, target: IO[bytes]) -> str:
    """Copy a member in pieces; returns its SHA-256."""
    digest = hashlib.sha256()
    with archive.open(name) as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
            target.write(piece)
    target.seek(0)
    return digest.hexdigest()
