from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code
from PIL import Image

from medres.errors import TrainingError
from medres.experiments.image_sets import load_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes; the gray value of an image is its number."""
    for split, count in (("train", 4), ("test", 2)):
        for c, label in enumerate(("cat", "dog")):
            target = tmp_path / "pictures" / split / label
            target.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(np.full((5, 6), 10 * c + i, "uint8")).save(target / f"{i}.png")
    (tmp_path / "pictures" / "readme.txt").write_text("not a picture")
    return tmp_path / "pictures"


def test_a_folder_and_an_archive_of_it_are_the_same(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pictures.tar.gz", "w:gz") as archive:
        archive.add(folder, arcname=".")
    for path in (folder, tmp_path / "pictures.tar.gz"):
        images = load_pictures(path)
        assert images.train.shape == (8, 5, 6, 1)
        assert images.classes == 2
        np.testing.assert_array_equal(images.train_labels, [0] * 4 + [1] * 4)
        np.testing.assert_allclose(
            images.train[:, 0, 0, 0] * 255, [0, 1, 2, 3, 10, 11, 12, 13], rtol=1e-6
        )
        np.testing.assert_array_equal(images.test_labels, [0, 0, 1, 1])


def test_npz_of_medmnist(tmp_path: Path) -> None:
    pixels = np.arange(3 * 4 * 4, dtype="uint8").reshape(3, 4, 4)
    labels = np.array([[0], [1], [1]], "uint8")
    np.savez(
        tmp_path / "a.npz",
        train_images=pixels,
        train_labels=labels,
        test_images=pixels,
        test_labels=labels,
    )
    images = load_pictures(tmp_path / "a.npz")
    np.testing.assert_allclose(images.test[..., 0] * 255, pixels, rtol=1e-6)
    np.testing.assert_array_equal(images.test_labels, [0, 1, 1])


def test_a_limit_keeps_the_shares_of_the_classes(tmp_path: Path) -> None:
    labels = np.array([0] * 60 + [1] * 30)
    pixels = np.arange(90, dtype="float32")[:, None, None] / 100 * np.ones((1, 4, 4), "float32")
    np.savez(
        tmp_path / "a.npz",
        train_images=pixels,
        train_labels=labels,
        test_images=pixels,
        test_labels=labels,
    )
    few = load_pictures(tmp_path / "a.npz", limit=30, seed=1)
    assert np.bincount(few.train_labels).tolist() == [20, 10]
    assert np.bincount(few.test_labels).tolist() == [20, 10]
    np.testing.assert_array_equal(few.train_labels, (few.train[:, 0, 0, 0] > 0.595).astype(int))
    again, other = (load_pictures(tmp_path / "a.npz", limit=30, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(few.train, again.train)
    assert not np.array_equal(few.train, other.train)


def test_what_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    with raises_code(TrainingError, "no_such_file"):
        load_pictures(tmp_path / "nothing.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK nonsense")
    with raises_code(TrainingError, "file_format", "train_images"):
        load_pictures(tmp_path / "bad.npz")
    (tmp_path / "bad.tar.gz").write_bytes(b"nonsense")
    with raises_code(TrainingError, "file_format"):
        load_pictures(tmp_path / "bad.tar.gz")
    with raises_code(TrainingError, "out_of_range", "limit 0"):
        load_pictures(folder, limit=0)
    Image.fromarray(np.zeros((3, 3), "uint8")).save(folder / "train" / "cat" / "small.png")
    with raises_code(TrainingError, "several_sizes", "2 sizes"):
        load_pictures(folder)
    (tmp_path / "empty").mkdir()
    with raises_code(TrainingError, "no_images"):
        load_pictures(tmp_path / "empty")
