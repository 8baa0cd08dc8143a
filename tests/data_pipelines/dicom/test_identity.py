from __future__ import annotations

from data_pipelines.dicom.identity import name_key


def test_name_key_takes_the_first_group() -> None:
    assert name_key("Yamada^Tarou=山田^太郎") == name_key("YAMADA^TAROU") == "yamada tarou"
    assert name_key("=山田^太郎") == name_key("山田^太郎")
    assert name_key("") == name_key("^^") == ""
