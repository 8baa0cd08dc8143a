from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from data_pipelines.ingestion.manifest import Manifest

PROTOTYPE = Path(__file__).parent.parent / "examples" / "prototype.py"


def test_the_prototype_answers_refuses_and_distrusts(
    tiny_run: Path, tiny_work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(PROTOTYPE.read_text().splitlines()) < 60
    spec = importlib.util.spec_from_file_location("prototype", PROTOTYPE)
    prototype = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prototype)
    model, row = str(tiny_run / "model.keras"), Manifest.load(tiny_work).table.iloc[0]
    study = str(Path(row["source"]) / row["path"])

    assert prototype.main(model, study, str(tmp_path / "overlay.png")) == 0
    said = capsys.readouterr().out
    assert "square: probability 0." in said
    assert "square: present" in said or "square: absent" in said
    assert "Not a medical device" in said
    assert (tmp_path / "overlay.png").read_bytes().startswith(b"\x89PNG")

    (tmp_path / "note.dcm").write_text("no DICOM")
    assert prototype.main(model, str(tmp_path / "note.dcm")) == 3
    assert "no answer: " in capsys.readouterr().out

    (tmp_path / "model.keras").write_bytes(b"PK")
    assert prototype.main(str(tmp_path / "model.keras"), study) == 1
    assert "model refused: model.keras" in capsys.readouterr().err
