"""Keyed pseudonyms, which replace the identifiers of patients, studies, series and images in every
output.

A pseudonym is the first 128 bits of an HMAC-SHA256 (RFC 2104). Without the key nobody can test a
guessed identifier; with the same key a patient gets the same pseudonym in every run.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from data_pipelines.errors import InputError
from data_pipelines.runtime.atomic_files import write_atomic

ENVIRONMENT = "MEDRES_KEY"
KEY_NAME = "pseudonym.key"
_MIN_LENGTH = 32  # characters of the key: 128 bits if they are hexadecimal


@dataclass(frozen=True)
class PseudonymKey:
    """The secret, and where it came from ("made": it is new and random)."""

    secret: bytes = field(repr=False)
    origin: Literal["file", "environment", "made"]

    def pseudonym(self, kind: str, *parts: str) -> str:
        """Return 32 hexadecimal digits for an identifier.

        kind: what the identifier is of, such as 'patient' or 'image'; equal identifiers of two
        kinds get two pseudonyms. parts: the identifier, for a patient its issuer and itself.

        >>> PseudonymKey(b"k" * 32, "file").pseudonym("patient", "", "p1")
        'b9e69d29f1cb280614fe5362f3ed1701'
        """
        message = "\x1f".join((kind, *parts)).encode("utf-8", "surrogatepass")
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()[:32]


def find_key(key_file: Path | None = None) -> PseudonymKey:
    """Return the key of `key_file`, else of the environment variable MEDRES_KEY, else a new random
    one.

    Raises InputError: key_file_unreadable, or key_too_short below 32 characters.
    """
    if key_file is not None:
        try:
            text = Path(key_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"The key file {key_file} cannot be read ({type(error).__name__}). Give a text "
                f"file with 32 or more characters, such as pseudonym.key of an earlier WORK.",
                code="key_file_unreadable",
            ) from None
        return PseudonymKey(_secret(text, f"The key file {key_file}"), "file")
    if os.environ.get(ENVIRONMENT):
        return PseudonymKey(
            _secret(os.environ[ENVIRONMENT], f"The environment variable {ENVIRONMENT}"),
            "environment",
        )
    return PseudonymKey(secrets.token_hex(32).encode(), "made")


def key_of_parts(key: PseudonymKey, parts: Path | None) -> PseudonymKey:
    """The key that an interrupted ingest made, else a new one, which is written beside its finished
    parts: what they hold by pseudonym is then known again. Any other key stays.
    """
    if key.origin != "made" or parts is None:
        return key
    path = parts / KEY_NAME
    try:
        return PseudonymKey(_secret(path.read_text(encoding="utf-8"), str(path)), "made")
    except (OSError, UnicodeDecodeError, InputError):
        parts.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(path, key.secret, mode=0o600)
        return key


def normalise_patient_id(text: str) -> str:
    """Return the form in which two spellings of one patient identifier are equal.

    Unicode NFKC, case-folded, without white space and control characters. Leading zeros are kept:
    hospitals do give '12' and '012' to two people.

    >>> normalise_patient_id(" AB 012")
    'ab012'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if c.isprintable() and not c.isspace())


def patient_key(issuer: str, patient_id: str) -> str:
    """Return the issuer and the identifier of a patient in normal form, '' without an identifier.

    >>> patient_key("North", "AB 012") == patient_key("north ", "ab012")
    True
    """
    person = normalise_patient_id(patient_id)
    return f"{normalise_patient_id(issuer)}\x1f{person}" if person else ""


def _secret(text: str, where: str) -> bytes:
    secret = text.strip()
    if len(secret) < _MIN_LENGTH:
        raise InputError(
            f"{where} has {len(secret)} characters; a key needs at least {_MIN_LENGTH}. "
            "Make one with: python -c 'import secrets; print(secrets.token_hex(32))'",
            code="key_too_short",
        )
    return secret.encode()
