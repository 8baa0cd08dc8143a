"""Reads a NIfTI label map (with the extra `nifti`): whole numbers, RAS turned to LPS."""

from __future__ import annotations

from data_pipelines.annotations.grids import Grid
from data_pipelines.annotations.label_map import ClassNames, label_map_of
from data_pipelines.annotations.raw_mask import RawMask
from data_pipelines.sources.nifti import read_nifti


def read_nifti_mask(data: bytes, names: ClassNames) -> RawMask:
    """The bytes of a .nii or .nii.gz file as a mask on its own grid. Axes are permuted and flipped
    into the order of a DICOM series, never interpolated.

    Raises the errors of `read_nifti`, among them bad_spacing (a zero affine), sheared_affine and
    no_nibabel; and those of `label_map_of`, among them float_mask.
    """
    volume = read_nifti(data)
    slices, rows, columns = volume.array.shape
    label_map = label_map_of(volume.array, names)
    grid = Grid.from_affine(volume.affine, (slices, rows, columns))
    return RawMask(label_map, grid, (None,) * slices, flags=volume.repairs)
