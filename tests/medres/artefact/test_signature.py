"""A signed model opens; a model that was altered, or signed by another key, does not."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from helpers import fails, medres, raises_code

import medres as package
from medres.artefact import archive
from medres.artefact.signature import require_signature
from medres.errors import ArtefactError

signing = pytest.importorskip("model_signing.signing", reason="needs the extra `sign`")


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, spki))
    return private, public


@pytest.fixture
def signed(tiny_run: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """(model, signature, public key)."""
    model = tmp_path / "model.keras"
    shutil.copy(tiny_run / "model.keras", model)
    private, public = key_pair(tmp_path, "site")
    signing.Config().use_elliptic_key_signer(private_key=private).sign(
        model, tmp_path / "model.sig"
    )
    return model, tmp_path / "model.sig", public


def test_a_signed_model_opens_under_any_name(signed: tuple[Path, Path, Path]) -> None:
    model, signature, public = signed
    renamed = model.rename(model.with_name("ward-3.keras"))
    assert package.load(renamed, signature=signature, public_key=public).card.names == ["square"]


def test_a_signed_model_names_the_key_and_not_more(signed: tuple[Path, Path, Path]) -> None:
    from cryptography.hazmat.primitives import serialization

    model, signature, public = signed
    key = serialization.load_pem_public_key(public.read_bytes())
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signer = f"SHA256:{hashlib.sha256(der).hexdigest()}"
    assert require_signature(model, signature, public) == signer
    options = ("--signature", signature, "--public-key", public)
    assert medres("verify", model, *options).stdout.startswith(f"signed by {signer}: ")
    content = json.loads(medres("verify", model, *options, "--json").stdout)
    assert (content["origin"], content["signer"]) == (f"signed by {signer}", signer)
    plain = json.loads(medres("verify", model, "--json").stdout)
    assert (plain["origin"], plain["signer"]) == ("intact, not signed", None)


def test_the_bytes_whose_signature_was_verified_are_opened(
    signed: tuple[Path, Path, Path], tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, signature, public = signed
    expected = hashlib.sha256(model.read_bytes()).hexdigest()
    original = archive.verified_signer

    def swapped_after(*arguments):
        signer = original(*arguments)
        model.write_bytes(b"another model")
        return signer

    monkeypatch.setattr(archive, "verified_signer", swapped_after)
    loaded = package.load(model, signature=signature, public_key=public)
    assert loaded.artefact.sha256 == expected


def test_a_model_that_was_altered_or_signed_by_another_is_refused(
    signed: tuple[Path, Path, Path],
) -> None:
    model, signature, public = signed
    _, stranger = key_pair(model.parent, "stranger")
    with raises_code(ArtefactError, "bad_signature"):
        require_signature(model, signature, stranger)
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with raises_code(ArtefactError, "bad_signature", "model.keras"):
        package.load(model, signature=signature, public_key=public)


def test_junk_in_place_of_a_signature_or_key_is_refused(signed: tuple[Path, Path, Path]) -> None:
    model, signature, public = signed
    junk = model.parent / "junk"
    for content in (b"", b"{}", b"\xff" * 64, b"[" * 5000):
        junk.write_bytes(content)
        for pair in ((junk, public), (signature, junk)):
            with raises_code(ArtefactError, "bad_signature"):
                require_signature(model, *pair)


def test_an_incomplete_signature_is_an_error_of_one_line(signed: tuple[Path, Path, Path]) -> None:
    model, signature, public = signed
    fails(medres("verify", model, "--signature", signature))
    with raises_code(ArtefactError, "signature_incomplete"):
        require_signature(model, signature, None)
    missing = model.parent / "none.sig"
    message = fails(medres("verify", model, "--signature", missing, "--public-key", public))
    assert "none.sig" in message
    with raises_code(ArtefactError, "no_such_file", "none.sig"):
        require_signature(model, missing, public)
