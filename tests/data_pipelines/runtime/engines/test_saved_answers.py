"""Answers on disk: what comes back, and what is not taken for an answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from data_pipelines.errors import Unreadable
from data_pipelines.runtime.engines.saved_answers import SavedAnswers
from data_pipelines.runtime.limits import limited


class Pair(NamedTuple):
    first: float
    second: tuple[str, ...]


@dataclass
class Answer:
    name: str
    data: bytes | None
    values: np.ndarray
    uids: frozenset[str]
    pairs: list[Pair]
    shares: dict[str, float]


@pytest.fixture
def saved(tmp_path: Path) -> SavedAnswers:
    return SavedAnswers(tmp_path / "parts", ("function",), (Pair, Answer))


def own_path(item: Path) -> list[str]:
    return [str(item)]


def test_answers_come_back_as_they_were(saved: SavedAnswers) -> None:
    values = np.arange(6, dtype=np.int16).reshape(2, 3)
    pair = Pair(float("nan"), ("a", "ü"))
    answer = Answer("n", b"\0\xff", values, frozenset({"b", "a"}), [pair], {"x": 0.1})
    saved.write("p.answers", [answer, None, Unreadable("gone"), np.float32(0.5)])
    first, second, third, fourth = saved.read("p.answers", 4)
    assert first is not None
    assert (first[0].name, first[0].data, first[0].uids) == ("n", b"\0\xff", answer.uids)
    assert repr(first[0].pairs) == repr([pair])
    assert first[0].shares == {"x": 0.1}
    np.testing.assert_array_equal(first[0].values, values, strict=True)
    assert second == (None,)  # an answer; an error is none, since another run may have another
    assert third is None
    assert fourth == (0.5,)


@pytest.mark.parametrize("at", [0, 70, -3])
def test_a_damaged_file_holds_no_answer(saved: SavedAnswers, at: int) -> None:
    saved.write("p.answers", ["answer"] * 3)
    path = saved.folder / "p.answers"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert saved.read("p.answers", 3) == [None] * 3
    assert saved.read("other.answers", 2) == [None] * 2


def test_what_gives_a_part_another_name(saved: SavedAnswers, tmp_path: Path) -> None:
    items = [tmp_path / "a", tmp_path / "b"]
    for item in items:
        item.write_text("text")
    name = saved.name(items, own_path)
    assert saved.name(items, own_path) == name
    assert saved.name(items[:1], own_path) != name
    assert SavedAnswers(saved.folder, ("other",)).name(items, own_path) != name
    with limited(seconds=7):
        assert saved.name(items, own_path) != name
    items[1].write_text("another text")
    assert saved.name(items, own_path) != name
