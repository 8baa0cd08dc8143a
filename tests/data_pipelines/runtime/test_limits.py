from __future__ import annotations

import pytest
from helpers import raises_code

from data_pipelines.errors import InputError
from data_pipelines.runtime.limits import Limits, active_limits, limited, parse_limits


def test_limits_hold_inside_the_block_and_nest() -> None:
    assert active_limits() == Limits(10, 2 << 30, 1 << 30, 512 << 20, 64)
    with limited(seconds=3) as outer:
        with limited(depth=9):
            assert (active_limits().seconds, active_limits().depth) == (3, 9)
        assert active_limits() == outer
    assert active_limits() == Limits()


@pytest.mark.parametrize(
    "changes", [{"CPU": 1}, {"seconds": 0}, {"memory": -5}, {"depth": float("nan")}]
)
def test_limits_that_mean_nothing(changes: dict) -> None:
    with raises_code(InputError, "limits", *changes), limited(**changes):
        pass
    assert active_limits() == Limits()


def test_texts_of_the_command_line() -> None:
    texts = ["seconds=0.5", "memory=4GiB", "file = 10M", "inflated=1024", "depth=3"]
    assert parse_limits(texts) == {
        "seconds": 0.5,
        "memory": 4 << 30,
        "file": 10 << 20,
        "inflated": 1024,
        "depth": 3,
    }
    for text in ("seconds", "seconds=", "seconds=x", "memory=4TiB", "=3G="):
        with raises_code(InputError, "limits", repr(text)):
            parse_limits([text])
