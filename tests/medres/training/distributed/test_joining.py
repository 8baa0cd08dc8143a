"""A process joins its workers, or trains alone, and passes errors on."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import pytest
import tensorflow as tf
from helpers import raises_code

from medres.errors import TrainingError
from medres.training.distributed import joining
from medres.training.distributed.joining import ALONE, Membership, join, membership, refuse_workers
from medres.training.distributed.team import ERROR, Workers, receive, send

ALONE_IN_RAY = {
    "TF_CONFIG": json.dumps(
        {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}
    )
}
TWO = {
    "TF_CONFIG": json.dumps(
        {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    )
}


def test_a_process_alone_has_no_strategy_over_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert join({}) is ALONE
    with membership({}) as member:
        assert (member.team.size, member.strategy) == (1, None)
    monkeypatch.setenv(joining.LEGACY, "1")
    assert join(ALONE_IN_RAY) is ALONE  # Ray Train with one worker
    assert joining.LEGACY not in os.environ
    refuse_workers("a search", ALONE_IN_RAY)
    with raises_code(TrainingError, "one_process"):
        refuse_workers("a search", TWO)


def test_tensorflow_that_has_started_cannot_join() -> None:
    tf.zeros(1)
    with raises_code(TrainingError, "strategy_too_late"):
        join(TWO)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch):
    """This process as the chief, and the line of the other worker."""
    ours, theirs = socket.socketpair()
    chief = Workers(0, 2, {1: ours})
    monkeypatch.setattr(chief, "begin", lambda: None)
    monkeypatch.setattr(joining, "join", lambda environment: Membership(chief, None))
    monkeypatch.setattr(joining, "REPORT_SECONDS", 0.2)
    yield theirs
    ours.close()
    theirs.close()


def told(line: socket.socket) -> dict[str, Any]:
    kind, content = receive(line)
    assert kind == ERROR
    return json.loads(content)


def test_an_error_here_is_told_to_the_others(pair: socket.socket) -> None:
    with raises_code(TrainingError, "not_finite"), membership({}):
        raise TrainingError("the loss is not finite", code="not_finite")
    assert told(pair) == {"rank": 0, "code": "not_finite", "text": "the loss is not finite"}


def test_a_collective_that_was_cut_off_ends_with_the_error_of_the_other_worker(
    pair: socket.socket,
) -> None:
    send(pair, ERROR, b'{"rank": 1, "code": "no_space", "text": "the disk is full"}')
    with raises_code(TrainingError, "no_space", "worker 1"), membership({}):
        raise tf.errors.UnavailableError(None, None, "socket closed")
    assert told(pair)["code"] == "no_space"


def test_a_worker_that_is_gone_is_told_from_a_fault_here(pair: socket.socket) -> None:
    with pytest.raises(tf.errors.InternalError), membership({}):  # the other one still lives
        raise tf.errors.InternalError(None, None, "a kernel failed")
    assert told(pair)["code"] == "worker_failed"
    pair.close()
    with raises_code(TrainingError, "worker_lost"), membership({}):
        raise tf.errors.InternalError(None, None, "a collective failed")
