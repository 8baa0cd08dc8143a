"""The command line: thin verbs over the same functions that people call from Python.

Exit code 0 on success, 2 on wrong usage, 1 on failure with one clear line on standard error.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated

import typer

import medres
from medres.cli import (
    data_commands,
    evaluate_commands,
    experiments_commands,
    inspect_commands,
    serve_commands,
    server_commands,
    train_commands,
)
from medres.cli.console import DEBUG, verb

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Residual networks for medical images: from DICOM files to a diagnostic report. Research "
    "use only; not a medical device.",
)
study = typer.Typer(no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medres {medres.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    if debug:
        os.environ[DEBUG] = "1"


@study.callback()
def experiments() -> None:
    """Experiments on your own images: why residual connections work."""


#: In the order of the work, which is that of `medres --help`.
VERBS: tuple[Callable[..., None], ...] = (
    inspect_commands.doctor,
    data_commands.ingest,
    inspect_commands.inspect,
    data_commands.cache,
    train_commands.plan,
    inspect_commands.weights,
    train_commands.train,
    evaluate_commands.evaluate,
    serve_commands.verify,
    serve_commands.predict,
    serve_commands.export,
    serve_commands.parity,
    server_commands.serve,
    server_commands.serve_audit,
    data_commands.wrap,
    train_commands.demo,
)
for function in VERBS:
    app.command()(verb(function))
app.add_typer(study, name="study")
study.command()(verb(experiments_commands.depth))
study.command()(verb(experiments_commands.gradients))
