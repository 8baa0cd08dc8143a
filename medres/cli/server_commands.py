"""The verbs about a server: serve, serve-audit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_pipelines.errors import InputError
from medres.cli.console import Json, report
from medres.errors import ServeError

if TYPE_CHECKING:
    from medres.serve.server import Server
    from medres.serve.settings import Settings

Spool = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the server: received files, database, key, audit log. Default: "
        "~/.local/state/medres/spool."
    ),
]


def serve(
    model: Annotated[list[Path], typer.Argument(help="Model files: model.keras of runs.")],
    http: Annotated[str, typer.Option(help="HOST:PORT of HTTP; off = none.")] = "127.0.0.1:8080",
    dicom: Annotated[
        str | None, typer.Option(help="HOST:PORT of DICOM (C-STORE, C-ECHO); needs --allow-aet.")
    ] = None,
    aet: Annotated[str, typer.Option(help="AE title of this server.")] = "MEDRES",
    allow_aet: Annotated[
        list[str] | None,
        typer.Option(help="AE title that may send, as NAME or NAME@IP. Repeatable."),
    ] = None,
    watch: Annotated[
        Path | None, typer.Option(help="Folder whose new files are taken in and moved.")
    ] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(help="Folder below which a client may name a path. Repeatable."),
    ] = None,
    spool: Spool = None,
    quiet_seconds: Annotated[
        float, typer.Option(min=0, help="A study is complete so long after its last new image.")
    ] = 60.0,
    token_file: Annotated[
        Path | None, typer.Option(help="File (mode 0600) with the token that clients must send.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(help="PEM file of the signer's key; the signature is MODEL.keras.sig."),
    ] = None,
    unsigned: Annotated[
        bool,
        typer.Option("--unsigned", help="Serve unsigned models to other machines as well."),
    ] = False,
    keep_hours: Annotated[
        float, typer.Option(min=0, help="Received files are removed so long after sending.")
    ] = 24.0,
    max_spool: Annotated[
        str, typer.Option(help="Bytes of received files that are held, such as 20GiB.")
    ] = "20GiB",
    queue: Annotated[
        int, typer.Option(min=1, help="Studies that may wait; further ones are sent away.")
    ] = 256,
) -> None:
    """Serve models beside a PACS: studies come in over HTTP, DICOM or a folder, and a result is
    given for each. Nothing acknowledged is lost in a crash. Research use only; not a medical
    device.

    Without options only programs of this machine can reach the server. Ctrl-C or SIGTERM stops it
    when what has begun is done; SIGHUP reads the model files again.
    """
    _require_packages()
    from data_pipelines.runtime.limits import parse_limits
    from medres.serve.server import Server
    from medres.serve.settings import Settings, parse_address, parse_peer, read_token
    from medres.serve.spool import Capacity

    settings = Settings(
        models=tuple(model),
        spool=spool or default_spool(),
        http=None if http == "off" else parse_address(http),
        dicom=parse_address(dicom) if dicom else None,
        aet=aet,
        peers=tuple(map(parse_peer, allow_aet or ())),
        watch=watch,
        roots=tuple(root or ()),
        quiet_seconds=quiet_seconds,
        token=read_token(token_file) if token_file else None,
        tls_certificate=tls_cert,
        tls_key=tls_key,
        public_key=public_key,
        allow_unsigned=unsigned,
        keep_hours=keep_hours,
        capacity=Capacity(queue, int(parse_limits([f"bytes={max_spool}"])["bytes"])),
    )
    server = Server(settings)
    server.handle_signals()
    for line in _greeting(server, settings):
        typer.echo(line)
    server.run()


def _greeting(server: Server, settings: Settings) -> list[str]:
    from medres.artefact.card import INTENDED_USE
    from medres.serve.results import UNSIGNED

    return [
        INTENDED_USE,
        *([] if server.is_signed else [UNSIGNED]),
        *(f"model {one.facts.sha256[:16]}" for one in server.scheduler.models),
        *(f"listening on {a}" for a in (server.http_address, server.dicom_address) if a),
        *(
            [f"page for people: open {server.http_address}/ in a browser"]
            if server.http_address
            else []
        ),
        *([f"watching {settings.watch}"] if settings.watch else []),
        f"spool {settings.spool}",
    ]


def serve_audit(
    action: Annotated[str, typer.Argument(help="verify, or show.")] = "verify",
    spool: Spool = None,
    as_json: Json = False,
) -> None:
    """Check the audit log of a server, or print its events. The exit code is 1 if
    a row is missing or was altered.
    """
    if action not in ("verify", "show"):
        raise typer.BadParameter("give verify or show")
    _require_packages()
    from medres.serve.audit import open_log

    folder = spool or default_spool()
    if not (folder / "spool.db").is_file():
        raise InputError(f"{folder} is no spool of medres serve", code="no_spool")
    log = open_log(folder)
    state = log.verify()
    events = log.events() if action == "show" else []
    lines = [f"{e['number']} {e['at']:.3f} {e['event']} {e['fields']}" for e in events]
    lines.append(f"{state.n_events} events, unbroken; head {state.head}")
    report({**state._asdict(), "events": events}, as_json, lines)


def default_spool() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(home) / "medres" / "spool"


def _require_packages() -> None:
    try:
        import prometheus_client
        import pynetdicom
        import python_multipart
        import starlette
        import uvicorn
    except ImportError:
        raise ServeError(
            'the server needs more packages: run pip install "medres[serve]"',
            code="package_missing",
        ) from None
    del prometheus_client, pynetdicom, python_multipart, starlette, uvicorn
