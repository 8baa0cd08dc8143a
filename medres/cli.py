"""The command line: thin verbs over the same functions that people call from Python.

Exit code 0 on success, 2 on wrong usage, 1 on failure with one clear line on standard error.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated

import typer

from medres.commands import data, looking, models, serving, studies
from medres.console import DEBUG, verb

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Residual networks for medical images: from DICOM files to a diagnostic report. Research use only; not a medical device.",
)
study = typer.Typer(no_args_is_help=True, help="Why residual learning works, on one's own pictures.")


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    if debug:
        os.environ[DEBUG] = "1"


@study.callback()
def studies_of() -> None:
    """Why residual learning works, on one's own pictures."""


def _hang_up(*functions: Callable[..., None]) -> None:
    for function in functions:
        app.command()(verb(function))


_hang_up(data.ingest, data.cache, models.plan, models.train)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def evaluate(context: typer.Context) -> None:
    """The diagnostic report; the same as python -m medres.evaluate."""
    from medres.evaluate.__main__ import main

    raise typer.Exit(main(context.args))


_hang_up(serving.verify, serving.predict, serving.export, serving.parity)
_hang_up(data.wrap, models.demo, looking.doctor, looking.inspect)
app.add_typer(study, name="study")
study.command()(verb(studies.depth))
study.command()(verb(studies.gradients))
