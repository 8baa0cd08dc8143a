"""Who a model file comes from: a detached signature in the form of the OpenSSF Model Signing
specification, checked with a public key.

The checksums in a file tell that it is whole, not who wrote it: whoever alters the file can renew
them.
"""

from __future__ import annotations

from pathlib import Path

from medres.errors import ArtefactError


def require_signature(
    model: Path | str, signature: Path | str | None, public_key: Path | str | None
) -> None:
    """Raise ArtefactError unless both files are given and `signature` is that of `model` under
    `public_key` (PEM, elliptic curve).

    Needs the extra `sign`. The signature is made by `model_signing sign key`, from the library of
    the same name.
    """
    if signature is None or public_key is None:
        raise ArtefactError(
            "a signature is checked with the public key of who signed: give both files, or none"
        )
    try:
        from model_signing.verifying import Config
    except ImportError:
        raise ArtefactError(
            "a signature is checked by model-signing: install medres[sign]"
        ) from None
    name = Path(model).name
    for path in (model, signature, public_key):
        if not Path(path).is_file():
            raise ArtefactError(
                f"{Path(path).name}: no such file, and the signature of {name} cannot be checked"
            )
    try:
        Config().use_elliptic_key_verifier(public_key=public_key).verify(model, signature)
    except Exception as error:  # noqa: BLE001  whatever the library raises on what it was given, the file is not trusted
        raise ArtefactError(
            f"{name}: its signature does not hold ({type(error).__name__}): take the file, its "
            f"signature and the public key "
            "from their source again"
        ) from None
