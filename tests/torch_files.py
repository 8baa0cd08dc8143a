"""Weights files of torch, written without torch, and networks with random weights for them."""

from __future__ import annotations

import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

# A pickle written opcode by opcode, so that no torch is needed and anything at all can be asked
# for.


class Global(str):
    """module.name, looked up when the file is read."""


class Call(tuple):
    """(function, *arguments)."""


class Persistent(tuple):
    """A reference to a storage."""


def opcodes(x: Any) -> bytes:  # noqa: C901  one branch per opcode
    if isinstance(x, Global):
        module, _, name = x.rpartition(".")
        return f"c{module}\n{name}\n".encode()
    if isinstance(x, Call):
        return opcodes(x[0]) + opcodes(tuple(x[1:])) + b"R"
    if isinstance(x, Persistent):
        return opcodes(tuple(x)) + b"Q"
    if isinstance(x, str):
        return b"X" + struct.pack("<I", len(x.encode())) + x.encode()
    if isinstance(x, bool):
        return b"\x88" if x else b"\x89"
    if isinstance(x, int):
        size = x.bit_length() // 8 + 1
        return b"\x8a" + bytes([size]) + x.to_bytes(size, "little", signed=True)
    if isinstance(x, float):
        return b"G" + struct.pack(">d", x)
    if isinstance(x, tuple):
        return b"(" + b"".join(map(opcodes, x)) + b"t"
    if isinstance(x, list):
        return b"](" + b"".join(map(opcodes, x)) + b"e"
    if isinstance(x, dict):
        return b"}(" + b"".join(opcodes(k) + opcodes(v) for k, v in x.items()) + b"u"
    return b"N"


def pickled(x: Any) -> bytes:
    return b"\x80\x02" + opcodes(x) + b"."


def tensor(key: str, array: np.ndarray, kind: str = "FloatStorage", **changed: Any) -> Call:
    stride = tuple(s // array.itemsize for s in array.strides)
    size, stride, offset = (
        changed.get(k, v) for k, v in (("size", array.shape), ("stride", stride), ("offset", 0))
    )
    storage = Persistent(("storage", Global(f"torch.{kind}"), key, "cuda:0", array.size))
    return Call(
        (
            Global("torch._utils._rebuild_tensor_v2"),
            storage,
            offset,
            size,
            stride,
            False,
            Call((Global("collections.OrderedDict"),)),
        )
    )


def write_zip(path: Path, root: Any, storages: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(root))
        archive.writestr("archive/byteorder", "little")
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def randomised(model: keras.Model, seed: int = 0) -> keras.Model:
    random = np.random.default_rng(seed)
    for layer in model.layers:
        values = []
        for w in layer.weights:
            if w.name in ("gamma", "moving_variance"):
                values.append(random.uniform(0.5, 1.5, w.shape))
            elif w.name == "seed_generator_state":
                values.append(np.asarray(w))
            else:
                values.append(
                    random.normal(
                        0,
                        0.1 if len(w.shape) == 1 else 1 / math.sqrt(math.prod(w.shape[:-1])),
                        w.shape,
                    )
                )
        layer.set_weights(values)
    return model


def as_torch(model: keras.Model, rename: dict[str, str], head: str = "fc") -> dict[str, np.ndarray]:
    """The weights under torchvision's names, from its own documentation of them, then words
    replaced in order.
    """
    state = {}
    for layer in model.layers:
        for w in layer.weights:
            stage, block, *part = (
                layer.name.split("_") if layer.name.startswith("stage") else ("", "", layer.name)
            )
            place = "_".join(part)
            if place.startswith("stem"):
                name = {"stem_conv": "conv1", "stem_norm": "bn1"}.get(place, place)
            elif place == "logits":
                name = head
            else:
                number = {"shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"}.get(
                    place, place.replace("norm", "bn")
                )
                number = {"se_reduce": "se.fc1", "se_expand": "se.fc2"}.get(number, number)
                name = f"layer{stage[5:]}.{int(block[5:]) - 1}.{number}"
            suffix = {
                "kernel": "weight",
                "gamma": "weight",
                "beta": "bias",
                "moving_mean": "running_mean",
                "moving_variance": "running_var",
            }
            value = np.asarray(w)
            if w.name == "kernel":
                value = (
                    value.T
                    if value.ndim == 2
                    else np.transpose(
                        value, (value.ndim - 1, value.ndim - 2, *range(value.ndim - 2))
                    )
                )
            for old, new in rename.items():
                name = name.replace(old, new)
            state[f"{name}.{suffix.get(w.name, w.name)}"] = value
            if w.name == "moving_mean":
                state[f"{name}.num_batches_tracked"] = np.int64(7)
    return state


def write_pth(path: Path, state: dict[str, np.ndarray]) -> Path:
    """A state dict in the container of torch 1.6 and later."""
    arrays = {name: np.ascontiguousarray(value, "<f4") for name, value in state.items()}
    root = {name: tensor(str(key), array) for key, (name, array) in enumerate(arrays.items())}
    storages = {str(key): array.tobytes() for key, array in enumerate(arrays.values())}
    return write_zip(path, root, storages)
