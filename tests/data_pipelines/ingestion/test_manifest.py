from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from data_pipelines.errors import ManifestError
from data_pipelines.ingestion.manifest import (
    COLUMNS,
    LATER_COLUMNS,
    QUARANTINE_COLUMNS,
    Manifest,
    check_table,
)


def table(rows: int = 3) -> pd.DataFrame:
    text = {
        name: [f"{name}{n}" for n in range(rows)] for name, kind in COLUMNS.items() if kind == "str"
    }
    numbers = {name: np.arange(rows) for name, kind in COLUMNS.items() if kind != "str"}
    splits = {"split": ["train", "tune", "test"][:rows]}
    return (
        pd.DataFrame({**text, **numbers, **splits})[list(COLUMNS)]
        .astype(dict(COLUMNS))
        .assign(**{"label:x": np.float32(1)})
    )


def manifest() -> Manifest:
    counts = {"given": 4, "ok": 3, "repaired": 0, "quarantined": 1, "skipped": 0}
    part = {"patients": 1, "studies": 1, "images": 1, "classes": {"<b>": {"0": 0, "1": 1}}}
    entries = [("=cmd|x.dcm", "localizer", '-said, "so"', "@source")]
    return Manifest(
        table(),
        {**counts, "splits": {"train": part}},
        pd.DataFrame(entries, columns=list(QUARANTINE_COLUMNS)),
    )


@pytest.fixture
def work(tmp_path: Path) -> Path:
    manifest().save(tmp_path)
    return tmp_path


def test_a_manifest_comes_back_as_it_was(work: Path) -> None:
    loaded = Manifest.load(str(work))
    pd.testing.assert_frame_equal(loaded.table, table())
    assert loaded.summary["splits"] == manifest().summary["splits"]
    assert loaded.work == work


def test_the_later_columns_may_be_absent_and_keep_their_type() -> None:
    later = {"sop_class": "", "detector_row_spacing": 0.1, "detector_col_spacing": np.nan}
    assert {*later} == {*LATER_COLUMNS}
    newer = table().assign(**later)
    assert check_table(newer, where="here") is newer
    with raises_code(ManifestError, "manifest_schema", "detector_row_spacing"):
        check_table(newer.assign(detector_row_spacing="0.1"), where="here")


def test_no_cell_of_the_quarantine_is_a_formula(work: Path) -> None:
    lines = (work / "quarantine.csv").read_text().splitlines()
    assert lines[0] == ",".join(QUARANTINE_COLUMNS)
    assert lines[1] == '\'=cmd|x.dcm,localizer,"\'-said, ""so""",\'@source'


def test_an_empty_quarantine_has_its_header(tmp_path: Path) -> None:
    whole = manifest()
    Manifest(whole.table, whole.summary, whole.quarantine.iloc[:0]).save(tmp_path)
    assert (tmp_path / "quarantine.csv").read_text() == ",".join(QUARANTINE_COLUMNS) + "\n"
    assert len(Manifest.load(tmp_path).quarantine) == 0


def test_json_holds_no_nan(tmp_path: Path) -> None:
    whole = manifest()
    with pytest.raises(ValueError, match="Out of range float"):
        Manifest(whole.table, {**whole.summary, "x": float("nan")}, whole.quarantine).save(tmp_path)
    assert not (tmp_path / "ingest.json").exists()


@pytest.mark.parametrize("name", ["manifest.parquet", "ingest.json", "quarantine.csv"])
def test_a_missing_file_is_named_with_the_fix(work: Path, name: str) -> None:
    (work / name).unlink()
    with raises_code(ManifestError, "no_manifest", name, "medres ingest"):
        Manifest.load(work)


def test_an_absent_folder(tmp_path: Path) -> None:
    with raises_code(ManifestError, "no_manifest", "manifest.parquet"):
        Manifest.load(tmp_path / "absent")


def test_every_changed_byte_of_the_table_is_noticed(work: Path) -> None:
    path = work / "manifest.parquet"
    whole = path.read_bytes()
    for position in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with raises_code(ManifestError, "manifest_changed"):
            Manifest.load(work)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "{}", '{"schema": "medres.manifest/0", "manifest_sha256": ""}']
)
def test_a_damaged_summary(work: Path, content: str) -> None:
    (work / "ingest.json").write_text(content)
    with pytest.raises(ManifestError) as caught:
        Manifest.load(work)
    assert caught.value.code in ("manifest_unreadable", "manifest_changed")


@pytest.mark.parametrize(
    ("change", "mentioned"),
    [
        (lambda t: t.drop(columns=["kind", "frame"]), ["columns frame, kind"]),
        (lambda t: t.assign(frame=0.5), ["column frame", "int32"]),
        (lambda t: t.assign(site=None), ["column site", "str"]),
        (lambda t: t.assign(age="x"), ["column age", "float64"]),
        (lambda t: t.assign(image="x"), ["column image"]),
        (lambda t: t.assign(split="val"), ["column split", "train, tune, test"]),
    ],
)
def test_the_schema(change, mentioned: list[str]) -> None:
    with raises_code(ManifestError, "manifest_schema", *mentioned):
        check_table(change(table()), where="w")


def test_notebooks_see_escaped_counts() -> None:
    text = manifest()._repr_html_()
    assert "&lt;b&gt;: 0/1" in text
    assert "<b>" not in text
    assert "quarantined 1" in text


def test_the_summary_is_plain_json(work: Path) -> None:
    assert json.loads((work / "ingest.json").read_text())["schema"] == "medres.manifest/1"
