"""Pictures of the worst cases: one slice with the outlines of both masks, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from scipy import ndimage

from data_pipelines.errors import DicomError
from data_pipelines.sources.nifti import read_nifti
from medres.errors import EvaluationError
from medres.evaluate.segmentation.label_maps import LabelMap, suffix_of
from medres.evaluate.segmentation.surfaces import Mask, bounding_box

REFERENCE_COLOR = (86, 180, 233)  # sky blue
PREDICTION_COLOR = (230, 120, 20)  # orange
SIDE = 320  # pixels of the longer side of a picture
MARGIN = 12  # voxels around both masks
EMPTY_GRAY = 40
IMAGE_SUFFIXES = (".nii", ".nii.gz", ".png", ".jpg", ".jpeg")

Gray = NDArray[np.float64]


def overlay(reference: LabelMap, prediction: LabelMap, value: int, image: Gray | None) -> str:
    """A PNG of the slice with the most voxels that only one of the masks has, as a data URI.

    image: the case's image on the grid of the masks, or None for a gray ground.
    """
    truth, answer = (_stacked(m.mask(value)) for m in (reference, prediction))
    at = int(np.argmax(np.count_nonzero(truth ^ answer, axis=(1, 2))))
    a, b = truth[at], answer[at]
    box = bounding_box(a | b, MARGIN)
    spacing = reference.spacing or prediction.spacing or (1.0, 1.0)
    size = _size(a[box].shape, spacing[-2:])
    ground = np.full(a[box].shape, EMPTY_GRAY, np.uint8)
    if image is not None:
        ground = _shades(_stacked(image)[at][box])
    picture = np.array(
        Image.fromarray(ground).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    )
    for mask, color, width in ((a, REFERENCE_COLOR, 4), (b, PREDICTION_COLOR, 2)):
        picture[_outline(mask[box], size, width)] = color
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _stacked(array: NDArray) -> NDArray:
    return array if array.ndim == 3 else array[None]


def _size(shape: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[int, int]:
    """(width, height) of the picture; pixels are as far apart as in the body."""
    height, width = (n * step for n, step in zip(shape, spacing, strict=True))
    scale = SIDE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _shades(pixels: Gray) -> NDArray[np.uint8]:
    low, high = np.percentile(pixels, [1, 99])
    scaled = (pixels - low) / max(high - low, 1e-12)
    return np.asarray(np.clip(scaled, 0.0, 1.0) * 255.0, np.uint8)


def _outline(mask: Mask, size: tuple[int, int], width: int) -> Mask:
    """The border of a mask at the size of the picture, so many pixels wide."""
    scaled = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)
    large = np.asarray(scaled) > 0
    return np.asarray(large & ~ndimage.binary_erosion(large, iterations=width, border_value=1))


def image_reader(folder: Path | None) -> Callable[[str, tuple[int, ...]], Gray | None]:
    """A function of the name of a case and the shape of its masks, which reads its image.

    It raises EvaluationError (image_grid, unreadable_image).
    """
    if folder is None:
        return lambda name, shape: None
    if not folder.is_dir():
        raise EvaluationError(
            f"the folder of images {folder.name!r} does not exist", code="no_file"
        )
    files = {
        path.relative_to(folder).as_posix()[: -len(suffix_of(path))]: path
        for path in sorted(folder.rglob("*"))
        if suffix_of(path) in IMAGE_SUFFIXES
    }

    def read(name: str, shape: tuple[int, ...]) -> Gray | None:
        path = files.get(name)
        if path is None:
            return None
        pixels = _pixels(path).squeeze()
        if pixels.shape != shape:
            raise EvaluationError(
                "the image of a case does not have the size of its masks: give images on the grid "
                "of the masks, or leave out --images",
                code="image_grid",
            )
        return pixels

    return read


def _pixels(path: Path) -> Gray:
    try:
        if suffix_of(path) in (".nii", ".nii.gz"):
            return np.asarray(read_nifti(path).array, np.float64)
        with Image.open(path, formats=["PNG", "JPEG"]) as image:
            return np.asarray(image.convert("F"), np.float64)
    except (OSError, ValueError, DicomError, UnidentifiedImageError, Image.DecompressionBombError):
        raise EvaluationError(
            "the image of a case cannot be read", code="unreadable_image"
        ) from None
