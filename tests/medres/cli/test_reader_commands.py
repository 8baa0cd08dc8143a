from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import fails, medres

from medres.evaluate.readers.made_up import made_up_study


@pytest.fixture
def table(tmp_path: Path) -> Path:
    draw = np.random.default_rng(3)
    m, r, c = (a.ravel() for a in np.indices((2, 3, 30)))
    rating = np.round(draw.normal(size=m.size) + c % 2 * (1 + m), 1)
    rows = pd.DataFrame({"reader": r, "modality": m, "case": c, "truth": c % 2, "rating": rating})
    rows.to_csv(tmp_path / "readers.csv", index=False)
    return tmp_path / "readers.csv"


def test_a_readers_table_alone_is_a_reader_study(table: Path, tmp_path: Path) -> None:
    base = ("evaluate", "--readers", table, "--out", tmp_path / "out")
    done = medres(*base, "--json")
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    study = json.loads((tmp_path / "out/report.json").read_text())["reader_study"]
    assert answer["contrasts"] == study["contrasts"]
    shown = medres(*base, "--overwrite", "--analysis", "frrc", "--pair", "1,0").stdout
    assert "1 - 0: +0." in shown
    study = json.loads((tmp_path / "out/report.json").read_text())["reader_study"]
    assert study["analysis"] == "frrc"


def test_every_option_reaches_the_study(table: Path, tmp_path: Path) -> None:
    more = (
        "--figure",
        "sensitivity@0.5",
        "--method",
        "or",
        "--covariance",
        "jackknife",
        "--margin",
        "0.1",
    )
    more += (
        "--standalone",
        "2",
        "--level",
        "0.9",
        "--title",
        "Trial",
        "--effect",
        "0.1",
        "--analysis",
        "rrfc",
    )
    model = pd.read_csv(table).query("reader != 2 or modality == 0")
    model.to_csv(table, index=False)
    done = medres("evaluate", "--readers", table, "--out", tmp_path / "out", *more)
    assert done.exit_code == 0, done.stderr
    report = json.loads((tmp_path / "out/report.json").read_text())
    study = report["reader_study"]
    assert report["title"] == "Trial"
    assert study["figure"] == "sensitivity@0.5"
    assert study["covariance"] == "jackknife"
    assert study["standalone"]["name"] == "2"
    assert study["contrasts"][0]["margin"] == 0.1
    assert study["contrasts"][0]["level"] == 0.9
    assert study["sample_size"]["effect"] == 0.1


@pytest.mark.parametrize(
    "more",
    [
        ("--tune", "t.csv"),
        ("--prevalence", "0.1"),
        ("--pair", "A"),
        ("--scores", "s.csv", "--figure", "auc"),
    ],
)
def test_options_without_effect_are_wrong_usage(table: Path, tmp_path: Path, more: tuple) -> None:
    done = medres("evaluate", "--readers", table, "--out", tmp_path / "out", *more)
    assert more[-2] in fails(done, code=2)


def test_a_table_that_does_not_fit_is_one_line(table: Path, tmp_path: Path) -> None:
    table.write_text(table.read_text().replace("truth", "disease"))
    assert "truth" in fails(medres("evaluate", "--readers", table, "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_rates_and_the_model_threshold_are_options(tmp_path: Path) -> None:
    made_up_study().to_csv(tmp_path / "readers.csv", index=False)
    base = ("evaluate", "--readers", tmp_path / "readers.csv", "--out", tmp_path / "out")
    more = ("--standalone", "model", "--positive", "3", "--threshold", "0.6")
    done = medres(*base, *more)
    assert done.exit_code == 0, done.stderr
    study = json.loads((tmp_path / "out/report.json").read_text())["reader_study"]
    assert [rate["figure"] for rate in study["rates"]] == ["sensitivity@3", "specificity@3"]
    assert study["rates"][0]["threshold"] == 0.6
    for wrong in (("--threshold", "0.6", "--threshold", "0.7"), ("--threshold", "pneumonia:a=0.5")):
        assert "--threshold" in fails(medres(*base, "--standalone", "model", *wrong), code=2)


def test_the_demo_of_a_reader_study(tmp_path: Path) -> None:
    for _ in range(2):  # the second replaces the first
        done = medres("demo", "--readers", "--out", tmp_path / "demo")
        assert done.exit_code == 0, done.stderr
    assert "with - without: +0." in done.stdout
    assert (tmp_path / "demo/report/report.html").exists()
    result = json.loads((tmp_path / "demo/demo.json").read_text())
    assert result["contrasts"][0]["p_value"] < 0.05
    table = pd.read_csv(tmp_path / "demo/readers.csv")
    assert set(table["block"].dropna()) == {1, 2}
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    fails(medres("demo", "--readers", "--out", tmp_path / "other"))
