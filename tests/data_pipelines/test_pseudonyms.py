from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from helpers import raises_code

from data_pipelines.errors import InputError
from data_pipelines.pseudonyms import PseudonymKey, find_key, normalise_patient_id

SECRET = "0123456789abcdef" * 2


def test_pseudonym_is_hmac_sha256() -> None:
    key = PseudonymKey(SECRET.encode(), "file")
    expected = hmac.new(SECRET.encode(), b"patient\x1fissuer\x1f12", hashlib.sha256).hexdigest()[
        :32
    ]
    assert key.pseudonym("patient", "issuer", "12") == expected


def test_pseudonyms_tell_kinds_parts_and_keys_apart() -> None:
    key, other = PseudonymKey(b"a" * 32, "file"), PseudonymKey(b"b" * 32, "file")
    values = {
        key.pseudonym("patient", "a", "b"),
        key.pseudonym("patient", "ab"),
        key.pseudonym("study", "a", "b"),
        other.pseudonym("patient", "a", "b"),
    }
    assert len(values) == 4


def test_key_comes_from_file_then_environment_then_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEDRES_KEY", raising=False)
    new_key = find_key()
    assert new_key.origin == "made"
    assert new_key.secret != find_key().secret
    assert len(new_key.secret) == 64
    monkeypatch.setenv("MEDRES_KEY", SECRET + "e")
    assert find_key() == PseudonymKey((SECRET + "e").encode(), "environment")
    path = tmp_path / "key"
    path.write_text(SECRET + "\n")
    assert find_key(path) == PseudonymKey(SECRET.encode(), "file")


def test_key_is_not_shown() -> None:
    assert SECRET not in repr(PseudonymKey(SECRET.encode(), "file"))


def test_short_or_absent_keys_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("CANARY")
    codes = {"key": "key_too_short", "absent": "key_file_unreadable"}
    for name, code in codes.items():
        with raises_code(InputError, code) as caught:
            find_key(tmp_path / name)
        assert "CANARY" not in str(caught.value)
    monkeypatch.setenv("MEDRES_KEY", "short")
    with raises_code(InputError, "key_too_short", "MEDRES_KEY", "5 characters"):
        find_key()


@pytest.mark.parametrize("variant", ["ab 12", " AB12 ", "ＡＢ１２", "aB12\x00", "AB 12\t"])
def test_spelling_variants_are_one_patient(variant: str) -> None:
    assert normalise_patient_id(variant) == normalise_patient_id("AB12")


def test_leading_zeros_make_another_patient() -> None:
    assert normalise_patient_id("012") != normalise_patient_id("12")
