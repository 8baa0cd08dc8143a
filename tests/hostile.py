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


def in_graph(change: Callable[[dict], object]) -> Callable[[Members], Members]:
    def changed(members: Members) -> Members:
        graph = json.loads(members["config.json"])
        change(graph)
        return members | {"config.json": json.dumps(graph).encode()}

    return changed


def in_settings(**values: object) -> Callable[[Members], Members]:
    """Other settings of the network on the card."""

    def changed(members: Members) -> Members:
        card = json.loads(members["medres.json"])
        card["training"]["config"]["model"] |= values
        return members | {"medres.json": json.dumps(card).encode()}

    return changed


def _layer(class_name: str, *, module: str = "keras.layers", **options: object) -> dict:
    return {
        "module": module,
        "class_name": class_name,
        "config": {"trainable": True, "dtype": "float32", **options},
        "registered_name": None,
    }


def _dense(units: int) -> dict:
    return _layer("Dense", units=units, activation="linear", use_bias=True)


def _conv(filters: int, kernel: int) -> dict:
    sizes = {"kernel_size": [kernel] * 2, "strides": [1, 1], "dilation_rate": [1, 1]}
    return _layer("Conv2D", filters=filters, padding="same", groups=1, use_bias=False, **sizes)


def _upsampled() -> dict:
    return _layer("UpSampling2D", size=[64, 64], interpolation="nearest")


def _append(graph: dict, *layers: dict) -> None:
    """Apply further layers to the image, one after the other. The shapes of tensors in the file are
    those that the layers give.
    """
    source, shape = "image", [None, 32, 32, 1]
    for number, layer in enumerate(layers):
        name = layer["config"].setdefault("name", f"extra{number}")
        tensor = {
            "class_name": "__keras_tensor__",
            "config": {"shape": shape, "dtype": "float32", "keras_history": [source, 0, 0]},
        }
        layer |= {"name": name, "inbound_nodes": [{"args": [tensor], "kwargs": {}}]}
        graph["config"]["layers"].append(layer)
        options, source = layer["config"], name
        if "size" in options:
            shape = [None, *(n * s for n, s in zip(shape[1:3], options["size"], strict=True)), 1]
        if "Global" in layer["class_name"]:
            shape = [None, shape[-1]]
        shape = [*shape[:-1], options.get("filters", shape[-1])]


def _other_shared_object(graph: dict) -> None:
    """Two objects with one identity: Keras takes the first for both."""
    layers = [
        layer for layer in graph["config"]["layers"] if "kernel_initializer" in layer["config"]
    ]
    layers[0]["config"]["kernel_initializer"]["shared_object_id"] = 7
    layers[0]["config"]["dtype"]["shared_object_id"] = 7


