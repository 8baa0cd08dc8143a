"""Pictures for the depth study, from the usual shapes of small public data sets."""

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

ENDINGS = (".png", ".jpg", ".jpeg")
MAX_PICTURE = 16 << 20  # bytes of one file


def load_pictures(path: Path | str, *, limit: int | None = None, seed: int = 0) -> Images:
    """Read `.npz` (MedMNIST's train_images, train_labels, test_images, test_labels), or a folder or
    `.tar.gz` with train/<class>/* and test/<class>/* in PNG or JPEG, all of one size; classes are
    numbered in order of their names.

    limit: so many pictures of train, and of test, at most, drawn class by class in the same shares,
        by `seed`. Raises TrainingError.
    """
    path = Path(path)
    if not path.exists():
        raise TrainingError(f"pictures {path}: there is no such file or folder")
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
            f"{path.name}: an .npz with {', '.join(names)} is needed ({error})"
        ) from error


def _files(path: Path) -> Iterator[tuple[PurePosixPath, np.ndarray]]:
    """(path below the root, pixels) for each picture, in the order of the folder or archive."""
    if path.is_dir():
        for file in path.rglob("*"):
            if file.suffix.lower() in ENDINGS:
                yield PurePosixPath(file.relative_to(path).as_posix()), _pixels(file)
        return
    with tarfile.open(path) as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            data = (
                archive.extractfile(member)
                if member.isfile() and member.size <= MAX_PICTURE
                else None
            )
            if data is not None and name.suffix.lower() in ENDINGS:
                yield name, _pixels(data)


def _pixels(file: Any) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


def _from_files(path: Path) -> Images:
    found: dict[str, list[tuple[str, np.ndarray]]] = {"train": [], "test": []}
    try:
        for name, pixels in sorted(_files(path), key=lambda item: item[0]):
            if len(name.parts) >= 3 and name.parts[-3] in found:
                found[name.parts[-3]].append((name.parts[-2], pixels))
    except (OSError, tarfile.TarError) as error:
        raise TrainingError(
            f"{path.name}: neither a folder nor an archive of PNG or JPEG pictures ({error})"
        ) from error
    classes = sorted({label for pictures in found.values() for label, _ in pictures})
    if not found["train"] or not found["test"]:
        raise TrainingError(f"{path.name}: no pictures in train/<class>/ and test/<class>/")
    sizes = {pixels.shape for pictures in found.values() for _, pixels in pictures}
    if len(sizes) > 1:
        raise TrainingError(
            f"{path.name}: pictures of {len(sizes)} sizes, such as {sorted(sizes)[:2]}; resize "
            f"them to one"
        )
    stacks = {
        split: np.stack([pixels for _, pixels in pictures]) for split, pictures in found.items()
    }
    labels = {
        split: np.array([classes.index(label) for label, _ in pictures])
        for split, pictures in found.items()
    }
    return Images(stacks["train"], labels["train"], stacks["test"], labels["test"])


def _stratified(labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Sorted indices of `limit` pictures: round-robin over the classes in proportion to their
    sizes.
    """
    if limit < 1:
        raise TrainingError(f"limit {limit}: give 1 or more")
    random = np.random.default_rng(seed)
    share = np.empty(len(labels))
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        share[random.permutation(mine)] = (np.arange(len(mine)) + 0.5) / len(mine)
    return np.sort(np.argsort(share, kind="stable")[:limit])
