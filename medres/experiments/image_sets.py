"""Images for the experiments, from the usual formats of small public data sets."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from medres.errors import TrainingError
from medres.experiments.depths import Images

SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_FILE_SIZE = 16 << 20  # bytes


def load_pictures(path: Path | str, *, limit: int | None = None, seed: int = 0) -> Images:
    """Read a `.npz` file of MedMNIST (train_images, train_labels, test_images, test_labels), or a
    folder or `.tar.gz` with PNG or JPEG files of one size in train/<class>/ and test/<class>/. The
    classes are numbered in the order of their names.

    limit: maximum number of training images, and of test images; they are chosen at random with
    `seed`, with the same share of each class. Raises TrainingError if the images cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise TrainingError(f"images {path}: there is no such file or folder", code="no_such_file")
    images = _from_npz(path) if path.suffix == ".npz" else _from_files(path)
    if limit is None:
        return images
    train, test = (
        _stratified(labels, limit, seed) for labels in (images.train_labels, images.test_labels)
    )
    return Images(
        images.train[train], images.train_labels[train], images.test[test], images.test_labels[test]
    )


def _from_npz(path: Path) -> Images:
    names = [f"{split}_{what}" for split in ("train", "test") for what in ("images", "labels")]
    try:
        with np.load(path, allow_pickle=False) as file:
            return Images(*(file[name] for name in names))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"{path.name}: it must be an .npz file with {', '.join(names)} ({error})",
            code="file_format",
        ) from error


def _files(path: Path) -> Iterator[tuple[PurePosixPath, np.ndarray]]:
    """(path below the root, pixels) of each image, in the order of the folder or archive."""
    if path.is_dir():
        for file in path.rglob("*"):
            if file.suffix.lower() in SUFFIXES:
                yield PurePosixPath(file.relative_to(path).as_posix()), _pixels(file)
        return
    with tarfile.open(path) as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            data = (
                archive.extractfile(member)
                if member.isfile() and member.size <= MAX_FILE_SIZE
                else None
            )
            if data is not None and name.suffix.lower() in SUFFIXES:
                yield name, _pixels(data)


def _pixels(file: Any) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def _from_files(path: Path) -> Images:
    images: dict[str, list[tuple[str, np.ndarray]]] = {"train": [], "test": []}
    try:
        for name, pixels in sorted(_files(path), key=lambda item: item[0]):
            if len(name.parts) >= 3 and name.parts[-3] in images:
                images[name.parts[-3]].append((name.parts[-2], pixels))
    except (OSError, tarfile.TarError) as error:
        raise TrainingError(
            f"{path.name}: it must be a folder or an archive of PNG or JPEG images ({error})",
            code="file_format",
        ) from error
    classes = sorted({label for pairs in images.values() for label, _ in pairs})
    if not images["train"] or not images["test"]:
        raise TrainingError(
            f"{path.name}: there are no images in train/<class>/ or test/<class>/",
            code="no_images",
        )
    sizes = {pixels.shape for pairs in images.values() for _, pixels in pairs}
    if len(sizes) > 1:
        raise TrainingError(
            f"{path.name}: images of {len(sizes)} sizes, such as {sorted(sizes)[:2]}; resize them "
            f"to one size",
            code="several_sizes",
        )
    stacks = {split: np.stack([pixels for _, pixels in pairs]) for split, pairs in images.items()}
    labels = {
        split: np.array([classes.index(label) for label, _ in pairs])
        for split, pairs in images.items()
    }
    return Images(stacks["train"], labels["train"], stacks["test"], labels["test"])


def _stratified(labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Sorted indices of `limit` random images with the same share of each class."""
    if limit < 1:
        raise TrainingError(f"limit {limit}: give 1 or more", code="out_of_range")
    random = np.random.default_rng(seed)
    quantile = np.empty(len(labels))  # of each image in the random order of its class
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        quantile[random.permutation(members)] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(np.argsort(quantile, kind="stable")[:limit])