def _zip_of(entries: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(entries):
            archive.writestr(f"{number}.npy", b"")
    return buffer.getvalue()


def _many_images(count: int) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, inputs=np.zeros((count, 32, 32), "<u2"), outputs=np.zeros((count, 1), "<f4")
    )
    return buffer.getvalue()


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
    "enormous head": (in_config('"units": 1', '"units": 65536'), "malformed_graph"),
    "enormous further head": (
        in_graph(lambda g: _append(g, _layer("GlobalAveragePooling2D"), _dense(65536))),
        "weights_mismatch",
    ),
    "feature maps of 16 GiB in all": (
        in_graph(lambda g: _append(g, _upsampled(), *[_layer("Identity") for _ in range(600)])),
        "graph_limits",
    ),
    "days of multiply-adds": (
        in_graph(lambda g: _append(g, _upsampled(), _conv(64, 64), _conv(64, 64))),
        "graph_limits",
    ),
    "shape that a layer is built for": (
        in_config(
            '"build_config": {"input_shape": [null, 32, 32, 1]}',
            f'"build_config": {{"input_shape": [null, 32, 32, {BIG}]}}',
        ),
        "malformed_graph",
    ),
    "further weights by LoRA": (
        in_config('"filters": 8', '"filters": 8, "lora_rank": 4096'),
        "unsupported_option",
    ),
    "unknown option": (in_config('"filters": 8', '"filters": 8, "extra": 1'), "unsupported_option"),
    "quantized layer": (
        in_config('"quantization_config": null', '"quantization_config": {"mode": "int4"}'),
        "unsupported_option",
    ),
    "quantized dtype": (
        in_config('"config": {"name": "float32"}', '"config": {"name": "int8_from_float32"}'),
        "unsupported_option",
    ),
    "dtype that is another object": (in_graph(_other_shared_object), "malformed_graph"),
    "constant that widens every map": (
        in_config(
            '"scale": 2.0',
            '"scale": {"class_name": "__numpy__", "config": {"value": '
            + json.dumps([[[[1.0]] * 64] * 64])
            + ', "dtype": "float32"}}',
        ),
        "unsupported_option",
    ),
    "operation with the name of a layer": (
        in_graph(lambda g: _append(g, _layer("Add", module="keras.src.ops.numpy"))),
        "unsupported_layer",
    ),
    "compiled with an optimizer": (
        in_json("config.json", compile_config={"optimizer": "adam"}),
        "unsupported_option",
    ),
    "name with control characters": (
        in_graph(lambda g: _append(g, _layer("Identity", name="a\u202eb"))),
        "unsupported_option",
    ),
    "settings of another width": (in_settings(width=16), "graph_mismatch"),
    "settings of an enormous depth": (
        in_settings(variant="resnet6000000002", stem="cifar"),
        "graph_mismatch",
    ),
    "settings of no network": (in_settings(variant=["resnet10"]), "graph_mismatch"),
    "config of a million lists": (
        lambda m: m | {"config.json": b'{"config": [' + b"[]," * 1_000_000 + b"[]]}"},
        "malformed_json",
    ),
    "one group under two names": (
        in_weights(lambda f: f.__setitem__("layers/twin", f["layers/conv2d"])),
        "weights_storage",
    ),
    "one weight under many names": (
        in_weights(
            lambda f: [
                f.__setitem__(f"layers/conv2d/vars/{i}", f["layers/conv2d/vars/0"])
                for i in range(1, 200)
            ]
        ),
        "weights_storage",
    ),
    "groups in a circle": (
        in_weights(lambda f: f.__setitem__("layers/loop", f["layers"])),
        "weights_storage",
    ),
    "weights sparse": (
        in_weights(
            lambda f: _replace(f, shape=(1 << 20, 1 << 20), dtype="float32", chunks=(1024, 1024))
        ),
        "weights_storage",
    ),
    "weights of no layer": (
        in_weights(lambda f: f.create_dataset("secret/data", data=np.zeros(9, "f4"))),
        "weights_storage",
    ),
    "weights of 32 MiB too many": (
        in_weights(lambda f: f.create_dataset("layers/x/vars/0", data=np.zeros(1 << 23, "f4"))),
        "weights_mismatch",
    ),
    "ten thousand groups": (
        in_weights(lambda f: [f.create_group(f"layers/g{i}") for i in range(10_000)]),
        "weights_mismatch",
    ),
    "random state of another shape": (
        in_weights(
            lambda f: f.create_dataset("layers/d/seed_generator/vars/0", data=np.zeros(99, "u4"))
        ),
        "weights_storage",
    ),
    "golden of ten thousand members": (
        lambda m: m | {"golden.npz": _zip_of(10_000)},
        "too_many_members",
    ),
    "golden of 15,000 images": (
        lambda m: m | {"golden.npz": _many_images(15_000)},
        "graph_limits",
    ),
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
    many = folder / "many.keras"
    many.write_bytes(_zip_of(10_000))
    yield "zip of ten thousand members", many, "too_many_members"
    data = valid.read_bytes()
    wide = folder / "wide.keras"
    wide.write_bytes(data[:-22] + b"PK\x06\x07" + b"\0" * 16 + data[-22:])
    yield "zip with a 64-bit directory", wide, "too_many_members"
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
