"""What every command shares: one clear line for what goes wrong, and text or JSON for what goes
well.
"""

from __future__ import annotations

import errno
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from data_pipelines.errors import DicomError
from medres.errors import MedresError

DEBUG = "MEDRES_DEBUG"

#: Pieces of messages on which docs/troubleshooting.md says more, each under a heading of its own.
EXPLAINED = (
    "TensorFlow is not installed",
    "both tensorflow and tensorflow-cpu are installed",
    "No image is left of",
    "rows of the labels table matches one of the",
    "separates its columns with semicolons",
    "none of the key columns",
    "has no finding",
    "an earlier row has the same key",
    "lie in two",
    "patients cannot fill",
    "a source file changed since it was ingested",
    "make room or choose a smaller preset",
    "holds a run with another",
    "one class only",
    "that plain Keras saved again",
    "the files belong to more than one study",
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Limit = Annotated[
    list[str] | None,
    typer.Option(
        help="Limit of one file, repeatable: seconds=10 (of decoding), stall=300 (seconds without "
        "data from storage), memory=2GiB, file=1GiB, inflated=512MiB, depth=64."
    ),
]
Work = Annotated[Path, typer.Argument(help="Work folder made by medres ingest.")]


def verb(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what a command may raise into one line on standard error and exit code 1."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (DicomError, MedresError, OSError, KeyboardInterrupt) as error:
            if os.environ.get(DEBUG):
                raise
            sentence = _sentence(error)
            typer.echo(f"medres: {sentence}{_pointer(sentence)}", err=True)
            raise typer.Exit(1) from None

    return run


def _sentence(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return (
            "interrupted; nothing is half-written, and the same command goes on where that is "
            "possible"
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full; nothing is half-written. Make room and run the same command again"
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__}: {error.filename or ''}".rstrip(": ")
    return " ".join(str(error).split())


def _pointer(sentence: str) -> str:
    """Where the documentation says more about a message, or ''."""
    found = next((piece for piece in EXPLAINED if piece in sentence), None)
    return "" if found is None else f" [docs/troubleshooting.md#{found.lower().replace(' ', '-')}]"


def report(result: Any, as_json: bool, lines: list[str]) -> None:
    typer.echo(
        json.dumps(result, indent=1, allow_nan=False, default=str) if as_json else "\n".join(lines)
    )
