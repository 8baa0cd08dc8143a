"""Read state dicts of torch without torch, and without running code of the pickle.

A `.pth` is a pickle: torch.load on an untrusted file may run its code. Here only the names in
`ALLOWED` can be called, and all of them are functions of this file; a file that refers to any other
name is refused. Both containers are read: the zip (torch 1.6 and later) and the older stream of
pickles. safetensors is safe by design: https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medres.backbones.weights.safe_unpickler import Reader
from medres.errors import WeightsError

DAMAGE_ERRORS = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
    NotImplementedError,
    RecursionError,
    struct.error,
    zipfile.BadZipFile,
)
MAGIC = 0x1950A86A20F9469CFC6C  # of the older container
STATE_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net")
STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
SAFETENSORS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bfloat16",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


@dataclass
class Storage:
    """A block of numbers that tensors refer to; `values` is set after the pickle has been read."""

    kind: str
    count: int
    values: np.ndarray | None = None


@dataclass
class Tensor:
    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self) -> np.ndarray:
        values = self.storage.values
        numbers = (self.offset, *self.size, *self.stride)
        if (
            values is None
            or len(self.size) != len(self.stride)
            or not all(isinstance(n, int) and n >= 0 for n in numbers)
        ):
            raise WeightsError(
                "a tensor of the file is not described completely", code="damaged_file"
            )
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
        if 0 not in self.size and (last >= values.size or math.prod(self.size) > values.size):
            raise WeightsError(
                f"a tensor of shape {self.size} reaches outside its {values.size} stored numbers",
                code="damaged_file",
            )
        if 0 in self.size:
            return np.zeros(self.size, values.dtype)
        steps = [s * values.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.size, steps).copy()


def _rebuild_tensor(storage: Storage, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise WeightsError("a tensor of the file has no storage", code="damaged_file")
    return Tensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


def _mapping(*items: Any) -> dict:
    return dict(*items)


def _sizes(*items: Any) -> tuple:
    return tuple(*items)


ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": _mapping,
    "torch.Size": _sizes,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    **{f"torch.{name}": name for name in STORAGES},
}


def _reader(storage: Callable[[str, str, int], Storage]) -> Reader:
    def persistent(pid: Any) -> Storage:
        if not (
            isinstance(pid, tuple)
            and len(pid) in (5, 6)
            and pid[0] == "storage"
            and pid[1] in STORAGES
        ):
            raise WeightsError(
                "the file refers to a storage of an unknown kind; save the state dict as "
                "safetensors",
                code="unsafe_pickle",
            )
        if len(pid) == 6 and pid[5] is not None:
            raise WeightsError(
                "the file holds views of storages, from a torch before 0.4; save it again with a "
                "newer torch",
                code="old_torch",
            )
        return storage(pid[1], str(pid[2]), int(pid[4]))

    return Reader(ALLOWED, persistent)


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Name -> array of a `.pth`, `.pt` or `.th` file, with the stored dtype (bfloat16 becomes
    float32). Raises WeightsError.
    """
    try:
        root = _read_zip(path) if zipfile.is_zipfile(path) else _read_stream(path)
        return {name: tensor.array() for name, tensor in _state(root).items()}
    except DAMAGE_ERRORS as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"{path.name} is not a complete torch file ({type(error).__name__}); copy or save it "
            f"again",
            code="damaged_file",
        ) from error


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise WeightsError(
                f"{path.name} is a zip file, but not a torch file: it has no data.pkl",
                code="file_format",
            )
        folder = pickles[0].removesuffix("data.pkl")
        if (
            f"{folder}byteorder" in archive.namelist()
            and _stored(archive, f"{folder}byteorder") != b"little"
        ):
            raise _big_endian(path)
        storages: dict[str, Storage] = {}

        def storage(kind: str, key: str, count: int) -> Storage:
            if key not in storages:
                storages[key] = Storage(
                    kind,
                    count,
                    _numbers(_stored(archive, f"{folder}data/{key}"), STORAGES[kind], count),
                )
            return storages[key]

        return _reader(storage).read(io.BytesIO(_stored(archive, pickles[0])))


