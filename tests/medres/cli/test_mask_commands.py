"""`medres evaluate --masks`, without TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import fails, medres


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name, shift in (("ref", 0), ("pred", 2), ("other", 1)):
        (tmp_path / name).mkdir()
        for case in "abc":
            values = np.zeros((16, 16), np.uint8)
            values[4:12, 2 + shift : 10 + shift] = 1
            Image.fromarray(values).save(tmp_path / name / f"{case}.png")
    return tmp_path / "pred", tmp_path / "ref"


def test_report_and_lines(folders, tmp_path: Path) -> None:
    masks, reference = folders
    out = tmp_path / "out"
    options = ("--masks", masks, "--reference", reference, "--spacing", "0.5,0.5", "--out", out)
    run = medres("evaluate", *options, "--compare", tmp_path / "other", "--classes", "1=lung")
    assert run.exit_code == 0, run.output
    assert "lung: Dice 0.750" in run.stdout
    assert "-0.125" in run.stdout
    found = json.loads((out / "report.json").read_text())["findings"]["lung"]
    assert found["hd95_mm"]["estimate"] == pytest.approx(1.0)
    again = medres("evaluate", *options, "--json", "--overwrite", "--tolerance-mm", "0.4")
    assert json.loads(again.stdout)["findings"]["1"]["dice"]["estimate"] == pytest.approx(0.75)
    assert (out / "tables/cases.csv").is_file()


def test_wrong_usage(folders, tmp_path: Path) -> None:
    masks, reference = folders
    out = ("--out", tmp_path / "out")
    both = ("--masks", masks, "--reference", reference)
    fails(medres("evaluate", "--masks", masks, *out), code=2)
    fails(medres("evaluate", *both, "--margin", "0.1", *out), code=2)
    fails(medres("evaluate", *both, "--spacing", "a,b", *out), code=2)
    fails(medres("evaluate", "--scores", "x.csv", "--tolerance-mm", "2", *out), code=2)
    fails(medres("evaluate", "--masks", masks, "--reference", tmp_path / "absent", *out))
    assert not (tmp_path / "out").exists()
