"""Keyed pseudonyms: what stands for patients, studies, series and images in every output.

HMAC-SHA256 (RFC 2104), 128 bits of it. Without the key nobody can test a guessed identifier; with
the same key the same patient gets the same pseudonym in every run.
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

ENVIRONMENT = "MEDRES_KEY"
KEY_NAME = "pseudonym.key"
_SHORTEST = 32  # characters of key text: 128 bits when they are hexadecimal


@dataclass(frozen=True)
class PseudonymKey:
    """The secret and where it came from."""

    secret: bytes = field(repr=False)
    origin: Literal["file", "environment", "made"]

    def pseudonym(self, kind: str, *parts: str) -> str:
        """Return 32 hexadecimal digits for an identifier of one `kind` ('patient', 'image' ...)."""
        message = "\x1f".join((kind, *parts)).encode("utf-8", "surrogatepass")
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()[:32]


def find_key(key_file: Path | None = None) -> PseudonymKey:
    """Return the key of `key_file`, else of the environment variable MEDRES_KEY, else a new random
    one.

    Raises InputError where the file cannot be read or the key has fewer than 32 characters.
    """
    if key_file is not None:
        try:
            text = Path(key_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"The key file {key_file} cannot be read ({type(error).__name__}). Name a text "
                f"file of 32 or more "
                "characters, such as the pseudonym.key of an earlier WORK folder.",
                code="key",
            ) from None
        return PseudonymKey(_secret(text, f"The key file {key_file}"), "file")
    if os.environ.get(ENVIRONMENT):
        return PseudonymKey(
            _secret(os.environ[ENVIRONMENT], f"The environment variable {ENVIRONMENT}"),
            "environment",
        )
    return PseudonymKey(secrets.token_hex(32).encode(), "made")


def normalise_patient_id(text: str) -> str:
    """Return the form in which two spellings of one patient identifier are equal.

    Unicode NFKC, case folded, without any white space or control character. Leading zeros are kept:
    hospitals do give '12' and '012' to two people.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if c.isprintable() and not c.isspace())


def _secret(text: str, where: str) -> bytes:
    secret = text.strip()
    if len(secret) < _SHORTEST:
        raise InputError(
            f"{where} holds {len(secret)} characters; a key needs at least {_SHORTEST}. "
            "Make one with: python -c 'import secrets; print(secrets.token_hex(32))'",
            code="key",
        )
    return secret.encode()