def _read_stream(path: Path) -> Any:
    storages: dict[str, Storage] = {}

    def storage(kind: str, key: str, count: int) -> Storage:
        return storages.setdefault(key, Storage(kind, count))

    file, reader = io.BytesIO(path.read_bytes()), _reader(storage)
    if reader.read(file) != MAGIC:
        raise WeightsError(
            f"{path.name} is not a torch file; give .pth, .pt, .th, .safetensors, .h5 or .keras",
            code="file_format",
        )
    reader.read(file)  # protocol
    if reader.read(file).get("little_endian") is not True:
        raise _big_endian(path)
    root = reader.read(file)
    for key in reader.read(file):
        count = struct.unpack("<q", file.read(8))[0]
        stored = storages[key]
        if count != stored.count:
            raise WeightsError(
                f"{path.name}: a storage has {count} numbers instead of {stored.count}",
                code="damaged_file",
            )
        dtype = STORAGES[stored.kind]
        stored.values = _numbers(file.read(count * _itemsize(dtype)), dtype, count)
    return root


def _big_endian(path: Path) -> WeightsError:
    return WeightsError(
        f"{path.name} was written on a big-endian machine; save it again on another machine",
        code="file_format",
    )


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member of the zip as torch writes it: neither compressed nor encrypted, so it cannot be
    larger than the file.
    """
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise WeightsError(
            f"the member {name} of the file is compressed or encrypted, which torch does not do; "
            f"save it again",
            code="file_format",
        )
    try:
        return archive.read(info)
    except (OSError, NotImplementedError) as error:
        raise WeightsError(
            f"the member {name} of the file cannot be read ({error}); copy or save it again",
            code="damaged_file",
        ) from error


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _numbers(data: bytes, dtype: str, count: int) -> np.ndarray:
    if len(data) != count * _itemsize(dtype):
        raise WeightsError(
            f"{len(data)} bytes do not hold {count} numbers: the file is truncated or damaged",
            code="damaged_file",
        )
    if dtype == "bfloat16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, dtype)


def _state(root: Any) -> dict[str, Tensor]:
    """The first mapping of names to tensors: the root itself, or the value of one of STATE_KEYS."""
    candidates = [root, *(root.get(key) for key in STATE_KEYS)] if isinstance(root, dict) else []
    for candidate in candidates:
        if isinstance(candidate, dict):
            tensors = {
                name: t
                for name, t in candidate.items()
                if isinstance(name, str) and isinstance(t, Tensor)
            }
            if tensors:
                return tensors
    raise WeightsError(
        f"the file holds no state dict, neither at its root nor under {', '.join(STATE_KEYS)}",
        code="no_state_dict",
    )


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Name -> array of a safetensors file; bfloat16 becomes float32. Raises WeightsError."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= path.stat().st_size - 8:
            raise WeightsError(
                f"{path.name} is not a safetensors file, or is truncated", code="damaged_file"
            )
        try:
            header = json.loads(file.read(length))
            body = file.read()
            return {
                name: _safe_tensor(body, entry)
                for name, entry in header.items()
                if name != "__metadata__"
            }
        except DAMAGE_ERRORS as error:
            if isinstance(error, WeightsError):
                raise
            raise WeightsError(
                f"{path.name} has an invalid safetensors header ({type(error).__name__})",
                code="damaged_file",
            ) from error


def _safe_tensor(body: bytes, entry: dict) -> np.ndarray:
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end <= len(body):
        raise WeightsError(
            "a tensor lies outside the file: the file is truncated or damaged", code="damaged_file"
        )
    shape = tuple(int(n) for n in entry["shape"])
    return _numbers(body[begin:end], SAFETENSORS[entry["dtype"]], math.prod(shape)).reshape(shape)
