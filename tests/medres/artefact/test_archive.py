from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import medres, raises_code
from hostile import corpus, in_config, in_json, in_weights, members_of, write

from medres.artefact import golden_vectors, summary
from medres.artefact.archive import load, read_contents, save
from medres.artefact.card import INTENDED_USE
from medres.artefact.validation import read_members
from medres.errors import ArtefactError


@pytest.fixture
def members(tiny_run: Path) -> dict[str, bytes]:
    return members_of(tiny_run / "model.keras")


@pytest.fixture(scope="module")
def hostile(
    tiny_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[tuple[str, Path, str]]]:
    folder = tmp_path_factory.mktemp("hostile")
    yield list(corpus(tiny_run / "model.keras", folder))
    shutil.rmtree(folder)


def test_the_card_says_what_the_weights_do_not(tiny_run: Path) -> None:
    card = read_contents(tiny_run / "model.keras").card
    assert (card.task, card.names, card.unit, card.pooling) == (
        "binary",
        ["square"],
        "patient",
        "max",
    )
    assert card.preprocess.name == "xray-32"
    assert (card.input_units, card.windows) == ("display", None)
    assert "Not a medical device" in card.intended_use
    assert {p.unit for p in card.operating_points} == {"patient", "study"}
    assert all(
        p.split == "tune" and 0 < p.threshold < 1 and p.n_patients > 0
        for p in card.operating_points
    )
    assert card.domain is not None
    assert card.domain.modalities == {"CR": card.domain.images}
    assert card.domain.body_parts == {"CHEST": card.domain.images}
    assert card.domain.rows == card.domain.cols == (40, 40)
    assert "TINY" not in card.model_dump_json()


def test_every_hostile_file_is_refused_at_once_in_little_memory_without_tensorflow(hostile) -> None:
    script = """
import json, sys, time
from pathlib import Path
import medres
from medres.errors import ArtefactError
from medres.artefact.validation import read_members
results = []
for path in json.load(sys.stdin):
    Path("/proc/self/clear_refs").write_text("5")
    start, code, message = time.process_time(), None, None
    try:
        medres.load(path)
    except ArtefactError as error:
        code, message = error.code, str(error)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(l.split()[1]) for l in lines if l.startswith("VmHWM"))
    results.append([code, message, time.process_time() - start, peak / 1024])
print(json.dumps([results, sorted({"tensorflow", "keras"} & set(sys.modules))]))
"""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory can be reset on Linux only")
    paths = json.dumps([str(path) for _, path, _ in hostile])
    done = subprocess.run(
        [sys.executable, "-c", script], input=paths, capture_output=True, text=True, check=True
    )
    results, loaded = json.loads(done.stdout)
    assert loaded == []
    assert len(results) == len(hostile) >= 40
    for (name, path, expected), (code, message, seconds, mebibytes) in zip(
        hostile, results, strict=True
    ):
        assert code == expected, (name, message)
        assert message.startswith(path.name)
        assert len(message) < 800  # with the list of all supported layers
        assert seconds < 1, name
        assert mebibytes < 100, name


def test_the_command_line_refuses_them_in_one_line(hostile) -> None:
    from typer.testing import CliRunner

    from medres.cli.app import app

    for verb in (["verify"], ["predict"]):
        done = CliRunner().invoke(
            app, [*verb, str(hostile[0][1]), *([str(hostile[0][1])] if verb == ["predict"] else [])]
        )
        assert done.exit_code == 1
        assert done.stderr.startswith("medres: 0.keras: ")
        assert "Lambda" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def changed_golden(members: dict[str, bytes], **change: np.ndarray) -> dict[str, bytes]:
    with np.load(io.BytesIO(members["golden.npz"])) as arrays:
        original = dict(arrays)
    buffer = io.BytesIO()
    np.savez(buffer, **(original | change))
    return members | {"golden.npz": buffer.getvalue()}


def louder(file: h5py.File) -> None:
    file["layers/conv2d/vars/0"][...] *= 2


