"""What is checked about a model file before TensorFlow or Keras sees it. Reads a zip; runs nothing from it."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from medres.errors import ArtefactError

CARD, GOLDEN = "medres.json", "golden.npz"
KERAS_MEMBERS = ("metadata.json", "config.json", "model.weights.h5")
MEMBERS = {*KERAS_MEMBERS, CARD, GOLDEN}
MAX_FILE, MAX_INFLATED, MAX_JSON = 1 << 30, 1 << 30, 8 << 20
MAX_UNITS = 65536

# The built-in classes that a medres model is made of.
_ALLOWED = """
Functional InputLayer Conv2D Conv3D BatchNormalization GroupNormalization Activation ReLU Rescaling Concatenate Add Multiply
Identity Dropout Permute Reshape Dense ZeroPadding2D ZeroPadding3D MaxPooling2D MaxPooling3D AveragePooling2D AveragePooling3D
GlobalAveragePooling2D GlobalAveragePooling3D DTypePolicy VarianceScaling HeNormal HeUniform GlorotUniform GlorotNormal
RandomNormal TruncatedNormal Zeros Ones Constant L2 __keras_tensor__ __numpy__
"""
ALLOWED = frozenset(_ALLOWED.split())


def read_members(path: Path | str) -> dict[str, bytes]:
    """All members of a medres model file, checked: {name: bytes}.

    Raises ArtefactError, before anything is inflated beyond the limits, for: another suffix than .keras; no zip; members off the
    closed list; JSON over 8 MiB or 1 GiB inflated in all; a missing or wrong SHA-256; a class that is no built-in layer of the
    allow-list; an absurd number of units or filters.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ArtefactError(f"{path.name}: a medres model file ends in .keras")
    if not path.is_file():
        raise ArtefactError(f"{path.name}: no such file")
    if path.stat().st_size > MAX_FILE:
        raise ArtefactError(f"{path.name}: larger than {MAX_FILE >> 30} GiB")
    try:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            _check_directory(archive.infolist(), path.name)
            members = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ArtefactError(
            f"{path.name}: no sound .keras file ({type(error).__name__}): copy it again from its source"
        ) from None
    card = parse_json(members[CARD], f"{path.name}/{CARD}")
    expected = card.get("members")
    if not isinstance(expected, dict) or {*expected} != MEMBERS - {CARD}:
        raise ArtefactError(f"{path.name}: {CARD} lists no checksums for its members")
    for name, digest in expected.items():
        if hashlib.sha256(members[name]).hexdigest() != digest:
            raise ArtefactError(
                f"{path.name}: the member {name} was altered after medres wrote it: take the file from its source again"
            )
    _check_classes(parse_json(members["config.json"], f"{path.name}/config.json"), path.name)
    return members


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object, or ArtefactError."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ArtefactError(f"{where}: no JSON object")
    return value


def _check_directory(entries: list[zipfile.ZipInfo], file: str) -> None:
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        raise ArtefactError(f"{file}: a member is there twice")
    if {*names} == {*KERAS_MEMBERS}:
        raise ArtefactError(
            f"{file}: a plain Keras file without {CARD}. If plain Keras saved a medres model again, it dropped what medres had added "
            "(classes, preprocessing, thresholds): use the file that medres train wrote"
        )
    if {*names} != MEMBERS:
        odd = sorted({*names} ^ MEMBERS)
        raise ArtefactError(
            f"{file}: its members differ from those of a medres model ({len(odd)} unexpected or missing)"
        )
    if sum(entry.file_size for entry in entries) > MAX_INFLATED:
        raise ArtefactError(f"{file}: inflates to more than {MAX_INFLATED >> 30} GiB")
    if any(entry.filename.endswith(".json") and entry.file_size > MAX_JSON for entry in entries):
        raise ArtefactError(f"{file}: a JSON member is larger than {MAX_JSON >> 20} MiB")


def _check_classes(config: Any, file: str) -> None:
    """Walk the Keras configuration: every class built-in and on the allow-list, every size sane."""
    pending = [config]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        if not isinstance(node, dict):
            continue
        if "class_name" in node:
            module = node.get("module")
            foreign = node["class_name"] not in ALLOWED or not (module is None or str(module).split(".")[0] == "keras")
            if foreign or node.get("registered_name") not in (None, node["class_name"]):
                raise ArtefactError(f"{file}: holds a layer that medres does not build; such a file is not opened")
        for key in ("units", "filters"):
            if isinstance(node.get(key), int | float) and node[key] > MAX_UNITS:
                raise ArtefactError(f"{file}: a layer with more than {MAX_UNITS} {key}")
        pending.extend(node.values())
