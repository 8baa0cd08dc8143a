from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

import medres
from data_pipelines.ingestion.test_access_log import read_openings
from medres.errors import TrainingError
from medres.fitting.worst_losses import _class_losses, _finding_losses
from medres.progress import ProgressReporter

SILENT = ProgressReporter()


def test_the_worst_images_of_a_run(tiny_run: Path, tiny_work: Path, tmp_path: Path) -> None:
    """The losses are those of the scores, sorted."""
    before = len(read_openings(tiny_work))
    result = medres.worst(tiny_run, tiny_work, n=4, progress=SILENT)
    scores = medres.score(tiny_run / "model.keras", tiny_work, "tune", progress=SILENT).table
    of_label = np.where(scores["label"] == 1, scores["score"], 1 - scores["score"])
    expected = pd.Series(-np.log(of_label), index=scores["image"]).sort_values(ascending=False)
    table = result.table
    assert table["loss"].tolist() == pytest.approx(expected.tolist()[:4], abs=1e-6)
    assert set(table["image"]) <= set(scores["image"])
    assert set(table.columns) == {"image", "finding", "label", "probability", "loss"}
    page = result.save(tmp_path / "worst.html").read_text()
    assert page.count("data:image/png") == 4
    assert str(table["image"][0])[:12] in page
    assert len(read_openings(tiny_work)) == before


def test_the_test_split_is_logged(tiny_run: Path, tiny_work: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(tiny_work, tmp_path / "work")
    before = len(read_openings(tmp_path / "work"))
    medres.worst(tiny_run, tmp_path / "work", split="test", n=2, progress=SILENT)
    assert len(read_openings(tmp_path / "work")) == before + 1


def test_losses_by_hand() -> None:
    """An image counts with its worst labeled finding."""
    table = _finding_losses(
        np.array([[1.0, 0.0], [np.nan, 1.0], [-1.0, np.nan]]),
        np.array([[0.9, 0.6], [0.0, 0.25], [0.5, 0.5]]),
        ["a", "b"],
    )
    assert table["finding"].tolist()[:2] == ["b", "b"]
    assert table["loss"].tolist()[:2] == pytest.approx([-np.log(0.4), -np.log(0.25)])
    assert np.isnan(table["loss"][2])
    table = _class_losses(np.array(["b", ""]), np.array([[0.8, 0.2], [0.5, 0.5]]), ["a", "b"])
    assert (table["finding"][0], table["label"][0]) == ("a", "b")
    assert table["loss"][0] == pytest.approx(-np.log(0.2))
    assert np.isnan(table["loss"][1])


def test_what_is_no_medres_file(tiny_work: Path) -> None:
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    with raises_code(TrainingError, "not_a_medres_file", "medres.save"):
        medres.worst(net, tiny_work)
    with raises_code(TrainingError, "bad_setting"):
        medres.worst("model.keras", tiny_work, n=0)
