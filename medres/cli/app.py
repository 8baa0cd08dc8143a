"""The command line: thin verbs over the same functions that people call from Python.

Exit code 0 on success, 2 on wrong usage, 1 on failure with one clear line on standard error.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

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


class _Verbs(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the work; typer would put the groups of verbs last."""
        names = [name for name in super().list_commands(ctx) if name != "serve"]
        at = names.index("parity") + 1
        return [*names[:at], "serve", *names[at:]]


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Residual networks for medical images: from DICOM files to a diagnostic report. Research "
    "use only; not a medical device.",
)
study = typer.Typer(no_args_is_help=True)


class _Serve(TyperGroup):
    """`medres serve MODEL...` is `medres serve run MODEL...`, and shown without `run`."""

    default_verb = "run"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_named = args and args[0] in self.commands
        return super().parse_args(ctx, args if is_named else [self.default_verb, *args])


class _DefaultVerb(TyperCommand):
    """The verb of a group that is shown under the name of the group."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        if parent is not None and parent.parent is not None:
            info_name, parent = parent.info_name, parent.parent
        return super().make_context(info_name, args, parent, **extra)


server = typer.Typer(cls=_Serve)


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


@server.callback()
def serve() -> None:
    """Serve models beside a PACS; with audit, doctor, pull and retry."""


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
    experiments_commands.search,
    evaluate_commands.evaluate,
    serve_commands.verify,
    serve_commands.predict,
    serve_commands.export,
    serve_commands.parity,
    server_commands.serve_audit,
    data_commands.wrap,
    train_commands.demo,
)
for function in VERBS:
    app.command()(verb(function))
app.add_typer(server, name="serve")
server.command("run", cls=_DefaultVerb)(verb(server_commands.serve))
server.command("audit")(verb(server_commands.serve_audit))
server.command("doctor")(verb(server_commands.server_doctor))
server.command()(verb(server_commands.pull))
server.command()(verb(server_commands.retry))
app.add_typer(study, name="study")
study.command()(verb(experiments_commands.depth))
study.command()(verb(experiments_commands.gradients))
