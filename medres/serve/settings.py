"""What `medres serve` is told, and the rules that keep a careless start from being an open door."""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from data_pipelines.errors import InputError
from medres.serve.spool import Capacity

MIN_TOKEN = 32  # characters
MAX_AET = 16  # characters (PS3.5, VR AE)


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Peer(NamedTuple):
    """A DICOM application that may send: its AE title, and its IP address ('' = any)."""

    aet: str
    ip: str


class Pacs(NamedTuple):
    """A PACS that takes objects by C-STORE."""

    host: str
    port: int
    aet: str


DEFAULT_HTTP, DEFAULT_CAPACITY = Address("127.0.0.1", 8080), Capacity()


@dataclass(frozen=True)
class Settings:
    """models: model files; a signature lies beside each as NAME.sig. http, dicom: addresses; None
    = not served. peers: who may send by DICOM. roots: folders below which a client may name a path.
    max_upload: bytes of one request. requests_per_second: of one client address. maker: see
    `ModelOptions`. fhir: whether a FHIR bundle is made beside the DICOM objects. pacs,
    pacs_dicomweb: where objects are sent, at most one of them.
    pacs_authorization: value of the header Authorization. pacs_ca: PEM file with the authority of
    the certificate of the PACS; with `pacs` it asks for TLS. dicom_tls: DICOM over TLS with the
    certificate of HTTP. dicom_ca: PEM file with the authority of the certificates that peers must
    show.
    """

    models: tuple[Path, ...]
    spool: Path
    http: Address | None = DEFAULT_HTTP
    dicom: Address | None = None
    aet: str = "MEDRES"
    peers: tuple[Peer, ...] = ()
    watch: Path | None = None
    roots: tuple[Path, ...] = ()
    quiet_seconds: float = 60.0
    token: str | None = field(default=None, repr=False)
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    public_key: Path | None = None
    allow_unsigned: bool = False
    capacity: Capacity = DEFAULT_CAPACITY
    max_upload: int = 1 << 30
    predict_seconds: float = 600.0
    keep_hours: float = 24.0
    requests_per_second: float = 200.0
    maker: str | None = None
    fhir: bool = False
    pacs: Pacs | None = None
    pacs_dicomweb: str | None = None
    pacs_authorization: str | None = field(default=None, repr=False)
    pacs_ca: Path | None = None
    dicom_tls: bool = False
    dicom_ca: Path | None = None

    def __post_init__(self) -> None:
        """Raises InputError: no_intake, needs_tls_and_token, needs_peers, bad_aet, two_pacs,
        bad_certificate, fhir_without_objects.
        """
        if not (self.http or self.dicom or self.watch):
            raise InputError("nothing to serve: give --http, --dicom or --watch", code="no_intake")
        has_tls = self.tls_certificate is not None and self.tls_key is not None
        if self.http and not self.http.is_loopback and not (has_tls and self.token):
            raise InputError(
                f"--http {self.http} can be reached from other machines: give --tls-cert, "
                f"--tls-key and --token-file, or listen on 127.0.0.1",
                code="needs_tls_and_token",
            )
        self._check_dicom()
        if self.pacs is not None and self.pacs_dicomweb is not None:
            raise InputError(
                "give --pacs or --pacs-dicomweb: results are sent to one PACS", code="two_pacs"
            )
        if self.fhir and self.maker is None:
            raise InputError(
                "--fhir needs the DICOM objects, to which it refers: leave out --no-objects",
                code="fhir_without_objects",
            )
        if self.dicom_tls and not has_tls:
            raise InputError("--dicom-tls needs --tls-cert and --tls-key", code="bad_certificate")

    def _check_dicom(self) -> None:
        pacs = [self.pacs.aet] if self.pacs else []
        for title in (self.aet, *pacs, *(peer.aet for peer in self.peers)):
            if not 0 < len(title) <= MAX_AET or not title.isascii() or "\\" in title:
                raise InputError(
                    f"AE title {title!r}: use 1 to 16 characters of ASCII", code="bad_aet"
                )
        if self.dicom is None:
            return
        named = all(peer.ip for peer in self.peers)
        if not self.peers or not (named or self.dicom.is_loopback):
            raise InputError(
                "DICOM needs a list of who may send: --allow-aet NAME on a loopback address, "
                "--allow-aet NAME@IP on another",
                code="needs_peers",
            )

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can reach the server."""
        return all(address.is_loopback for address in (self.http, self.dicom) if address)

    @property
    def needs_signature(self) -> bool:
        return not self.is_local and not self.allow_unsigned

    def tls(self) -> ssl.SSLContext | None:
        """The TLS of HTTP, version 1.2 or later. Raises InputError (bad_certificate)."""
        return self._server_tls(None)

    def dimse_tls(self) -> ssl.SSLContext | None:
        """The TLS of the DICOM side (PS3.15 Annex B); None for plain TCP. Raises InputError
        (bad_certificate).
        """
        return self._server_tls(self.dicom_ca) if self.dicom_tls else None

    def pacs_tls(self) -> ssl.SSLContext | None:
        """The TLS towards the PACS, None without `pacs_ca`. This server shows its certificate, if
        it has one. Raises InputError (bad_certificate).
        """
        if self.pacs_ca is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return self._loaded(context, self.pacs_ca)

    def _server_tls(self, authority: Path | None) -> ssl.SSLContext | None:
        if self.tls_certificate is None or self.tls_key is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return self._loaded(context, authority)

    def _loaded(self, context: ssl.SSLContext, authority: Path | None) -> ssl.SSLContext:
        try:
            if self.tls_certificate is not None and self.tls_key is not None:
                context.load_cert_chain(self.tls_certificate, self.tls_key)
            if authority is not None:
                context.load_verify_locations(authority)
        except (OSError, ssl.SSLError):
            files = [f for f in (self.tls_certificate, self.tls_key, authority) if f]
            raise InputError(
                f"{', '.join(map(str, files))}: this is no certificate with its key, and the "
                f"authority, in PEM form",
                code="bad_certificate",
            ) from None
        return context


def parse_address(text: str) -> Address:
    """Raises InputError (code bad_address).

    >>> parse_address("127.0.0.1:8080")
    Address(host='127.0.0.1', port=8080)
    >>> parse_address("[::1]:104").is_loopback
    True
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InputError(f"address {text!r}: write HOST:PORT", code="bad_address")
    return Address(host, int(port))


