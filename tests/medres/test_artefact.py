from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from medres.artefact import load, read_card
from medres.errors import ArtefactError


@pytest.fixture
def members(tiny_run: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(tiny_run / "model.keras") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: dict[str, bytes], *, sign: bool = True) -> Path:
    """A model file of these members; sign=True makes the checksums right again."""
    members = dict(members)
    if sign and "medres.json" in members:
        card = json.loads(members["medres.json"])
        card["members"] = {n: hashlib.sha256(d).hexdigest() for n, d in members.items() if n != "medres.json"}
        members["medres.json"] = json.dumps(card).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_the_card_says_what_the_weights_do_not(tiny_run: Path) -> None:
    card, _ = read_card(tiny_run / "model.keras")
    assert (card.task, card.names, card.unit, card.pooling) == ("binary", ["square"], "patient", "max")
    assert card.preprocess.name == "xray-32"
    assert "Not a medical device" in card.intended_use
    assert {p.unit for p in card.operating_points} == {"patient", "study"}
    assert all(p.split == "tune" and 0 < p.threshold < 1 and p.n_patients > 0 for p in card.operating_points)


def test_the_preflight_needs_no_tensorflow(tiny_run: Path) -> None:
    script = f"""
import sys
from medres.artefact import read_card
read_card({str(tiny_run / "model.keras")!r})
print(sorted({{"tensorflow", "keras"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def hostile_class(members: dict[str, bytes]) -> dict[str, bytes]:
    config = members["config.json"].decode().replace('"class_name": "Rescaling"', '"class_name": "Lambda"', 1)
    return members | {"config.json": config.encode()}


def foreign_module(members: dict[str, bytes]) -> dict[str, bytes]:
    config = members["config.json"].decode().replace('"module": "keras.layers"', '"module": "os"', 1)
    return members | {"config.json": config.encode()}


def huge_layer(members: dict[str, bytes]) -> dict[str, bytes]:
    config = members["config.json"].decode().replace('"filters": 8', '"filters": 99999999', 1)
    return members | {"config.json": config.encode()}


def changed_scaling(members: dict[str, bytes]) -> dict[str, bytes]:
    config = members["config.json"].decode().replace('"scale": 2.0', '"scale": 1.5', 1)
    return members | {"config.json": config.encode()}


def changed_golden(members: dict[str, bytes]) -> dict[str, bytes]:
    with np.load(io.BytesIO(members["golden.npz"])) as golden:
        inputs, outputs = golden["inputs"], golden["outputs"]
    buffer = io.BytesIO()
    np.savez(buffer, inputs=inputs, outputs=1 - outputs)
    return members | {"golden.npz": buffer.getvalue()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (hostile_class, "does not build"),
        (foreign_module, "does not build"),
        (huge_layer, "filters"),
        (changed_scaling, "other probabilities"),
        (changed_golden, "other probabilities"),
        (lambda m: m | {"extra.py": b"print(1)"}, "members differ"),
        (lambda m: {n: d for n, d in m.items() if n != "golden.npz"}, "members differ"),
        (lambda m: m | {"medres.json": b"{}"}, "does not fit schema"),
        (lambda m: m | {"config.json": b"{"}, "no JSON object"),
        (lambda m: m | {"config.json": b"[" * 100_000}, "no JSON object"),
    ],
)
def test_altered_files_are_refused(members, change, message: str, tmp_path: Path) -> None:
    changed = change(members)
    assert changed != members
    with pytest.raises(ArtefactError, match=message):
        load(write(tmp_path / "model.keras", changed))


def test_a_wrong_checksum_is_refused(members, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="altered"):
        load(write(tmp_path / "model.keras", changed_scaling(members), sign=False))


def test_a_bomb_is_refused_without_inflating_it(members, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, b"\0" * (9 << 20) if name == "config.json" else data)
    with pytest.raises(ArtefactError, match="8 MiB"):
        read_card(path)


def test_what_plain_keras_saved_again_is_explained(members, tmp_path: Path) -> None:
    import keras

    path = write(tmp_path / "model.keras", members)
    keras.saving.load_model(path).save(tmp_path / "again.keras")
    with pytest.raises(ArtefactError, match="plain Keras saved a medres model again"):
        load(tmp_path / "again.keras")


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip" * 100])
def test_no_zip_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match="no sound"):
        load(path)


def test_flipped_bits_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    data = (tiny_run / "model.keras").read_bytes()
    for place in np.random.default_rng(0).integers(0, len(data), 20):
        changed = bytearray(data)
        changed[place] ^= 0x10
        path = tmp_path / "model.keras"
        path.write_bytes(changed)
        try:
            found = load(path)
        except ArtefactError:
            continue
        # A bit that the zip format ignores (a time stamp, a flag) may change: the content may not.
        with zipfile.ZipFile(tiny_run / "model.keras") as a, zipfile.ZipFile(path) as b:
            assert all(a.read(n) == b.read(n) for n in a.namelist())
        assert found.card.names == ["square"]


def test_other_suffixes_and_absent_files_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_run / "model.keras", tmp_path / "model.h5")
    for path in (tmp_path / "model.h5", tmp_path / "absent.keras"):
        with pytest.raises(ArtefactError):
            load(path)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((32, 32, 1), {"shortcut": "A"}),
        ((32, 32, 1), {"version": "2", "norm": "group"}),
        ((32, 32, 3), {"version": "d", "squeeze_excite": True, "stochastic_depth": 0.1}),
        ((32, 32, 1), {"block": "bottleneck", "cardinality": 4, "group_width": 32}),
        ((16, 16, 16, 1), {"windows": ["lung", "bone"]}),
    ],
)
def test_everything_that_the_builder_draws_is_on_the_allow_list(shape: tuple, options: dict) -> None:
    from medres import classifier
    from medres.preflight import _check_classes

    model = classifier("resnet10", shape, 1, stem="small", width=8, activation="sigmoid", **options)
    _check_classes(json.loads(model.to_json()), "model.keras")