larger = in_json("medres.json", preprocess={"kind": "radiograph", "rows": 48, "cols": 48})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (in_config('"scale": 2.0', '"scale": 1.5'), "graph_mismatch"),
        (in_weights(louder), "outputs_differ"),
        (lambda m: changed_golden(m, outputs=np.zeros((2, 1), "f4")), "outputs_differ"),
        (lambda m: changed_golden(m, outputs=np.zeros((2, 3), "f4")), "golden_shape"),
        (lambda m: changed_golden(m, inputs=np.zeros((2, 5, 5), "<u2")), "golden_shape"),
        (lambda m: changed_golden(larger(m), inputs=np.zeros((2, 48, 48), "<u2")), "golden_shape"),
    ],
)
def test_what_computes_otherwise_is_refused(members, change, code: str, tmp_path: Path) -> None:
    with raises_code(ArtefactError, code, "model.keras"):
        load(write(tmp_path / "model.keras", change(members)))


def test_the_page_of_a_model_states_what_its_card_holds(tiny_run: Path) -> None:
    artefact = load(tiny_run / "model.keras")
    card = artefact.card
    text = "\n".join(summary.lines(artefact))
    assert text.startswith("intact, not signed: ")
    assert "VERIFIED" not in text
    for stated in (
        artefact.sha256,
        f"{artefact.model.count_params():,} parameters",
        card.preprocess.name,
        card.names[0],
        card.intended_use,
        *card.versions.values(),
    ):
        assert stated in text
    for point in card.operating_points:
        assert f"{point.threshold:.4g}"[:5] in text
    odd = dataclasses.replace(
        artefact, card=card.model_copy(update={"intended_use": "a\x1b[2Jb\x07"})
    )
    last = summary.lines(odd)[-1]
    assert last.startswith(INTENDED_USE)
    assert last.endswith('states, unchecked by medres: "a\\x1b[2Jb\\x07"')
    content = summary.as_dict(artefact)
    assert (content["verified"], content["sha256"], content["card"]["names"]) == (
        True,
        artefact.sha256,
        card.names,
    )
    assert (content["origin"], content["signer"]) == ("intact, not signed", None)


@pytest.mark.parametrize(
    "claim",
    [
        "Cleared for diagnosis.",
        f'{INTENDED_USE} The author of this model states, unchecked by medres: "x" Cleared.',
        f"{INTENDED_USE} Cleared for diagnosis.",
        'For triage." Cleared for "diagnosis',
    ],
)
def test_what_an_author_claims_is_quoted_after_the_fixed_text(
    claim: str, members, tmp_path: Path
) -> None:
    forged = write(tmp_path / "model.keras", in_json("medres.json", intended_use=claim)(members))
    text = read_contents(forged).card.intended_use
    fixed = f"{INTENDED_USE} The author of this model states, unchecked by medres: "
    assert text.startswith(f'{fixed}"')
    assert text.endswith('"')
    assert text.removeprefix(fixed).count('"') == 2
    again = write(tmp_path / "model.keras", in_json("medres.json", intended_use=text)(members))
    assert read_contents(again).card.intended_use == text
    printed = medres("verify", forged)
    assert printed.exit_code == 0
    assert printed.stdout.startswith("intact, not signed: ")
    assert printed.stdout.splitlines()[-1] == text


def leaves(value, path: tuple = ()):
    """The path and value of every leaf of a JSON value."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, (*path, key))
    else:
        yield path, value


def test_a_card_of_which_any_value_was_changed_is_refused(members, tmp_path: Path) -> None:
    """By an editor, not by someone who also writes the checksums anew: that takes a signature to
    see.
    """
    card = json.loads(members["medres.json"])
    paths = list(leaves({key: value for key, value in card.items() if key != "members"}))
    assert {path[-1] for path, _ in paths} > {
        "rows",
        "cols",
        "fit",
        "kind",
        "spacing_mm",
        "threshold",
        "intended_use",
    }
    for path, value in paths:
        changed = json.loads(members["medres.json"])
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = (
            not value
            if isinstance(value, bool)
            else f"{value}x"
            if isinstance(value, str)
            else (value or 0) + 1
        )
        file = write(
            tmp_path / "model.keras",
            members | {"medres.json": json.dumps(changed).encode()},
            sign=False,
        )
        with pytest.raises(ArtefactError) as caught:
            read_members(file)
        assert caught.value.code in ("altered", "schema_version")
    again = json.dumps(
        card, indent=7, sort_keys=True
    ).encode()  # other white space and order say the same
    read_members(write(tmp_path / "model.keras", members | {"medres.json": again}, sign=False))


def test_a_fresh_process_with_plain_keras_gives_the_same_probabilities(
    tiny_run: Path, tmp_path: Path
) -> None:
    """As `save` does; the fixture that replaces it in all other tests is not used here. The code of
    a process that fails is in graph/test_rebuild.
    """
    script = f"""
