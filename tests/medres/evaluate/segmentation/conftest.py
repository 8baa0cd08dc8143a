"""Folders of label maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Save = Callable[..., Path]


@pytest.fixture
def save_png(tmp_path: Path) -> Save:
    """save(folder, **cases): arrays as PNG label maps; returns the folder."""

    def save(folder: str, **cases: np.ndarray) -> Path:
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        for name, values in cases.items():
            Image.fromarray(values.astype(np.uint8)).save(path / f"{name}.png")
        return path

    return save


@pytest.fixture
def save_nifti(tmp_path: Path) -> Save:
    """save(folder, affine=..., **cases): arrays (i, j, k) as NIfTI; returns the folder."""
    nibabel = pytest.importorskip("nibabel")

    def save(folder: str, affine: np.ndarray | None = None, **cases: np.ndarray) -> Path:
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        grid = np.diag([2.0, 2.0, 5.0, 1.0]) if affine is None else affine
        for name, values in cases.items():
            image = nibabel.Nifti1Image(values, grid)
            image.header.set_xyzt_units("mm")
            nibabel.save(image, path / f"{name}.nii.gz")
        return path

    return save


def square(top: int, left: int, size: int = 8, shape: tuple[int, int] = (24, 24)) -> np.ndarray:
    """A filled square of label 1."""
    values = np.zeros(shape, np.uint8)
    values[top : top + size, left : left + size] = 1
    return values
