"""Drawn street scenes: boxes and masks say the same, and no town is in two splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Pillow

from data_pipelines import ingest
from data_pipelines.synthetic import draw_towns
from data_pipelines.synthetic.street_scenes import EDGES, MASK_CLASSES, OBJECTS


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_towns(tmp_path_factory.mktemp("towns") / "scenes", frames=4, drives=2)


def test_every_box_is_tight_around_pixels_of_its_class(scenes: Path) -> None:
    boxes = pd.read_csv(scenes / "boxes.csv").dropna()
    assert set(boxes["class"]) == set(OBJECTS)
    for row in boxes.itertuples():
        mask = np.array(Pillow.open(scenes / "masks" / row.path))
        left, top, right, bottom = (int(getattr(row, edge)) for edge in EDGES)
        inside = mask[top:bottom, left:right] == OBJECTS[row[-1]]
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()


def test_a_picture_and_its_mask_have_one_shape_and_the_named_labels(scenes: Path) -> None:
    for path in (scenes / "images").iterdir():
        mask = np.array(Pillow.open(scenes / "masks" / path.name))
        assert np.array(Pillow.open(path)).shape == (*mask.shape, 3)
        assert set(np.unique(mask)) <= {0, *map(int, MASK_CLASSES)}


def test_towns_are_in_one_split_and_drives_are_the_groups(scenes: Path, tmp_path: Path) -> None:
    labels = pd.read_csv(scenes / "labels.csv")
    assert (labels.groupby(labels["path"].str.split("_").str[0])["split"].nunique() == 1).all()
    manifest = ingest(
        scenes / "images",
        scenes / "labels.csv",
        tmp_path / "work",
        kind="rgb",
        boxes=scenes / "boxes.csv",
        masks=scenes / "masks",
        mask_classes=MASK_CLASSES,
    )
    assert len(manifest.table) == len(labels) == 32
    assert manifest.table["patient"].nunique() == 8
    drawn = pd.read_csv(scenes / "boxes.csv").dropna()["class"].value_counts()
    assert {name: manifest.table[f"boxes:{name}"].sum() for name in OBJECTS} == drawn.to_dict()


def test_a_seed_is_a_set_of_scenes(scenes: Path, tmp_path: Path) -> None:
    again = draw_towns(tmp_path / "again", frames=4, drives=2)
    other = draw_towns(tmp_path / "other", frames=4, drives=2, seed=1)
    for path in (scenes / "images").iterdir():
        assert path.read_bytes() == (again / "images" / path.name).read_bytes()
        assert path.read_bytes() != (other / "images" / path.name).read_bytes()
    with pytest.raises(FileExistsError):
        draw_towns(again, frames=1)
