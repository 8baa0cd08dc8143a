"""The verbs about a server: serve, with audit, doctor, pull and retry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_pipelines.errors import InputError
from medres.cli.console import Json, report
from medres.errors import ServeError

if TYPE_CHECKING:
    from medres.serve.intake.client import ServerClient
    from medres.serve.server import Server
    from medres.serve.settings import Settings

Spool = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the server: received files, database, key, audit log. Default: "
        "~/.local/state/medres/spool."
    ),
]
PacsWeb = Annotated[
    str | None, typer.Option(help="URL of the PACS: STOW-RS for results, QIDO-RS and WADO-RS.")
]
PacsDimse = Annotated[
    str | None, typer.Option(help="HOST:PORT:AET of the PACS: C-STORE, C-FIND and C-MOVE.")
]
PacsAuthorization = Annotated[
    Path | None,
    typer.Option(
        help="File (mode 0600) with the value of the header Authorization for --pacs-dicomweb, "
        "such as Bearer ..."
    ),
]
PacsAuthority = Annotated[
    Path | None,
    typer.Option(help="PEM file with the authority of the PACS; with --pacs it asks for TLS."),
]
ServerUrl = Annotated[str, typer.Option("--server", help="The running server.")]
TokenFile = Annotated[
    Path | None, typer.Option(help="File (mode 0600) with the token of the server.")
]
ServerAuthority = Annotated[
    Path | None, typer.Option(help="PEM file with the authority of the server's certificate.")
]
DEFAULT_URL = "http://127.0.0.1:8080"


def serve(
    model: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL.keras", help="Model files: model.keras of runs."),
    ],
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
    pacs_dicomweb: PacsWeb = None,
    pacs: PacsDimse = None,
    pacs_auth_file: PacsAuthorization = None,
    pacs_ca: PacsAuthority = None,
    dicom_tls: Annotated[
        bool,
        typer.Option("--dicom-tls", help="DICOM over TLS, with --tls-cert and --tls-key."),
    ] = False,
    dicom_ca: Annotated[
        Path | None,
        typer.Option(help="PEM file: peers must show a certificate of this authority."),
    ] = None,
    objects: Annotated[
        bool,
        typer.Option(help="Make DICOM objects of each result: report, overlay, segmentation."),
    ] = True,
    fhir: Annotated[
        bool,
        typer.Option("--fhir", help="Also make a FHIR R4 DiagnosticReport with Observations."),
    ] = False,
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

    With --pacs-dicomweb or --pacs the results are sent to a PACS as DICOM objects. Beside it:
    medres serve audit, medres serve doctor, medres serve pull, medres serve retry.

    Without options only programs of this machine can reach the server. Ctrl-C or SIGTERM stops it
    when what has begun is done; SIGHUP reads the model files again.
    """
    _require_packages()
    from data_pipelines.runtime.limits import parse_limits
    from medres.serve.parts import MAKER
    from medres.serve.server import Server
    from medres.serve.settings import (
        Settings,
        parse_address,
        parse_pacs,
        parse_peer,
        read_secret,
        read_token,
    )
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
        pacs=parse_pacs(pacs) if pacs else None,
        pacs_dicomweb=pacs_dicomweb,
        pacs_authorization=read_secret(pacs_auth_file) if pacs_auth_file else None,
        pacs_ca=pacs_ca,
        dicom_tls=dicom_tls,
        dicom_ca=dicom_ca,
        maker=MAKER if objects else None,
        fhir=fhir,
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
        *(f"results go to {pacs}" for pacs in (settings.pacs_dicomweb, settings.pacs) if pacs),
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


