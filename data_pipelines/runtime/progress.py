"""Progress of long tasks: bars on a terminal, lines with the time left in a notebook or in a log,
or nothing.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from data_pipelines.runtime.plain_text import escaped

FIRST_LINE_S, LINE_S = 10.0, 30.0
Update = Callable[..., None]  # update(completed, total, note=""); the note is beside the bar


class ProgressReporter:
    """Prints nothing. Subclasses print progress bars and lines.

    live: whether notes are shown; if not, callers need not compute them.

    >>> with ProgressReporter().task("epoch 1") as update:
    ...     update(3, 10)
    """

    live = False

    @contextlib.contextmanager
    def task(self, name: str) -> Iterator[Update]:
        """A context for one task. It yields update(completed, total, note="")."""
        yield lambda completed, total, note="": None

    def line(self, text: str) -> None:
        """Print a line about something that is finished."""


class Bars(ProgressReporter):
    """Rich progress bars on a terminal, lines elsewhere, on standard error (in a notebook on
    standard output). A task of less than FIRST_LINE_S seconds writes no line.
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
            lines = _Lines(name, self.line)
            yield lines.update
            lines.finish()
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
            yield lambda completed, total, note="": bars.update(
                bar, completed=completed, total=total, note=note
            )

    def line(self, text: str) -> None:
        self._console.print("\n".join(map(escaped, text.split("\n"))), markup=False, soft_wrap=True)


class _Lines:
    """Says from time to time how far a task is and how long it will still take: first after
    FIRST_LINE_S seconds, then every LINE_S seconds, in long tasks more rarely.
    """

    def __init__(self, name: str, write: Callable[[str], None]) -> None:
        self._name, self._write = name, write
        self._start = self._updated = self._last = time.monotonic()
        self._base = self._done = self._total = 0
        self._silent = True

    def update(self, completed: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if total != self._total or completed < self._done:  # the next part of the task
            self._start, self._base, self._total = self._updated, max(0, completed - 1), total
        self._done, self._updated = completed, now
        elapsed = now - self._start
        pause = FIRST_LINE_S if self._silent else max(LINE_S, elapsed / 10)
        if now - self._last < pause or completed >= total or completed == self._base:
            return
        left = elapsed * (total - completed) / (completed - self._base)
        self._write(
            f"{self._name}: {completed:,} of {total:,} ({100 * completed // total} %), about "
            f"{duration(left)} left"
        )
        self._last, self._silent = now, False

    def finish(self) -> None:
        """The last line of a task that wrote others."""
        if not self._silent:
            self._write(f"{self._name}: {self._done:,} of {self._total:,} done")


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(8.2), duration(187), duration(7500)
    ('8 s', '3 min', '2 h 5 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process. An imported IPython alone is not a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None
