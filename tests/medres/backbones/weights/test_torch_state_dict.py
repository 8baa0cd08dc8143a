from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import raises_code
from torch_files import Call, Global, Persistent, pickled, tensor, write_zip

from medres.backbones.weights.files import read_weights
from medres.backbones.weights.safe_unpickler import Reader
from medres.backbones.weights.torch_state_dict import MAGIC, read_safetensors, read_torch
from medres.errors import WeightsError


def write_stream(path: Path, root: dict[str, np.ndarray]) -> Path:
    """The container of torch before 1.6."""
    state = {}
    for i, (name, array) in enumerate(root.items()):
        storage = Persistent(
            ("storage", Global("torch.FloatStorage"), str(i), "cpu", array.size, None)
        )
        stride = tuple(s // array.itemsize for s in array.strides)
        state[name] = Call(
            (Global("torch._utils._rebuild_tensor"), storage, 0, array.shape, stride)
        )
    system = {"protocol_version": 1001, "little_endian": True}
    parts = [
        pickled(x)
        for x in (
            MAGIC,
            1001,
            system,
            {"best": 91.5, "state_dict": state},
            [str(i) for i in range(len(root))],
        )
    ]
    parts += [struct.pack("<q", a.size) + a.astype("<f4").tobytes() for a in root.values()]
    path.write_bytes(b"".join(parts))
    return path


WEIGHT = np.arange(24, dtype="float32").reshape(2, 3, 4)


def test_the_zip_container(tmp_path: Path) -> None:
    root = {
        "weight": tensor("0", WEIGHT),
        "turned": tensor("0", WEIGHT, size=(4, 3, 2), stride=(1, 4, 12)),
        "epoch": 3,
    }
    read = read_torch(write_zip(tmp_path / "a.pth", root, {"0": WEIGHT.tobytes()}))
    assert set(read) == {"weight", "turned"}
    np.testing.assert_array_equal(read["weight"], WEIGHT)
    np.testing.assert_array_equal(read["turned"], WEIGHT.transpose())


def test_the_suffix_pth_tar(tmp_path: Path) -> None:
    root = {"state_dict": {"x": tensor("0", WEIGHT)}, "epoch": 3}
    path = write_zip(tmp_path / "m-1.pth.tar", root, {"0": WEIGHT.tobytes()})
    np.testing.assert_array_equal(read_weights(path)["x"], WEIGHT)
    with tarfile.open(tmp_path / "real.pth.tar", "w") as archive:
        archive.add(__file__, "m.py")
    with raises_code(WeightsError, "damaged_file", "real.pth.tar"):
        read_weights(tmp_path / "real.pth.tar")


def test_a_part_of_a_storage(tmp_path: Path) -> None:
    root = {"model": {"row": tensor("0", WEIGHT, offset=4, size=(2, 2), stride=(12, 1))}}
    read = read_torch(write_zip(tmp_path / "a.pt", root, {"0": WEIGHT.tobytes()}))
    np.testing.assert_array_equal(read["row"], WEIGHT[:, 1, :2])


def test_the_stream_container(tmp_path: Path) -> None:
    read = read_torch(
        write_stream(tmp_path / "a.th", {"module.w": WEIGHT, "b": np.float32([1, 2])})
    )
    np.testing.assert_array_equal(read["module.w"], WEIGHT)
    np.testing.assert_array_equal(read["b"], [1, 2])


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("HalfStorage", "<f2"),
        ("DoubleStorage", "<f8"),
        ("LongStorage", "<i8"),
        ("ByteStorage", "u1"),
    ],
)
def test_number_types(tmp_path: Path, kind: str, dtype: str) -> None:
    array = np.array([1, 2, 250], dtype)
    read = read_torch(
        write_zip(tmp_path / "a.pth", {"x": tensor("0", array, kind)}, {"0": array.tobytes()})
    )
    assert read["x"].dtype == dtype
    np.testing.assert_array_equal(read["x"], array)


def test_bfloat16_is_the_upper_half_of_float32(tmp_path: Path) -> None:
    halves = np.array([0x3F80, 0xC000, 0x3EAB], "<u2")  # 1, -2, 0.333984375
    root = {"x": tensor("0", halves, "BFloat16Storage")}
    np.testing.assert_array_equal(
        read_torch(write_zip(tmp_path / "a.pth", root, {"0": halves.tobytes()}))["x"],
        [1, -2, 0.333984375],
    )