def pull(
    study: Annotated[str, typer.Option(help="StudyInstanceUID.")],
    pacs_dicomweb: PacsWeb = None,
    pacs: PacsDimse = None,
    pacs_auth_file: PacsAuthorization = None,
    pacs_ca: PacsAuthority = None,
    aet: Annotated[
        str,
        typer.Option(help="AE title of the server, to which --pacs sends. The PACS must know it."),
    ] = "MEDRES",
    server: ServerUrl = DEFAULT_URL,
    token_file: TokenFile = None,
    server_ca: ServerAuthority = None,
    wait: Annotated[int, typer.Option(min=0, max=60, help="Seconds to wait for the answer.")] = 60,
    as_json: Json = False,
) -> None:
    """Bring a study from a PACS to the running server, and print its result. Give --pacs-dicomweb
    or --pacs.
    """
    _require_packages()
    if (pacs is None) == (pacs_dicomweb is None):
        raise typer.BadParameter("give --pacs-dicomweb or --pacs")
    from medres.progress import Bars
    from medres.serve.intake import pull as pulling
    from medres.serve.settings import Settings, parse_pacs, read_secret

    settings = Settings(
        models=(),
        spool=Path(),
        aet=aet,
        pacs=parse_pacs(pacs) if pacs else None,
        pacs_dicomweb=pacs_dicomweb,
        pacs_authorization=read_secret(pacs_auth_file) if pacs_auth_file else None,
        pacs_ca=pacs_ca,
    )
    client = _client(server, token_file, server_ca)
    with Bars().task("pull") as update:
        results = pulling.pulled(settings, study, client, wait=wait, progress=update)
    report(results, as_json, [_result_line(result) for result in results])


def server_doctor(
    spool: Spool = None,
    pacs_dicomweb: PacsWeb = None,
    pacs: PacsDimse = None,
    pacs_auth_file: PacsAuthorization = None,
    pacs_ca: PacsAuthority = None,
    aet: Annotated[str, typer.Option(help="AE title of this server.")] = "MEDRES",
    as_json: Json = False,
) -> None:
    """Check what the server needs: packages, spool, audit log, free space, and the PACS, if one is
    given. Also while the server runs. The exit code is 1 if a check fails.
    """
    _require_packages()
    from medres.serve.doctor import diagnose
    from medres.serve.settings import Settings, parse_pacs, read_secret

    settings = Settings(
        models=(),
        spool=spool or default_spool(),
        aet=aet,
        pacs=parse_pacs(pacs) if pacs else None,
        pacs_dicomweb=pacs_dicomweb,
        pacs_authorization=read_secret(pacs_auth_file) if pacs_auth_file else None,
        pacs_ca=pacs_ca,
    )
    checks = diagnose(settings)
    lines = [f"{'ok  ' if one.is_ok else 'FAIL'} {one.name}: {one.text}" for one in checks]
    report([one._asdict() for one in checks], as_json, lines)
    if not all(one.is_ok for one in checks):
        raise typer.Exit(1)


def retry(
    job: Annotated[
        list[str] | None, typer.Argument(help="Ids of dead letters. Without: list them.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    server: ServerUrl = DEFAULT_URL,
    token_file: TokenFile = None,
    server_ca: ServerAuthority = None,
    as_json: Json = False,
) -> None:
    """List the results that could not be made or delivered, or deliver them again."""
    client = _client(server, token_file, server_ca)
    letters = client.ask("GET", "/v1/dead-letters")
    jobs = [letter["id"] for letter in letters] if every else job or []
    for one in jobs:
        client.ask("POST", f"/v1/dead-letters/{one}/retry", b"")
    lines = [
        f"{one['id']} {one['failure']}, {one['n_sent']} of {one['n_objects']} objects delivered"
        for one in letters
    ]
    report(
        {"dead_letters": letters, "retried": jobs},
        as_json,
        [*lines, f"{len(letters)} dead letters, {len(jobs)} are tried again"],
    )


def _client(server: str, token_file: Path | None, authority: Path | None) -> ServerClient:
    from medres.serve.intake.client import ServerClient
    from medres.serve.settings import read_token

    return ServerClient(server, read_token(token_file) if token_file else None, authority)


def _result_line(result: dict[str, Any]) -> str:
    if result["predictions"] is None:
        return f"{result['id']}: not answered yet, see /v1/results/{result['id']}"
    answers = [
        f"refused: {one['refused']}"
        if one["refused"] is not None
        else ", ".join(f"{name} {value:.4f}" for name, value in one["probabilities"].items())
        for one in result["predictions"]
    ]
    return f"{result['id']}: revision {result['revision']}, {'; '.join(answers)}"


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
