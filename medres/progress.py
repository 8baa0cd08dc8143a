"""Progress of long tasks: bars on a terminal, lines in a notebook or in a log, or nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

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
    """Rich progress bars on a terminal, and lines everywhere, on standard error (in a notebook on
    standard output).
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
            yield lambda completed, total, note="": None
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
        self._console.print(text, markup=False, soft_wrap=True)


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process. An imported IPython alone is not a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None
