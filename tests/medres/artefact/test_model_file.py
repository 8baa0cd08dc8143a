"""A model file is read once: what is hashed is what is checked, verified and opened."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code
from hostile import members_of, write

import medres
from medres.artefact import archive, model_file, validation
from medres.artefact.archive import load, read_contents
from medres.artefact.model_file import opened, private_copy
from medres.errors import ArtefactError


@pytest.fixture
def two_models(tiny_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two valid files, told apart by a threshold."""
    members = members_of(tiny_run / "model.keras")
    card = json.loads(members["medres.json"])
    for point in card["operating_points"]:
        point["threshold"] = 0.125
    other = members | {"medres.json": json.dumps(card).encode()}
    return write(tmp_path / "a.keras", members), write(tmp_path / "b.keras", other)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_b(card) -> bool:
    return card.operating_points[0].threshold == 0.125


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (archive, "checked_members"),
        (archive, "parse_card"),
        (archive, "_open_with_keras"),
        (archive, "check_graph"),
    ],
)
def test_a_swap_at_any_step_of_start_up_changes_nothing(
    module, step: str, two_models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_models
    expected, original = sha256(first), getattr(module, step)

    def swapped_before(*arguments):
        if second.exists():
            second.replace(first)
        return original(*arguments)

    monkeypatch.setattr(module, step, swapped_before)
    predictor = medres.load(first)
    assert not second.exists()
    assert sha256(first) != expected
    assert predictor.artefact.sha256 == expected
    assert not is_b(predictor.card)


def test_hash_and_card_belong_together_while_the_file_is_swapped(
    two_models: tuple[Path, Path], tmp_path: Path
) -> None:
    contents = [path.read_bytes() for path in two_models]
    hash_of_b, served, done = sha256(two_models[1]), tmp_path / "served.keras", threading.Event()
    served.write_bytes(contents[0])

    def deploy() -> None:
        for number in itertools.count():
            if done.is_set():
                return
            new = tmp_path / "new"
            new.write_bytes(contents[number % 2])
            new.replace(served)

    thread = threading.Thread(target=deploy)
    thread.start()
    try:
        seen = set()
        for _ in range(40):
            with private_copy(served) as file:
                card = archive.contents_of(file).card
            assert is_b(card) == (file.sha256 == hash_of_b)
            seen.add(file.sha256)
    finally:
        done.set()
        thread.join()
    assert len(seen) == 2


def test_a_file_overwritten_while_it_is_read_is_refused(
    two_models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not replaced, but written over: half of the old bytes, half of the new ones."""
    path = two_models[0]
    size = path.stat().st_size
    monkeypatch.setattr(model_file, "_CHUNK", size // 2)
    original = hashlib.sha256

    class Overwriting:
        def __init__(self) -> None:
            self.digest = original()

        def update(self, piece: bytes) -> None:
            self.digest.update(piece)
            path.write_bytes(b"\0" * size)

        def hexdigest(self) -> str:
            return self.digest.hexdigest()

    monkeypatch.setattr(
        model_file, "hashlib", type("", (), {"sha256": staticmethod(lambda: Overwriting())})
    )
    with raises_code(ArtefactError, "not_a_zip", "a.keras"):
        read_contents(path)


def test_the_copy_is_private_and_removed(two_models: tuple[Path, Path]) -> None:
    with private_copy(two_models[0]) as file:
        assert file.sha256 == sha256(two_models[0]) == sha256(file.path)
        assert file.path.parent.stat().st_mode & 0o077 == 0
    assert not file.path.exists()


def test_a_file_that_grows_past_the_limit_while_it_is_read_is_refused(
    two_models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_file, "MAX_FILE", 1000)  # the check before reading has its own limit
    with raises_code(ArtefactError, "file_too_large", "a.keras"), private_copy(two_models[0]):
        pass


def test_what_cannot_be_opened_has_a_code(tmp_path: Path) -> None:
    loop = tmp_path / "loop.keras"
    loop.symlink_to(loop)
    with raises_code(ArtefactError, "not_readable", "loop.keras"):
        load(loop)
    for absent in (tmp_path / "file" / "a.keras", tmp_path / "a\0b.keras"):
        (tmp_path / "file").write_bytes(b"")
        with raises_code(ArtefactError, "no_such_file"):
            load(absent)
    with raises_code(ArtefactError, "file_too_large", "1,024"):
        large = tmp_path / "large.keras"
        with large.open("wb") as file:
            file.truncate(model_file.MAX_FILE + 1)
        opened(large)


def test_a_full_disk_is_no_raw_exception(
    two_models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(validation, "_copy_hashed", full)
        with raises_code(ArtefactError, "no_space", "a.keras"):
            read_contents(two_models[0])
    target = type("", (), {"write": full, "flush": full})()
    with two_models[0].open("rb") as source, raises_code(ArtefactError, "no_space", "a.keras"):
        model_file._copy_hashed(source, target, "a.keras")


def test_outputs_are_those_of_the_file_that_was_read(two_models: tuple[Path, Path]) -> None:
    contents, artefact = read_contents(two_models[1]), load(two_models[1])
    assert artefact.sha256 == sha256(two_models[1])
    scored = np.asarray(artefact.model(contents.inputs[..., None] * contents.card.preprocess.scale))
    np.testing.assert_allclose(scored, contents.outputs, atol=1e-6)