def parse_pacs(text: str) -> Pacs:
    """HOST:PORT:AET. Raises InputError (code bad_address).

    >>> parse_pacs("127.0.0.1:4242:ORTHANC")
    Pacs(host='127.0.0.1', port=4242, aet='ORTHANC')
    """
    address, _, aet = text.rpartition(":")
    if not aet or ":" not in address:
        raise InputError(f"PACS {text!r}: write HOST:PORT:AET", code="bad_address")
    return Pacs(*parse_address(address), aet)


def parse_peer(text: str) -> Peer:
    """AET or AET@IP. Raises InputError (code bad_address).

    >>> parse_peer("PACS@10.0.0.7")
    Peer(aet='PACS', ip='10.0.0.7')
    """
    aet, _, ip = text.partition("@")
    try:
        return Peer(aet, str(ipaddress.ip_address(ip)) if ip else "")
    except ValueError:
        raise InputError(f"peer {text!r}: write AET or AET@IP", code="bad_address") from None


def read_token(path: Path) -> str:
    """The token of a file that only its owner can read. Raises InputError: token_unreadable,
    token_open_to_others, token_too_short.
    """
    token = read_secret(path)
    if len(token) < MIN_TOKEN or not token.isascii():
        raise InputError(
            f"the token in {path} has {len(token)} characters; use at least {MIN_TOKEN} of ASCII: "
            f"python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            code="token_too_short",
        )
    return token


def read_secret(path: Path) -> str:
    """The text of a file that only its owner can read. Raises InputError: token_unreadable,
    token_open_to_others.
    """
    try:
        mode, token = path.stat().st_mode, path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the token file {path} cannot be read ({type(error).__name__})",
            code="token_unreadable",
        ) from None
    if os.name == "posix" and mode & 0o077:
        raise InputError(
            f"the token file {path} can be read by other users: run chmod 600 {path}",
            code="token_open_to_others",
        )
    return token