def test_no_code_of_the_file_runs(tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    root = {"x": Call((Global("os.mkdir"), str(canary)))}
    with raises_code(WeightsError, "unsafe_pickle", "os.mkdir"):
        read_torch(write_zip(tmp_path / "a.pth", root, {}))
    (tmp_path / "b.th").write_bytes(pickled(Call((Global("os.mkdir"), str(canary)))))
    with raises_code(WeightsError, "unsafe_pickle", "os.mkdir"):
        read_torch(tmp_path / "b.th")
    for name in (
        "builtins.eval",
        "builtins.getattr",
        "medres.backbones.weights.torch_state_dict.read_torch",
        "torch.nn.Module",
    ):
        with raises_code(WeightsError, "unsafe_pickle", name):
            read_torch(write_zip(tmp_path / "c.pth", {"x": Global(name)}, {}))
    assert not canary.exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"size": (2, 3, 5)},
        {"offset": 1},
        {"offset": -1},
        {"stride": (12, 4, -1)},
        {"size": (10**9,), "stride": (0,)},
        {"size": (2,)},
    ],
)
def test_a_tensor_cannot_reach_outside_its_storage(tmp_path: Path, changed: dict) -> None:
    path = write_zip(
        tmp_path / "a.pth", {"x": tensor("0", WEIGHT, **changed)}, {"0": WEIGHT.tobytes()}
    )
    with pytest.raises(WeightsError):
        read_torch(path)


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    whole = write_stream(tmp_path / "whole.th", {"w": WEIGHT}).read_bytes()
    for length in (0, 3, 20, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.th").write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            read_torch(tmp_path / "cut.th")
    with raises_code(WeightsError, "damaged_file"):
        read_torch(write_zip(tmp_path / "short.pth", {"x": tensor("0", WEIGHT)}, {"0": b"1234"}))
    with raises_code(WeightsError, "no_state_dict"):
        read_torch(write_zip(tmp_path / "none.pth", {"epoch": 3}, {}))
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with raises_code(WeightsError, "file_format"):
        read_torch(tmp_path / "other.pth")


def write_safetensors(path: Path, header: Any, body: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def test_safetensors(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "w": {"dtype": "F32", "shape": [2, 3, 4], "data_offsets": [0, 96]},
        "h": {"dtype": "BF16", "shape": [2], "data_offsets": [96, 100]},
    }
    path = write_safetensors(
        tmp_path / "a.safetensors", header, WEIGHT.tobytes() + struct.pack("<HH", 0x3F80, 0xC000)
    )
    read = read_safetensors(path)
    assert set(read) == {"w", "h"}
    np.testing.assert_array_equal(read["w"], WEIGHT)
    np.testing.assert_array_equal(read["h"], [1, -2])


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [7], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [6], "data_offsets": [0, 28]},
        {"dtype": "Q4", "shape": [6], "data_offsets": [0, 24]},
        {"shape": [6]},
        [],
    ],
)
def test_damaged_safetensors(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(WeightsError):
        read_safetensors(write_safetensors(tmp_path / "a.safetensors", {"w": entry}, bytes(24)))
    (tmp_path / "b.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(WeightsError):
        read_safetensors(tmp_path / "b.safetensors")


def mutations(whole: bytes, count: int, seed: int) -> Iterator[bytes]:
    random = np.random.default_rng(seed)
    for _ in range(count):
        changed = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            changed[random.integers(len(changed))] = random.integers(256)
        yield bytes(changed[: random.integers(len(changed))] if random.random() < 0.1 else changed)


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
def test_damage_of_any_kind_gives_arrays_or_one_clear_error(tmp_path: Path) -> None:
    root = {"weight": tensor("0", WEIGHT), "more": {"x": [1, 2.5, None, True, ("a", 300)]}}
    header = {"w": {"dtype": "F32", "shape": [2, 3, 4], "data_offsets": [0, 96]}}
    files = {
        write_zip(tmp_path / "a.pth", root, {"0": WEIGHT.tobytes()}): read_torch,
        write_stream(tmp_path / "b.th", {"w": WEIGHT, "b": np.float32([1, 2])}): read_torch,
        write_safetensors(tmp_path / "c.safetensors", header, WEIGHT.tobytes()): read_safetensors,
    }
    for path, read in files.items():
        outcomes = {"read": 0, "refused": 0}
        for changed in mutations(path.read_bytes(), 400, seed=0):
            path.write_bytes(changed)
            try:
                assert all(
                    isinstance(array, np.ndarray) and array.size <= 24
                    for array in read(path).values()
                )
                outcomes["read"] += 1
            except WeightsError:
                outcomes["refused"] += 1
        assert min(outcomes.values()) > 10


def test_an_opcode_that_tensors_do_not_need_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.th").write_bytes(b"\x80\x02(i__main__\nx\n.")
    with raises_code(WeightsError, "unsafe_pickle", "INST"):
        read_torch(tmp_path / "a.th")


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickled({"x": "y" * 10_000}))
    with raises_code(WeightsError, "file_format"):
        read_torch(tmp_path / "a.pth")


def test_what_pythons_own_pickle_writes_is_read(tmp_path: Path) -> None:
    """Protocols 2 to 5 write other opcodes for the same plain data; without tensors there is no
    state dict in them.
    """
    data = {
        "text": "é" * 300,
        "numbers": [1, -1, 70_000, 2**40, 0.5],
        "nested": {"a": (1, 2, 3, 4)},
        "none": None,
    }
    for protocol in (2, 4, 5):
        assert Reader({}, str).read(io.BytesIO(pickle.dumps(data, protocol))) == data
