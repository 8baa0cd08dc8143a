"""Reads label maps: one array of class numbers per case, with its grid.

NIfTI is turned to the axes of a DICOM series, so two files that differ only in the order or the
direction of their axes are on one grid. A DICOM segmentation may leave out slices, and names its
classes: `on_one_grid` and `with_values` prepare it. A further format is a row of `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from data_pipelines.errors import DicomError
from data_pipelines.sources.nifti import read_nifti
from medres.errors import EvaluationError
from medres.evaluate.segmentation.dicom_label_maps import (
    StoredMasks,
    joint_grid,
    mask_in,
    placed,
    read_stored_masks,
    renumbered,
    spacing_of,
)
from medres.evaluate.segmentation.surface_elements import FloatArray
from medres.evaluate.segmentation.surfaces import Mask

GRID_TOLERANCE = 1e-3  # mm
GRAYSCALE_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
MAX_PIXELS = 1 << 29  # of a PNG


@dataclass(frozen=True, eq=False)
class LabelMap:
    """values: (slices, rows, columns) or (rows, columns) integers. spacing: between neighbors along
    each axis in mm, None where the file has none. affine: 4 x 4 to LPS mm, None where the file has
    none. stored: of a DICOM segmentation, its layers and names; `values` is the first layer, and
    classes may overlap.
    """

    values: NDArray[np.integer]
    spacing: tuple[float, ...] | None = None
    affine: FloatArray | None = None
    stored: StoredMasks | None = None

    def mask(self, value: int) -> Mask:
        """Where a class is."""
        if self.stored is not None:
            return mask_in(self.stored.layers, value).reshape(self.values.shape)
        return np.asarray(self.values == value)

    def labels(self) -> set[int]:
        """The values that occur, without 0, the background."""
        values = self.values if self.stored is None else self.stored.layers
        return {int(value) for value in np.unique(values)} - {0}

    @property
    def names(self) -> Mapping[int, str]:
        """Label by value, where the file names its classes."""
        return {} if self.stored is None else self.stored.segments.names

    def with_values(self, values: Mapping[int, int]) -> LabelMap:
        """A DICOM segmentation with other values for its segments. values: new by old value."""
        if self.stored is None:
            return self
        layers = renumbered(self.stored.layers, values)
        stored = replace(self.stored, layers=layers)
        return replace(self, values=layers[0].reshape(self.values.shape), stored=stored)

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
        return replace(self, spacing=spacing)


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


def on_one_grid(a: LabelMap, b: LabelMap) -> tuple[LabelMap, LabelMap]:
    """Both maps with the slices of both, where one is a DICOM segmentation that leaves out slices.
    Maps on different grids stay as they are; `same_grid` says why.
    """
    if a.stored is None and b.stored is None:
        return a, b
    if a.stored is not None and b.stored is not None:
        joint = joint_grid(a.stored, b.stored)
        if joint is None:
            return a, b
        both = [_placed_on(each, *joint) for each in (a, b)]
        return (a, b) if both[0] is None or both[1] is None else (both[0], both[1])
    if b.stored is None:
        other, own = on_one_grid(b, a)
        return own, other
    if a.affine is None:
        return a, b
    shape = (1,) * (3 - a.values.ndim) + a.values.shape
    placed_map = _placed_on(b, a.affine, shape)
    if placed_map is None:
        return a, b
    return a, replace(
        placed_map, values=placed_map.values.reshape(a.values.shape), spacing=a.spacing
    )


def _placed_on(label_map: LabelMap, affine: FloatArray, shape: tuple[int, ...]) -> LabelMap | None:
    if label_map.stored is None:
        return None
    layers = placed(label_map.stored, affine, shape)
    if layers is None:
        return None
    stored = StoredMasks(layers, label_map.stored.segments, affine)
    return LabelMap(layers[0], spacing_of(affine), affine, stored)


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


def _read_dicom(path: Path) -> LabelMap:
    stored = read_stored_masks(path)
    values = stored.layers[0]
    if stored.affine is not None:
        return LabelMap(values, spacing_of(stored.affine), stored.affine, stored)
    grid = stored.segments.grid
    if len(values) > 1:
        return LabelMap(values, None, None, stored)
    steps = None if grid is None else (grid.row_step, grid.column_step)
    spacing = None if steps is None else tuple(float(np.linalg.norm(step)) for step in steps)
    return LabelMap(values[0], spacing, None, stored)


READERS: dict[str, Callable[[Path], LabelMap]] = {
    ".nii": _read_nifti,
    ".nii.gz": _read_nifti,
    ".png": _read_png,
    ".dcm": _read_dicom,
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
