"""The origin of a model file: verify a detached signature (OpenSSF Model Signing) with a public
key.

The checksums inside a file show that it is complete, not who wrote it: anyone who alters the file
can recompute them.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from medres.artefact.model_file import ModelFile, opened, private_copy
from medres.errors import ArtefactError

MAX_KEY, MAX_SIGNATURE = 1 << 16, 1 << 22  # bytes


def require_signature(
    model: Path | str, signature: Path | str | None, public_key: Path | str | None
) -> str:
    """The fingerprint of `public_key` (PEM, elliptic curve) if `signature` is its valid signature
    of the file `model`. Otherwise raises ArtefactError.

    Needs the extra `sign`. The command `model_signing sign key` of the model-signing package
    creates such a signature. Codes: signature_incomplete, package_missing, bad_signature, and
    those of `private_copy`.
    """
    with private_copy(model) as file:
        return verified_signer(file, signature, public_key)


def verified_signer(
    file: ModelFile, signature: Path | str | None, public_key: Path | str | None
) -> str:
    """As `require_signature`, for a file that was read already. The signature and the key are read
    once as well.

    Returns "SHA256:" and the SHA-256 in hex of the key in DER form: the same digits as `openssl
    pkey -pubin -in KEY -outform DER | sha256sum`.
    """
    if signature is None or public_key is None:
        raise ArtefactError(
            "a signature is verified with the signer's public key: give both files, or neither",
            code="signature_incomplete",
        )
    try:
        from cryptography.hazmat.primitives import serialization
        from model_signing.verifying import Config
    except ImportError:
        raise ArtefactError(
            'model-signing is not installed: run pip install "medres[sign]" to verify signatures',
            code="package_missing",
        ) from None
    with (
        opened(Path(signature), limit=MAX_SIGNATURE) as signature_file,
        opened(Path(public_key), limit=MAX_KEY) as key_file,
    ):
        signature_bytes, key_bytes = signature_file.read(MAX_SIGNATURE), key_file.read(MAX_KEY)
    with tempfile.TemporaryDirectory(prefix="medres-") as folder:
        signature_copy, key_copy = Path(folder) / "model.sig", Path(folder) / "key.pem"
        signature_copy.write_bytes(signature_bytes)
        key_copy.write_bytes(key_bytes)
        try:
            key = serialization.load_pem_public_key(key_bytes)
            Config().use_elliptic_key_verifier(public_key=key_copy).verify(
                file.path, signature_copy
            )
        except Exception as error:  # noqa: BLE001  whatever is raised, the file is not trusted
            raise ArtefactError(
                f"{file.name}: the signature is not valid ({type(error).__name__}): obtain the "
                f"file, its signature and the public key again from their source",
                code="bad_signature",
            ) from None
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return f"SHA256:{hashlib.sha256(der).hexdigest()}"
