from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code
from PIL import Image

import medres
from medres.errors import TrainingError
from medres.fitting.batch_picture import _caption
from medres.progress import ProgressReporter


def test_a_work_folder_or_its_data(tiny_work: Path, tmp_path: Path) -> None:
    """Labels and order are those of the first training batch."""
    silent = ProgressReporter()
    sets = medres.data(tiny_work, "xray-32", 6, 2, augment=None, progress=silent)
    labels = np.concatenate([part.numpy() for _, part, _ in sets.train.take(1)])[:, 0]
    picture = medres.show_batch(sets, n=5)  # the second pass
    assert len(picture.labels) == 5
    assert set(picture.labels) <= {"square: 0", "square: 1"}
    other = medres.show_batch(tiny_work, "xray-32", 6, seed=2, progress=silent)
    assert other.labels == tuple(f"square: {int(label)}" for label in labels)
    file = other.save(tmp_path / "batch.png")
    grid = np.asarray(Image.open(file).convert("L"))
    assert grid.shape[1] > grid.shape[0] > 100
    assert grid.std() > 20  # images, not an empty page
    assert Image.open(io.BytesIO(picture._repr_png_())).format == "PNG"
    with raises_code(TrainingError, "bad_setting", "65"):
        medres.show_batch(sets, n=65)


@pytest.mark.parametrize(
    ("label", "weight", "names", "task", "caption"),
    [
        ([-1.0], 0.0, ("a",), "binary", "a: ?"),
        ([0.5], 1.0, ("a",), "binary", "a: 0.5"),
        ([1.0, 0.0, -1.0], 1.0, ("a", "b", "c"), "multilabel", "a, c: ?"),
        ([0.0, 0.0], 1.0, ("a", "b"), "multilabel", "none"),
        (1, 1.0, ("a", "b"), "multiclass", "b"),
        (0, 0.0, ("a", "b"), "multiclass", "?"),
    ],
)
def test_captions(label: object, weight: float, names: tuple, task: str, caption: str) -> None:
    assert _caption(label, weight, names, task) == caption