from pathlib import Path
import numpy as np
from medres.artefact import golden_vectors
from medres.artefact.archive import read_contents
path = Path({str(tiny_run / "model.keras")!r})
contents = read_contents(path)
inputs, spec = contents.inputs, contents.card.preprocess
outputs = golden_vectors.outputs_in_plain_keras(path, inputs, spec)
print(golden_vectors.compare(outputs, contents.outputs))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    assert float(done.stdout) <= 1e-6


def test_save_leaves_the_old_file_where_plain_keras_disagrees(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefact = load(tiny_run / "model.keras")
    path = tmp_path / "model.keras"
    path.write_bytes(b"the old one")
    monkeypatch.setattr(
        golden_vectors, "outputs_in_plain_keras", lambda path, inputs, spec: np.zeros((2, 1))
    )
    with raises_code(ArtefactError, "outputs_differ"):
        save(path, artefact.model, artefact.card)
    assert path.read_bytes() == b"the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["model.keras"]


def test_what_plain_keras_saved_again_is_explained(members, tmp_path: Path) -> None:
    import keras

    path = write(tmp_path / "model.keras", members)
    keras.saving.load_model(path).save(tmp_path / "again.keras")
    with raises_code(ArtefactError, "resaved_by_keras"):
        load(tmp_path / "again.keras")


def test_flipped_bits_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    data = (tiny_run / "model.keras").read_bytes()
    valid, path = members_of(tiny_run / "model.keras"), tmp_path / "model.keras"
    refused = 0
    for index in np.random.default_rng(0).integers(0, len(data), 300):
        changed = bytearray(data)
        changed[index] ^= 0x10
        path.write_bytes(changed)
        try:
            read_contents(path)
        except ArtefactError:
            refused += 1
            continue
        # A bit that the zip format ignores (a time stamp, a flag) may change: the content may not.
        assert members_of(path) == valid
    assert refused > 290


def test_other_suffixes_and_what_is_no_file_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_run / "model.keras", tmp_path / "model.h5")
    (tmp_path / "folder.keras").mkdir()
    os.mkfifo(tmp_path / "pipe.keras")
    for name, code in {
        "model.h5": "wrong_suffix",
        "absent.keras": "no_such_file",
        "folder.keras": "not_a_file",
        "pipe.keras": "not_a_file",
    }.items():
        with raises_code(ArtefactError, code, name):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((32, 32, 1), {"shortcut": "A"}),
        ((32, 32, 1), {"version": "2", "norm": "group"}),
        ((32, 32, 3), {"version": "d", "squeeze_excite": True, "stochastic_depth": 0.1}),
        ((32, 32, 1), {"block": "bottleneck", "cardinality": 4, "group_width": 32}),
        ((33, 47, 1), {"stem": "imagenet", "version": "1"}),
        ((16, 16, 16, 1), {"windows": ["lung", "bone"]}),
    ],
)
def test_the_weights_of_everything_that_the_builder_draws_are_foreseen(
    shape: tuple, options: dict
) -> None:
    from collections import Counter

    from medres import classifier
    from medres.artefact.graph_check import weight_shapes

    options = {"stem": "small"} | options
    model = classifier("resnet10", shape, 1, width=8, activation="sigmoid", **options)
    assert weight_shapes(json.loads(model.to_json())) == Counter(
        tuple(v.shape) for v in model.weights
    )


def test_a_model_inside_a_model_is_foreseen() -> None:
    from collections import Counter

    import keras

    from medres import classifier
    from medres.artefact.graph_check import weight_shapes

    parts = [
        classifier("resnet10", (32, 32, 1), 1, stem="small", width=8, name=f"part{i}")
        for i in range(2)
    ]
    image = keras.Input((32, 32, 1))
    model = keras.Model(image, keras.layers.Average()([part(image) for part in parts]))
    assert weight_shapes(json.loads(model.to_json())) == Counter(
        tuple(v.shape) for v in model.weights
    )
