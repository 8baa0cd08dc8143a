"""Reads label maps: one array of class numbers per case, with its grid.

NIfTI is turned to the axes of a DICOM series, so two files that differ only in the order or the
direction of their axes are on one grid. A further format is a row of `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from data_pipelines.errors import DicomError
from data_pipelines.sources.nifti import read_nifti
from medres.errors import EvaluationError
from medres.evaluate.segmentation.surface_elements import FloatArray
from medres.evaluate.segmentation.surfaces import Mask

GRID_TOLERANCE = 1e-3  # mm
GRAYSCALE_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
MAX_PIXELS = 1 << 29  # of a PNG


@dataclass(frozen=True, eq=False)
class LabelMap:
    """values: (slices, rows, columns) or (rows, columns) integers. spacing: between neighbors along
    each axis in mm, None where the file has none. affine: 4 x 4 to LPS mm, None where the file has
    none.
    """

    values: NDArray[np.integer]
    spacing: tuple[float, ...] | None = None
    affine: FloatArray | None = None

    def mask(self, value: int) -> Mask:
        """Where a class is."""
        return np.asarray(self.values == value)

    def labels(self) -> set[int]:
        """The values that occur, without 0, the background."""
        return {int(value) for value in np.unique(self.values)} - {0}

    def with_spacing(self, spacing: tuple[float, ...] | None) -> LabelMap:
        """With a spacing that is stated for files without one. Raises EvaluationError
        (spacing_conflict, spacing_axes)."""
        if spacing is None:
            return self
        if len(spacing) != self.values.ndim:
            raise EvaluationError(
                f"the spacing has {len(spacing)} values and the mask has {self.values.ndim} axes: "
                "give one for each axis, in mm, in the order slices, rows, columns",
                code="spacing_axes",
            )
        if self.spacing is not None and not np.allclose(self.spacing, spacing, atol=GRID_TOLERANCE):
            raise EvaluationError(
                f"the spacing is stated as {_mm(spacing)}, and the file says "
                f"{_mm(self.spacing)}: leave out --spacing",
                code="spacing_conflict",
            )
        return LabelMap(self.values, spacing, self.affine)


def read_label_map(path: Path) -> LabelMap:
    """The label map of a file. Raises EvaluationError: unknown_format, float_mask, color_mask,
    unreadable_mask, or the code of the reader.
    """
    reader = READERS.get(suffix_of(path))
    if reader is None:
        raise EvaluationError(
            f"files of the kind {suffix_of(path)!r} are no label maps: give "
            f"{', '.join(sorted(READERS))}",
            code="unknown_format",
        )
    return reader(path)


def suffix_of(path: Path) -> str:
    """.nii.gz for name.nii.gz, in lower case.

    >>> suffix_of(Path("a.b.NII.GZ")), suffix_of(Path("a.png"))
    ('.nii.gz', '.png')
    """
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def same_grid(a: LabelMap, b: LabelMap) -> str | None:
    """Why two label maps are not on one grid, or None."""
    if a.values.shape != b.values.shape:
        return f"{_size(a.values)} against {_size(b.values)} voxels"
    if (a.affine is None) != (b.affine is None):
        return "only one of the files says where its voxels lie, as NIfTI does and PNG does not"
    if a.affine is not None and b.affine is not None:
        shape = (1,) * (3 - a.values.ndim) + a.values.shape
        far = np.abs(_grid_corners(a.affine, shape) - _grid_corners(b.affine, shape)).max()
        return f"the same voxels are up to {far:.4g} mm apart" if far > GRID_TOLERANCE else None
    if a.spacing is None or b.spacing is None:
        return None
    if np.allclose(a.spacing, b.spacing, atol=GRID_TOLERANCE, rtol=0.0):
        return None
    return f"the spacing is {_mm(a.spacing)} against {_mm(b.spacing)}"


def _read_nifti(path: Path) -> LabelMap:
    try:
        volume = read_nifti(path)
    except DicomError as error:
        raise EvaluationError(str(error), code=error.code) from None
    values = _whole_numbers(volume.array)
    if values.shape[0] == 1:
        return LabelMap(values[0], volume.spacing[1:], volume.affine)
    return LabelMap(values, volume.spacing, volume.affine)


def _read_png(path: Path) -> LabelMap:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise EvaluationError("the PNG is too large", code="limit_exceeded")
            if image.mode not in GRAYSCALE_MODES:
                raise EvaluationError(
                    f"the PNG has colors (mode {image.mode}), and a label map has one number per "
                    "pixel: save it in grayscale or with a palette whose index is the class",
                    code="color_mask",
                )
            values = np.array(image)
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, EvaluationError):
            raise
        raise EvaluationError(
            f"the file cannot be read as PNG ({type(error).__name__})", code="unreadable_mask"
        ) from None
    return LabelMap(values.astype(np.uint8) if values.dtype == np.bool_ else values)


READERS: dict[str, Callable[[Path], LabelMap]] = {
    ".nii": _read_nifti,
    ".nii.gz": _read_nifti,
    ".png": _read_png,
}


def _whole_numbers(values: NDArray) -> NDArray[np.integer]:
    if values.dtype.kind in "iu":
        return values
    whole = np.rint(values)
    if (whole != values).any() or np.abs(whole).max() > np.iinfo(np.int32).max:
        raise EvaluationError(
            "the mask holds fractions, such as probabilities: a label map has whole numbers; apply "
            "the threshold that you have chosen, and save the classes",
            code="float_mask",
        )
    return whole.astype(np.int32)


def _grid_corners(affine: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """LPS mm of the first and last voxels along each axis."""
    index = np.array(list(product(*((0, size - 1) for size in shape))))
    return np.asarray(index @ affine[:3, :3].T + affine[:3, 3], np.float64)


def _size(values: NDArray) -> str:
    return " x ".join(map(str, values.shape))


def _mm(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.6g}" for value in spacing) + " mm"
