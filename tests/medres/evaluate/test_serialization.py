"""From dataclasses to JSON values."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass, field

import numpy as np

from medres.evaluate.serialization import ABSENT, INLINE, to_plain
from medres.evaluate.statistics.estimate import Estimate, undefined


@dataclass(frozen=True)
class Inner:
    x: int
    y: float | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class Outer:
    first: int | None
    inner: Inner | None = field(metadata=INLINE)
    nested: Inner | None
    named: int = field(default=0, metadata={"key": "class"})


def test_fields_become_keys_in_their_order() -> None:
    outer = Outer(None, Inner(1, 0.5), Inner(2))
    assert to_plain(outer) == {"first": None, "x": 1, "y": 0.5, "nested": {"x": 2}, "class": 0}
    assert list(to_plain(outer)) == ["first", "x", "y", "nested", "class"]
    assert to_plain(Outer(1, None, None)) == {"first": 1, "nested": None, "class": 0}


def test_numbers_are_plain_and_never_nan() -> None:
    values = {
        1: np.float32(0.5),
        "n": np.int64(3),
        "bad": [math.nan, math.inf],
        "b": np.bool_(True),
    }
    assert to_plain(values) == {"1": 0.5, "n": 3, "bad": [None, None], "b": True}
    assert to_plain(np.array([[1.0, -np.inf]])) == [[1.0, None]]
    assert [type(v) for v in to_plain((np.float64(1), np.int8(1)))] == [float, int]
    assert to_plain(datetime.date(2020, 1, 2)) == "2020-01-02"


def test_an_estimate_becomes_its_e_object() -> None:
    assert to_plain(undefined("no unit", n=0)) == {
        "estimate": None, "ci_low": None, "ci_high": None, "n": 0, "why": "no unit"
    }  # fmt: skip
    assert to_plain([Estimate(1.0, 0.5, 1.0)]) == [{"estimate": 1.0, "ci_low": 0.5, "ci_high": 1.0}]
