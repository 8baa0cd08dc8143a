"""The origin of a model file: verify a detached signature (OpenSSF Model Signing) with a public
key.

The checksums inside a file show that it is complete, not who wrote it: anyone who alters the file
can recompute them.
"""

from __future__ import annotations

from pathlib import Path

from medres.errors import ArtefactError


def require_signature(
    model: Path | str, signature: Path | str | None, public_key: Path | str | None
) -> None:
    """Raise ArtefactError unless `signature` is a valid signature of `model` under `public_key`
    (PEM, elliptic curve).

    Needs the extra `sign`. The command `model_signing sign key` of the model-signing package
    creates such a signature. Codes: signature_incomplete, package_missing, no_such_file,
    bad_signature.
    """
    if signature is None or public_key is None:
        raise ArtefactError(
            "a signature is verified with the signer's public key: give both files, or neither",
            code="signature_incomplete",
        )
    try:
        from model_signing.verifying import Config
    except ImportError:
        raise ArtefactError(
            'model-signing is not installed: run pip install "medres[sign]" to verify signatures',
            code="package_missing",
        ) from None
    name = Path(model).name
    for path in (model, signature, public_key):
        if not Path(path).is_file():
            raise ArtefactError(
                f"{Path(path).name}: no such file; the signature of {name} cannot be verified",
                code="no_such_file",
            )
    try:
        Config().use_elliptic_key_verifier(public_key=public_key).verify(model, signature)
    except Exception as error:  # noqa: BLE001  whatever the library raises, the file is not trusted
        raise ArtefactError(
            f"{name}: the signature is not valid ({type(error).__name__}): obtain the file, its "
            f"signature and the public key again from their source",
            code="bad_signature",
        ) from None
