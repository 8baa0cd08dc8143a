from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.synthetic import draw_towns
from data_pipelines.synthetic.street_scenes import OBJECTS

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


@pytest.mark.long  # trains a detector and a segmenter
def test_street_scenes_are_learned_and_become_a_moving_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_towns(tmp_path / "scenes", frames=3, drives=3)
    script = PROTOTYPE.parent / "driving" / "street_scenes.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path), "--epochs", "1"])
    runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr().out
    assert all(f"{name}: AP50 " in said for name in OBJECTS)
    assert "road: Dice 0." in said
    with Image.open(tmp_path / "drive.gif") as drive:
        assert (drive.n_frames, drive.size) == (9, (480, 288))


def test_towns_of_the_simulator_keep_to_one_split(tmp_path: Path) -> None:
    for name in ("Town01_000060", "Town01_001260", "Town03_000060"):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{name}.jpg").touch()
    script = runpy.run_path(str(PROTOTYPE.parent / "driving" / "street_scenes.py"))
    table = pd.read_csv(script["carla_labels"](tmp_path, tmp_path / "out"))
    assert table.values.tolist() == [
        ["Town01_000060.jpg", "Town01-0", "test"],
        ["Town01_001260.jpg", "Town01-1", "test"],
        ["Town03_000060.jpg", "Town03-0", "train"],
    ]
