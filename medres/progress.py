"""Progress for people: bars on a terminal, lines in a notebook and in a log, or nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Update = Callable[..., None]  # (done, total, note=""): note is shown beside the bar


class ProgressReporter:
    """Says nothing. `task` yields update(done, total, note); `line` reports one finished thing."""

    live = False  # whether notes are shown, so that no one need make them

    @contextlib.contextmanager
    def task(self, name: str) -> Iterator[Update]:
        yield lambda done, total, note="": None

    def line(self, text: str) -> None:
        pass


class Bars(ProgressReporter):
    """Rich progress bars on a terminal, and lines everywhere: on standard error, in a notebook on
    standard output.
    """

    def __init__(self) -> None:
        from rich.console import Console

        notebook = in_notebook()
        self.live = not notebook and sys.stderr.isatty()
        self._console = Console(
            stderr=not notebook, highlight=False, force_jupyter=False, force_terminal=self.live
        )

    @contextlib.contextmanager
    def task(self, name: str) -> Iterator[Update]:
        from rich import progress

        if not self.live:
            yield lambda done, total, note="": None
            return
        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
            progress.TextColumn("{task.fields[note]}"),
        )
        with progress.Progress(*columns, console=self._console) as bars:
            bar = bars.add_task(name, total=None, note="")
            yield lambda done, total, note="": bars.update(
                bar, completed=done, total=total, note=note
            )

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def in_notebook() -> bool:
    """Whether a kernel runs this process; that somebody imported its package says nothing."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None
