"""Broken and hostile model files, each made by one change to the members of a valid file."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from medres.artefact.validation import card_sha256

Members = dict[str, bytes]


def members_of(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(
    path: Path, members: Members, *, sign: bool = True, compression: int = zipfile.ZIP_STORED
) -> Path:
    """A model file of these members. sign=True: with checksums that match them."""
    members = dict(members)
    if sign and "medres.json" in members:
        card = json.loads(members["medres.json"])
        if isinstance(card, dict) and "members" in card:
            card["members"] = {
                n: hashlib.sha256(d).hexdigest() for n, d in members.items() if n != "medres.json"
            }
            card["members"]["medres.json"] = card_sha256(card)
            members["medres.json"] = json.dumps(card).encode()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def in_config(old: str, new: str) -> Callable[[Members], Members]:
    def change(members: Members) -> Members:
        config = members["config.json"].decode()
        assert old in config
        return members | {"config.json": config.replace(old, new, 1).encode()}

    return change


def in_json(member: str, **values: object) -> Callable[[Members], Members]:
    return lambda members: (
        members | {member: json.dumps(json.loads(members[member]) | values).encode()}
    )


def in_weights(change: Callable[[h5py.File], None]) -> Callable[[Members], Members]:
    def changed(members: Members) -> Members:
        buffer = io.BytesIO(members["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            change(file)
        return members | {"model.weights.h5": buffer.getvalue()}

    return changed


def _replace(file: h5py.File, **options: object) -> None:
    del file["layers/conv2d/vars/0"]
    file.create_dataset("layers/conv2d/vars/0", **options)


def _external_link(file: h5py.File) -> None:
    del file["layers/conv2d/vars/0"]
    file["layers/conv2d/vars/0"] = h5py.ExternalLink("/etc/passwd", "/")


def _external_storage(file: h5py.File) -> None:
    _replace(file, shape=(3, 3, 1, 8), dtype="float32", external=[("/etc/passwd", 0, 288)])


def _not_finite(file: h5py.File) -> None:
    file["layers/conv2d/vars/0"][0, 0, 0, 0] = np.nan


def _arrays(shape: str, content: bytes, descr: str = "<f4") -> bytes:
    """An .npz with an arbitrary header."""
    header = (
        f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(118)
        + b"\n"
    )
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inputs.npy", npy)
        archive.writestr("outputs.npy", npy)
    return buffer.getvalue()


def _without(name: str) -> Callable[[Members], Members]:
    return lambda members: {n: d for n, d in members.items() if n != name}


BIG = 99_999_999
CHANGES: dict[str, tuple[Callable[[Members], Members], str]] = {
    "lambda layer": (
        in_config('"class_name": "Rescaling"', '"class_name": "Lambda"'),
        "unsupported_layer",
    ),
    "module of the system": (
        in_config('"module": "keras.layers"', '"module": "os"'),
        "unsupported_layer",
    ),
    "function as activation": (
        in_config(
            '"activation": "linear"', '"activation": {"class_name": "function", "config": "exec"}'
        ),
        "unsupported_layer",
    ),
    "registered custom class": (
        in_config('"registered_name": null', '"registered_name": "evil>Layer"'),
        "unsupported_layer",
    ),
    "class that is a list": (
        in_config('"class_name": "ReLU"', '"class_name": ["ReLU"]'),
        "unsupported_layer",
    ),
    "remote file of a layer": (
        in_config('"activation": "sigmoid"', '"activation": "http://x.example/a"'),
        "unsupported_activation",
    ),
    "enormous layer": (in_config('"filters": 8', f'"filters": {BIG}'), "graph_limits"),
    "enormous head": (in_config('"units": 1', '"units": 65536'), "weights_mismatch"),
    "enormous padding": (
        in_config('"padding": [[1, 1]', f'"padding": [[{BIG}, 1]'),
        "graph_limits",
    ),
    "enormous input": (in_config("[null, 32, 32, 1]", f"[null, {BIG}, {BIG}, 1]"), "graph_limits"),
    "negative stride": (in_config('"strides": [1, 1]', '"strides": [-1, 1]'), "graph_limits"),
    "stride of zero": (
        in_config('"strides": [1, 1]', '"strides": [0, 1]'),
        "malformed_graph",
    ),
    "layer in a circle": (
        in_config('"keras_history": ["image", 0, 0]', '"keras_history": ["logits", 0, 0]'),
        "malformed_graph",
    ),
    "config no object": (lambda m: m | {"config.json": b"{"}, "malformed_json"),
    "config nested deep": (lambda m: m | {"config.json": b"[" * 100_000}, "malformed_json"),
    "config of 9 MiB": (lambda m: m | {"config.json": b" " * (9 << 20)}, "member_too_large"),
    "card empty": (lambda m: m | {"medres.json": b"{}"}, "schema_version"),
    "card with NaN": (
        lambda m: (
            m | {"medres.json": m["medres.json"].replace(b'"patients"', b'"x": NaN, "patients"')}
        ),
        "malformed_json",
    ),
    "card of another version": (
        in_json("medres.json", schema_="medres.artefact/9"),
        "schema_version",
    ),
    "card with another field": (in_json("medres.json", secret=1), "card_schema"),
    "card of another size": (
        in_json("medres.json", preprocess={"kind": "radiograph", "rows": 48, "cols": 48}),
        "golden_shape",
    ),
    "Keras 99": (in_json("metadata.json", keras_version="99.0.0"), "keras_version"),
    "no golden": (_without("golden.npz"), "unexpected_members"),
    "a program inside": (lambda m: m | {"run.py": b"print(1)"}, "unexpected_members"),
    "a path that climbs": (lambda m: m | {"../../evil": b"x"}, "unexpected_members"),
    "weights of nobody": (
        lambda m: m | {"model.weights.h5": b"\x89HDF\r\n\x1a\n" + b"\0" * 500},
        "malformed_weights",
    ),
    "weights elsewhere": (in_weights(_external_link), "weights_storage"),
    "weights in another file": (in_weights(_external_storage), "weights_storage"),
    "weights that are not there": (
        in_weights(lambda f: _replace(f, shape=(1 << 12, 1 << 12, 1 << 10), dtype="float32")),
        "weights_storage",
    ),
    "weights compressed": (
        in_weights(lambda f: _replace(f, data=np.zeros((3000, 3000), "f4"), compression="gzip")),
        "weights_storage",
    ),
    "weights of another shape": (
        in_weights(lambda f: _replace(f, data=np.zeros((3, 3, 2, 8), "f4"))),
        "weights_mismatch",
    ),
    "weights as text": (in_weights(lambda f: _replace(f, data=b"text")), "weights_storage"),
    "weights not finite": (in_weights(_not_finite), "non_finite_weights"),
    "golden objects": (
        lambda m: m | {"golden.npz": _arrays("(1,)", b"cos\nsystem\n.", "|O")},
        "malformed_arrays",
    ),
    "golden enormous": (
        lambda m: m | {"golden.npz": _arrays(f"({BIG}, {BIG})", b"\0" * 64)},
        "malformed_arrays",
    ),
    "golden bomb": (
        lambda m: m | {"golden.npz": _arrays("(1,)", b"\0" * (60 << 20))},
        "arrays_too_large",
    ),
    "golden no zip": (lambda m: m | {"golden.npz": b"PK"}, "malformed_arrays"),
}


def corpus(valid: Path, folder: Path) -> Iterator[tuple[str, Path, str]]:
    """(name, file, code of the error that refuses it). All are refused without TensorFlow."""
    members, folder = members_of(valid), Path(folder)
    for number, (name, (change, code)) in enumerate(CHANGES.items()):
        yield name, write(folder / f"{number}.keras", change(members)), code
    changed = in_config('"scale": 2.0', '"scale": 1.5')(members)
    yield "unsigned change", write(folder / "unsigned.keras", changed, sign=False), "altered"
    squeezed = members | {"model.weights.h5": b"\0" * (64 << 20)}
    path = folder / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in squeezed.items():
            archive.writestr(name, data)
    yield "zip bomb", path, "compressed_member"
    twice = write(folder / "twice.keras", members)
    with zipfile.ZipFile(twice, "a") as archive, warnings.catch_warnings(action="ignore"):
        archive.writestr("config.json", b"{}")
    yield "member twice", twice, "duplicate_member"
    for name, content in {
        "empty": b"",
        "cut": valid.read_bytes()[: valid.stat().st_size // 2],
        "noise": b"not a zip" * 100,
    }.items():
        path = folder / f"{name}.keras"
        path.write_bytes(content)
        yield name, path, "not_a_zip"
    large = folder / "large.keras"
    with large.open("wb") as file:
        file.truncate((1 << 30) + 1)
    yield "file of 1 GiB", large, "file_too_large"
    plain = write(
        folder / "plain.keras",
        {n: members[n] for n in ("metadata.json", "config.json", "model.weights.h5")},
    )
    yield "saved again by Keras", plain, "resaved_by_keras"
    renamed = {"config.json": members["config.json"].replace(b'"calibration"', b'"other"')}
    others = {n: members[n] for n in ("metadata.json", "model.weights.h5")} | renamed
    yield (
        "another program's",
        write(folder / "others.keras", others),
        "foreign_keras_file",
    )
