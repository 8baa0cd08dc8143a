"""Groups of files by a pattern in their paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers import raises_code
from mask_writers import write_png

from data_pipelines.errors import LabelError
from data_pipelines.ingestion import ingest
from data_pipelines.labels.path_patients import compiled_pattern, patients_of_paths


def test_the_first_group_of_the_pattern_else_the_whole_match() -> None:
    paths = ["seq1/0001.png", "seq2/0001.png"]
    for pattern, patients in ((r"seq\d", ["seq1", "seq2"]), (r"^seq(\d)/", ["1", "2"])):
        table = patients_of_paths(paths, compiled_pattern(pattern))
        assert table.rows["patient"].tolist() == patients
        assert table.rows["key"].tolist() == paths


def test_a_pattern_that_finds_nothing_is_refused() -> None:
    with raises_code(LabelError, "patient_pattern", "1 of 2"):
        patients_of_paths(["Town01_1.png", "x.png"], compiled_pattern("Town[0-9]+"))
    with raises_code(LabelError, "patient_pattern", "1 of 1"):
        patients_of_paths(["x.png"], compiled_pattern("(y)?"))
    with raises_code(LabelError, "patient_pattern"):
        compiled_pattern("Town(")


def test_a_town_is_in_one_split(tmp_path: Path, in_process: None) -> None:
    """Frames of four towns with boxes: whole towns are split."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(24):
        name = f"Town{n % 4 + 1:02d}_{n:06d}.png"
        write_png(tmp_path / "images" / name, rng.integers(0, 255, (16, 24, 3)).astype(np.uint8))
        rows.append(f"{name},1,1,9,9,vehicle")
    (tmp_path / "boxes.csv").write_text("\n".join(["path,x_min,y_min,x_max,y_max,class", *rows]))
    manifest = ingest(
        tmp_path / "images",
        boxes=tmp_path / "boxes.csv",
        kind="rgb",
        patient_pattern="Town[0-9]+",
        seed=3,
    )
    table = manifest.table
    towns = table["path"].str.slice(0, 6)
    assert table["patient"].nunique() == 4
    assert (table.groupby(towns)["split"].nunique() == 1).all()
    assert (table.groupby(towns)["patient"].nunique() == 1).all()
    assert set(table["split"]) == {"train", "tune", "test"}


def test_files_that_do_not_match_stop_ingest(tmp_path: Path, in_process: None) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 24, 3)).astype(np.uint8)
    write_png(tmp_path / "images/x.png", pixels)
    (tmp_path / "boxes.csv").write_text("path,x_min,y_min,x_max,y_max,class\nx.png,1,1,9,9,car\n")
    boxes = tmp_path / "boxes.csv"
    with raises_code(LabelError, "patient_pattern", "1 of 1"):
        ingest(tmp_path / "images", boxes=boxes, kind="rgb", patient_pattern="Town[0-9]+")
