"""What every command shares: one clear line for an error, and text or JSON for a result."""

from __future__ import annotations

import errno
import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from data_pipelines.errors import DicomError
from data_pipelines.runtime.plain_text import escaped, json_text
from medres.errors import MedresError

DEBUG = "MEDRES_DEBUG"

#: Error code -> anchor of the heading of docs/troubleshooting.md that says more about it.
EXPLAINED = {
    "no_tensorflow": "no_tensorflow",
    "two_tensorflows": "two_tensorflows",
    "no_image_left": "no_image_left",
    "labels_unmatched": "labels_unmatched",
    "semicolons": "semicolons",
    "no_key_column": "no_key_column",
    "no_finding": "no_finding",
    "bad_label": "no_finding",
    "duplicate_key": "duplicate_key",
    "split_leak": "split_leak",
    "too_few_patients": "too_few_patients",
    "source_changed": "source_changed",
    "no_space": "no_space",
    "other_run": "other_run",
    "one_class": "one_class",
    "resaved_by_keras": "resaved_by_keras",
    "several_studies": "several_studies",
}

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Limit = Annotated[
    list[str] | None,
    typer.Option(
        help="Limit per file: seconds=10 (of decoding), stall=300 (seconds without data from "
        "storage), memory=2GiB, file=1GiB, inflated=512MiB or depth=64. Repeatable."
    ),
]
EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option(
        help="Where the files are read: by workers of this machine, or by tasks on a Ray cluster. "
        'The results are the same. Ray needs: pip install "medres[ray]".'
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="For --engine ray: a running cluster, or auto. Without it, one is started here.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, help="Number of files that are read at the same time; by default one a processor."
    ),
]
Work = Annotated[Path, typer.Argument(help="Work folder made by medres ingest.")]


def verb(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn every exception of a command into one line on standard error and exit code 1."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (typer.BadParameter, typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get(DEBUG) or kwargs.get("debug"):
                raise
            typer.echo(escaped(f"medres: {_sentence(error)}{_pointer(error)}"), err=True)
            raise typer.Exit(1) from None

    run.__doc__ = _help_text(function)
    return run


def _help_text(function: Callable[..., Any]) -> str:
    """The docstring with one line per paragraph, which the help then wraps to the terminal."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _sentence(error: BaseException) -> str:
    if isinstance(error, DicomError | MedresError):
        return " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return (
            "interrupted; no incomplete output was left, and the same command resumes where that "
            "is possible"
        )
    if isinstance(error, MemoryError):
        return "out of memory: close other programs, or use a machine with more memory"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            "the disk is full; no incomplete output was left. Free some space and run the same "
            "command again"
        )
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__}: {error.filename or ''}".rstrip(": ")
    # The message of a fault of our own could hold a patient's data.
    return (
        f"internal error ({type(error).__name__}); run medres --debug for the traceback and report "
        f"it"
    )


def _pointer(error: BaseException) -> str:
    """The place in the documentation that explains an error, or ''."""
    anchor = EXPLAINED.get(getattr(error, "code", ""))
    return "" if anchor is None else f" [docs/troubleshooting.md#{anchor}]"


def report(result: Any, as_json: bool, lines: list[str]) -> None:
    """Print `result` as JSON, or each of `lines` as one line of text, on standard output. Control
    characters are escaped: names come from model files, tables and DICOM.
    """
    typer.echo(
        json_text(result, indent=1, default=str) if as_json else "\n".join(map(escaped, lines))
    )
