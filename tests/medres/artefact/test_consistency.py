"""A model file whose parts contradict each other is refused with a code, whatever was changed; a
file that opens gives a summary and a prediction.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code
from hostile import in_json, members_of, write
from hypothesis import example, given, settings
from hypothesis import strategies as st

import medres
from data_pipelines.runtime.plain_text import is_plain, json_text
from medres.artefact import summary
from medres.artefact.archive import load, read_contents
from medres.artefact.card import Card
from medres.artefact.consistency import ArtefactContents
from medres.errors import ArtefactError
from medres.inference.decisions import describe

ESC, OVERRIDE = "a\x1b[2Jb", "a\u202eb"


@pytest.fixture(scope="module")
def members(tiny_run: Path) -> dict[str, bytes]:
    return members_of(tiny_run / "model.keras")


@pytest.fixture(scope="module")
def predictor(tiny_run: Path) -> medres.Predictor:
    return medres.load(tiny_run / "model.keras")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("changed") / "model.keras"


def edited(members: dict[str, bytes], change: Callable[[dict], object]) -> dict[str, bytes]:
    card = json.loads(members["medres.json"])
    change(card)
    return members | {"medres.json": json.dumps(card).encode()}


def arrays(members: dict[str, bytes], member: str, **changes: object) -> dict[str, bytes]:
    with np.load(io.BytesIO(members[member])) as stored:
        values = dict(stored)
    buffer = io.BytesIO()
    np.savez(buffer, **(values | {k: np.asarray(v) for k, v in changes.items()}))
    return members | {member: buffer.getvalue()}


def quantile(**fields: object) -> dict[str, object]:
    values = {"finding": "square", "label": 1, "alpha": 0.1, "quantile": 0.5, "n_patients": 9}
    return values | fields


CARDS: dict[str, Callable[[dict], object]] = {
    "two names, one output": lambda c: c["names"].append("circle"),
    "no name": lambda c: c.update(names=[]),
    "an empty name": lambda c: c.update(names=[""]),
    "a name of 201 characters": lambda c: c.update(names=["x" * 201]),
    "names that are a text": lambda c: c.update(names="square"),
    "a name of another finding": lambda c: c.update(names=["circle"]),
    "several classes, one name": lambda c: c.update(task="multiclass"),
    "control characters": lambda c: c["training"].update(left_out=[{"why": ESC}]),
    "notes that are a number": lambda c: c["training"].update(notes=5),
    "control characters in a note": lambda c: c["training"].update(notes=[ESC]),
    "bidirectional override": lambda c: c["versions"].update(medres=OVERRIDE),
    "control characters in a key": lambda c: c["domain"]["body_parts"].update({ESC: 1}),
    "override in the intended use": lambda c: c.update(intended_use=OVERRIDE),
    "a statement of 3,000 characters": lambda c: c.update(intended_use="x" * 3000),
    "windows of a radiograph": lambda c: c.update(windows=[[40, 400]]),
    "units of another kind": lambda c: c.update(input_units="HU"),
    "threshold above 1": lambda c: c["operating_points"][0].update(threshold=1.5),
    "threshold below 0": lambda c: c["operating_points"][0].update(threshold=-0.1),
    "threshold as text": lambda c: c["operating_points"][0].update(threshold="0.5"),
    "threshold that is true": lambda c: c["operating_points"][0].update(threshold=True),
    "the same threshold twice": lambda c: c["operating_points"].append(c["operating_points"][0]),
    "threshold of nobody": lambda c: c["operating_points"][0].update(finding="circle"),
    "patients below 0": lambda c: c["operating_points"][0].update(n_patients=-1),
    "patients as a fraction": lambda c: c["operating_points"][0].update(n_patients=1.5),
    "hash that is none": lambda c: c["operating_points"][0].update(sha256="x"),
    "alpha of 1": lambda c: c["conformal"].append(quantile(alpha=1.0)),
    "quantile above 1": lambda c: c["conformal"].append(quantile(quantile=7.0)),
    "quantile of another label": lambda c: c["conformal"].append(quantile(label=2)),
    "the same quantile twice": lambda c: c["conformal"].extend([quantile()] * 2),
    "quantile of nobody": lambda c: c["conformal"].append(quantile(finding="circle")),
    "calibration of two outputs": lambda c: c["calibration"].update(scale=[1.0, 1.0]),
    "calibration of another kind": lambda c: c.update(calibration={"scale": "1"}),
    "calibration with another key": lambda c: c["calibration"].update(secret=1),
    "views as text": lambda c: c["training"]["config"]["after"].update(views="4"),
    "config as a list": lambda c: c["training"].update(config=[]),
    "notes as a text": lambda c: c["training"].update(notes="few patients"),
    "a note that is a number": lambda c: c["training"].update(notes=[1]),
    "tolerance below 1": lambda c: c["domain"].update(tolerance={"size": 0.5}),
    "negative number of images": lambda c: c["domain"].update(formats={"png": -1}),
    "extent of 0": lambda c: c["domain"].update(
        scale={"spacing_mm": [1, 1], "row_extent_mm": [0, 9], "col_extent_mm": [9, 9]}
    ),
    "split without images": lambda c: c["training"]["splits"]["train"].pop("images"),
    "a number too large": lambda c: c["training"].update(x=10**4000),
    "sizes in the wrong order": lambda c: c["domain"].update(rows=[40, 20]),
    "size of 0": lambda c: c["domain"].update(cols=[0, 40]),
    "images below 0": lambda c: c["domain"].update(images=-4),
    "counts below 0": lambda c: c["domain"].update(modalities={"CR": -1}),
    "distance of 0": lambda c: c.update(novelty_threshold=0),
    "deep settings": lambda c: c["training"].update(x=json.loads("[" * 40 + "]" * 40)),
}


@pytest.mark.parametrize("change", CARDS.values(), ids=CARDS)
def test_a_card_that_contradicts_itself_is_refused(
    change: Callable[[dict], object], members: dict[str, bytes], file: Path
) -> None:
    with raises_code(ArtefactError, "card_schema", "model.keras") as caught:
        read_contents(write(file, edited(members, change)))
    assert is_plain(str(caught.value))


def test_a_number_that_is_read_as_infinity_is_refused(
    members: dict[str, bytes], file: Path
) -> None:
    card = members["medres.json"].replace(b'"threshold": 0.', b'"threshold": 1e999, "x": 0.', 1)
    assert card != members["medres.json"]
    with raises_code(ArtefactError, "malformed_json"):
        read_contents(write(file, members | {"medres.json": card}))


GAUSSIANS: dict[str, tuple[dict[str, object], str]] = {
    "variance of 0": ({"variance": np.zeros(15, "f4")}, "malformed_gaussian"),
    "noise below 0": ({"noise": np.float32(-1)}, "malformed_gaussian"),
    "mean not finite": ({"mean": np.full(64, np.nan, "f4")}, "malformed_gaussian"),
    "axes not orthonormal": ({"axes": np.ones((15, 64), "f4")}, "malformed_gaussian"),
}


@pytest.mark.parametrize("name", GAUSSIANS)
def test_a_distribution_that_is_none_is_refused(
    name: str, members: dict[str, bytes], file: Path
) -> None:
    with np.load(io.BytesIO(members["novelty.npz"])) as stored:
        count, width = stored["axes"].shape
    change, code = GAUSSIANS[name]
    fitted = {
        key: np.resize(value, {"variance": (count,), "mean": (width,), "axes": (count, width)}[key])
        if key != "noise"
        else value
        for key, value in change.items()
    }
    with raises_code(ArtefactError, code, "novelty.npz"):
        read_contents(write(file, arrays(members, "novelty.npz", **fitted)))


def test_a_distribution_of_other_features_is_refused(members: dict[str, bytes], file: Path) -> None:
    other = {"mean": np.zeros(5), "axes": np.eye(5)[:2], "variance": np.ones(2), "noise": 1.0}
    changed = arrays(
        members, "novelty.npz", **{k: np.asarray(v, np.float32) for k, v in other.items()}
    )
    with raises_code(ArtefactError, "novelty_mismatch", "5 features"):
        load(write(file, changed))


def test_a_limit_without_a_distribution_is_refused(members: dict[str, bytes], file: Path) -> None:
    without = {name: data for name, data in members.items() if name != "novelty.npz"}
    with raises_code(ArtefactError, "novelty_missing"):
        read_contents(write(file, without))
    read_contents(write(file, in_json("medres.json", novelty_threshold=None)(without)))


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": np.full((2, 1), 1.5, "f4")},
        {"outputs": np.full((2, 1), -0.5, "f4")},
        {"outputs": np.full((2, 1), np.nan, "f4")},
        {"outputs": np.full((2, 1), 0.5, "f8")},
        {"outputs": np.zeros((2, 1), "i4")},
        {"outputs": np.full((1, 1), 0.5, "f4")},
        {"outputs": np.full((2,), 0.5, "f4")},
        {"inputs": np.zeros((2, 32, 32), "<i2")},
        {"inputs": np.zeros((2, 32, 32), "<f4")},
        {"inputs": np.zeros((9, 32, 32), "<u2"), "outputs": np.full((9, 1), 0.5, "f4")},
        {"inputs": np.uint16(1)},
    ],
)
def test_reference_outputs_that_are_no_probabilities_of_the_card_are_refused(
    changes: dict[str, np.ndarray], members: dict[str, bytes], file: Path
) -> None:
    with raises_code(ArtefactError, "golden_shape", "golden.npz"):
        read_contents(write(file, arrays(members, "golden.npz", **changes)))


def test_reference_outputs_of_classes_sum_to_one(members: dict[str, bytes], file: Path) -> None:
    card = {"task": "multiclass", "names": ["a", "b"], "operating_points": [], "calibration": {}}
    classes = in_json("medres.json", **card)(members)
    good = arrays(classes, "golden.npz", outputs=np.full((2, 2), 0.5, "f4"))
    assert read_contents(write(file, good)).card.names == ["a", "b"]
    with raises_code(ArtefactError, "golden_shape"):
        read_contents(write(file, arrays(classes, "golden.npz", outputs=np.ones((2, 2), "f4"))))
    with raises_code(ArtefactError, "golden_shape", "2 outputs"):
        load(write(file, good))  # the graph has one output


def outcome(file: Path) -> ArtefactContents | ArtefactError:
    """What a file holds, or the error that refuses it. Any other exception fails the test."""
    try:
        return read_contents(file)
    except ArtefactError as error:
        return error


def paths(value: object, path: tuple = ()) -> list[tuple]:
    """The paths of all values of a JSON value, containers included."""
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            found += paths(part, (*path, key))
    return found


TEXTS = st.sampled_from(["", "square", "default", ESC, OVERRIDE, "\ud800", "x" * 5000, "1", "ct"])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.sampled_from([10**30, -(10**30), 10**4000, 2**53 + 1, 1e308, -1e-320, math.inf, math.nan])
    | st.floats(-2, 2)
    | TEXTS
    | st.text(max_size=5)
)
VALUES = LEAVES | st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100)
@given(data=st.data())
def test_any_change_of_a_card_is_refused_with_a_code_or_leaves_a_model_that_works(
    data: st.DataObject, members: dict[str, bytes], file: Path, predictor: medres.Predictor
) -> None:
    card = json.loads(members["medres.json"])
    path = data.draw(st.sampled_from([p for p in paths(card) if p[0] != "members"]))
    parent = card
    for key in path[:-1]:
        parent = parent[key]
    if data.draw(st.integers(0, 9)) == 0:
        del parent[path[-1]]
    else:
        parent[path[-1]] = data.draw(VALUES)
    write(file, members | {"medres.json": json.dumps(card).encode()})
    opened = outcome(file)
    if isinstance(opened, ArtefactError):
        assert opened.code != "artefact"  # a narrower one
        assert is_plain(str(opened))
        assert len(str(opened)) < 500
        return
    require_works(opened.card, predictor)


def require_works(card: Card, predictor: medres.Predictor) -> None:
    """What medres does with a card gives plain text, JSON and a prediction."""
    artefact = dataclasses.replace(predictor.artefact, card=card)
    assert all(map(is_plain, summary.lines(artefact)))
    assert json.loads(json_text(summary.as_dict(artefact)))["card"]["names"] == card.names
    changed = copy.copy(predictor)
    changed.artefact, changed.card = artefact, card
    prediction = changed.decide(np.zeros((1, *card.preprocess.prepared_shape), np.uint16))
    assert json_text(prediction.as_dict())
    assert describe(dict.fromkeys(card.names, 0.5), card)


@pytest.fixture(scope="module")
def small(members: dict[str, bytes], file: Path) -> bytes:
    """The bytes of a valid file."""
    return write(file, members).read_bytes()


@settings(max_examples=300)
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4), st.integers(0, 8)),
        min_size=1,
        max_size=4,
    ),
    near_the_end=st.booleans(),
)
@example(edits=[(0.0, b"", 8)], near_the_end=False)
def test_any_change_of_the_bytes_is_refused_with_a_code_or_changes_nothing(
    edits: list[tuple[float, bytes, int]],
    near_the_end: bool,
    members: dict[str, bytes],
    file: Path,
    small: bytes,
) -> None:
    """Bytes are replaced, inserted or removed anywhere, and in the directory of the zip."""
    changed = bytearray(small)
    for place, new, removed in edits:
        start = len(changed) - 700 if near_the_end else 0
        index = start + int(place * (len(changed) - start))
        changed[index : index + removed] = new
    file.write_bytes(changed)
    opened = outcome(file)
    if isinstance(opened, ArtefactError):
        assert opened.code != "artefact"
        return
    with zipfile.ZipFile(io.BytesIO(small)) as archive:
        assert opened.members == {
            name: archive.read(name) for name in members if name != "model.weights.h5"
        }


def test_reference_arrays_that_claim_many_members_are_refused_by_name(
    members: dict[str, bytes], file: Path
) -> None:
    golden = bytearray(members["golden.npz"])
    golden[-14:-10] = b"\xff" * 4
    refused = outcome(write(file, members | {"golden.npz": bytes(golden)}))
    assert isinstance(refused, ArtefactError)
    assert refused.code == "too_many_members"
    assert "golden.npz" in str(refused)


CODES_OF_ARRAYS = (
    "malformed_arrays",
    "malformed_gaussian",
    "golden_shape",
    "too_many_members",
    "arrays_too_large",
)


@settings(max_examples=100)
@given(
    member=st.sampled_from(["golden.npz", "novelty.npz"]),
    place=st.floats(0, 1, exclude_max=True),
    new=st.binary(min_size=1, max_size=4),
    removed=st.integers(0, 8),
)
def test_any_change_of_the_arrays_with_renewed_checksums_is_refused_with_a_code_or_read(
    member: str, place: float, new: bytes, removed: int, members: dict[str, bytes], file: Path
) -> None:
    data = bytearray(members[member])
    index = int(place * len(data))
    data[index : index + removed] = new
    opened = outcome(write(file, members | {member: bytes(data)}))
    if isinstance(opened, ArtefactError):
        assert opened.code in CODES_OF_ARRAYS
        return
    assert ((opened.outputs >= 0) & (opened.outputs <= 1)).all()
    assert opened.novelty is not None
    assert (opened.novelty.variance > 0).all()
