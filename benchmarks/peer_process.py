"""A process that trains one of two nets, for benchmarks in which the two take turns."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any


class PeerProcess:
    """It answers each line with a line of JSON."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, what: str) -> Any:
        assert self.process.stdin is not None  # noqa: S101
        assert self.process.stdout is not None  # noqa: S101
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())
