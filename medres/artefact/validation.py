"""The checks that a model file must pass before TensorFlow or Keras opens it. The zip is read in
pieces, and nothing from it is run.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import re
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from medres.artefact.graph.weights import NAME as WEIGHTS
from medres.artefact.graph.weights import check_size, check_weights
from medres.artefact.graph_check import check_cost, checked_graph
from medres.artefact.model_file import ModelFile, no_space, private_copy
from medres.errors import ArtefactError

SCHEMA = "medres.artefact/1"
CARD = "medres.json"
GOLDEN, NOVELTY, UPRIGHT = "golden.npz", "novelty.npz", "upright.npz"
KERAS_MEMBERS = ("metadata.json", "config.json", WEIGHTS)
MEMBERS = {*KERAS_MEMBERS, CARD, GOLDEN}
OPTIONAL = {NOVELTY, UPRIGHT}
MAX_INFLATED, MAX_JSON, MAX_ARRAYS = 1 << 30, 8 << 20, 40 << 20  # bytes
KERAS_NEWEST = (3, 15)
MAX_ENTRIES, MAX_DIRECTORY = 64, 1 << 16  # members of the zip; bytes of its directory
MAX_CONTAINERS, MAX_VALUES = 1 << 18, 1 << 19  # objects and lists of a JSON member; its values
_END = struct.Struct("<4s4H2LH")  # end of central directory record: APPNOTE.TXT 4.3.16
_ZIP64_LOCATOR = 20  # bytes, directly before that record
_CHUNK = 1 << 20
_MAX_HEADER = 512  # bytes of an .npy
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
    resaved_by_keras, foreign_keras_file; too_many_members; the codes of `checked_graph` and
    `check_cost`; malformed_weights, weights_storage (compressed, outside the file, or stored
    twice), weights_mismatch, non_finite_weights.
    """
    try:
        with file.path.open("rb") as data:
            _check_zip_end(data)
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
    infinities, which JSON does not have, for numbers that are read as such (1e999), and for so many
    values that parsing needs much memory.
    """
    if data.count(b"{") + data.count(b"[") > MAX_CONTAINERS or data.count(b",") > MAX_VALUES:
        raise ArtefactError(f"{member} holds too many values", code="malformed_json")
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
        _check_zip_end(io.BytesIO(data))
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_ARRAYS:
                raise ArtefactError(
                    f"inflates to more than {MAX_ARRAYS >> 20} MiB",
                    code="arrays_too_large",
                )
            for entry in archive.infolist():
                arrays[entry.filename.removesuffix(".npy")] = _array(archive.read(entry))
    except ArtefactError as error:
        raise ArtefactError(f"{member}: {error}", code=error.code) from None
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


def _check_zip_end(file: IO[bytes]) -> None:
    """Read the record at the end of a zip, before its directory is parsed: medres writes few
    members, a directory without comment, and not the 64-bit format. Raises ArtefactError
    (too_many_members).
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _END.size - _ZIP64_LOCATOR))
    tail = file.read()
    if len(tail) < _END.size:
        raise zipfile.BadZipFile
    signature, _, _, here, entries, directory, _, comment = _END.unpack(tail[-_END.size :])
    if signature != b"PK\x05\x06" or comment:
        raise zipfile.BadZipFile
    is_64_bit = tail[: -_END.size].startswith(b"PK\x06\x07")
    if max(here, entries) > MAX_ENTRIES or directory > MAX_DIRECTORY or is_64_bit:
        raise ArtefactError(
            f"the zip has more than {MAX_ENTRIES} members, or a directory above "
            f"{MAX_DIRECTORY >> 10} KiB",
            code="too_many_members",
        )


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
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    _check_digests(digests | {CARD: card_sha256(card)}, expected)
    _check_keras_version(parse_json(members["metadata.json"], "metadata.json"))
    graph = checked_graph(parse_json(members["config.json"], "config.json"))
    check_cost(graph, _image_count(members[GOLDEN]))
    size = archive.getinfo(WEIGHTS).file_size
    check_size(size, graph)
    with tempfile.TemporaryFile() as weights:
        _check_digests({WEIGHTS: _copy_hashed(archive, WEIGHTS, weights)}, expected)
        check_weights(weights, size, graph)
    return members


def _image_count(golden: bytes) -> int:
    """The number of reference images, from the header of their array; 1 if it cannot be read, which
    `read_arrays` refuses later.
    """
    try:
        _check_zip_end(io.BytesIO(golden))
        with zipfile.ZipFile(io.BytesIO(golden)) as archive, archive.open("inputs.npy") as file:
            head = _NPY.match(file.read(_MAX_HEADER))
            size = archive.getinfo("inputs.npy").file_size
    except (ArtefactError, *_ZIP_FAULTS):
        return 1
    first = head[2].split(b",")[0].strip() if head else b""
    return min(int(first), size) if first else 1


def _check_digests(digests: dict[str, str], expected: dict[str, Any]) -> None:
    for name in sorted(digests):
        if digests[name] != expected[name]:
            raise ArtefactError(
                f"the member {name} was altered after medres wrote it: copy the file again from "
                f"its source",
                code="altered",
            )


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
            f"preprocessing, thresholds): use the file that medres train or medres.save wrote",
            code="resaved_by_keras",
        )
    return ArtefactError(
        f"a plain Keras file without {CARD}: medres opens only files that medres train or "
        f"medres.save wrote. Open it with keras.saving.load_model(path, compile=False), and make a "
        f"medres file with medres.save(model, work, preset=..., out=...)",
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


def _copy_hashed(archive: zipfile.ZipFile, name: str, target: IO[bytes]) -> str:
    """Copy a member in pieces; returns its SHA-256."""
    digest = hashlib.sha256()
    with archive.open(name) as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
            target.write(piece)
    target.seek(0)
    return digest.hexdigest()
