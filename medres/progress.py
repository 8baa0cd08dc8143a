"""Progress for people: bars on a terminal, lines in a notebook and in a log, or nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Update = Callable[[int, int], None]


class Progress:
    """Says nothing. `task` yields update(done, total); `line` reports one finished thing."""

    @contextlib.contextmanager
    def task(self, name: str) -> Iterator[Update]:
        yield lambda done, total: None

    def line(self, text: str) -> None:
        pass


class Bars(Progress):
    """Rich progress bars on a terminal, and lines everywhere: on standard error, in a notebook on standard output."""

    def __init__(self) -> None:
        from rich.console import Console

        notebook = "ipykernel" in sys.modules
        self._live = not notebook and sys.stderr.isatty()
        self._console = Console(stderr=not notebook, highlight=False, force_jupyter=False, force_terminal=self._live)

    @contextlib.contextmanager
    def task(self, name: str) -> Iterator[Update]:
        from rich import progress

        if not self._live:
            yield lambda done, total: None
            return
        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
        )
        with progress.Progress(*columns, console=self._console) as bars:
            bar = bars.add_task(name, total=None)
            yield lambda done, total: bars.update(bar, completed=done, total=total)

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
