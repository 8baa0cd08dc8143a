"""Back from the grid of a preset to the grid of the images: what becomes of a predicted label map.

The inverse of the resizing and padding of `AxisResize`. Between pixels the shares of the labels are
interpolated and the largest one wins; along the slices of a volume the nearest slice is taken. What
the prepared sample does not cover is background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data_pipelines.pixels.image import Image
from data_pipelines.preprocessing.preparation import resize_axes
from data_pipelines.preprocessing.resize import AxisResize, at_spacing, fit_within, stretch
from data_pipelines.preprocessing.samples import SampleSlices
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.volumes.plane import Plane
from data_pipelines.volumes.resampling import Affine, spacing_of, to_regular_grid
from data_pipelines.volumes.series import classify_spacing

Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class OriginalGrid:
    """Where a prepared sample comes from.

    axes: how the rows and columns, before them the slices of a volume, were resized. planes: of the
    slices of the label map, in order: of an image or the middle of a stack one. affine: of a
    volume, (slice, row, column, 1) to LPS mm. is_resampled: the series has gaps or a tilt, so its
    label map lies on the regular grid of `read_volume(policy="resample")` instead. spacing_mm:
    distance of rows and of columns in the image, None where it is not known. at_detector: whether
    it is that at the detector of a radiograph, where everything is larger than in the patient.
    """

    axes: tuple[AxisResize, ...]
    planes: tuple[Plane, ...]
    affine: Affine | None = None
    is_resampled: bool = False
    spacing_mm: tuple[float, float] | None = None
    at_detector: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the original images: ([slices,] rows, columns)."""
        return tuple(axis.size for axis in self.axes)


def original_grid(
    sample: SampleSlices, planes: Sequence[Plane], middle: Image, spec: PreprocessSpec
) -> OriginalGrid:
    """The grid of one sample. planes: that the sample's indices refer to. middle: the image of its
    middle slice.
    """
    if spec.layout != "volume":
        spacing, at_detector = spacing_of_image(middle)
        return OriginalGrid(
            tuple(resize_axes(middle, spec)),
            (planes[sample.middle],),
            spacing_mm=spacing,
            at_detector=at_detector,
        )
    group = classify_spacing([replace(planes[n], source_index=n) for n in sample.slice_indices])
    first, affine = group.planes[0], group.affine
    shape = (len(group.planes), *middle.pixels.shape[:2])
    resampled = spec.policy == "resample" and group.verdict != "REGULAR"
    if resampled or affine is None:
        regular, affine = to_regular_grid(
            np.zeros(shape, np.float32),
            np.asarray([plane.position for plane in group.planes], np.float64),
            np.asarray(first.orientation, np.float64).reshape(2, 3),
            first.spacing or (1.0, 1.0),
            0.0,
            spec.resampling.step,
        )
        shape = regular.shape
    axes = volume_axes(shape, affine, spec)
    return OriginalGrid(tuple(axes), tuple(group.planes), affine, resampled)


def spacing_of_image(image: Image) -> tuple[tuple[float, float] | None, bool]:
    """Distance of rows and of columns in mm, and whether it is that at the detector (PS3.3
    10.7.1.3): ImagerPixelSpacing, also where PixelSpacing repeats it without a calibration.
    """
    header, spacing = image.header, image.spacing_mm
    detector = header.imager_pixel_spacing
    if spacing is None:
        return detector, detector is not None
    return spacing, spacing == detector and not header.spacing_calibration


def volume_axes(sizes: Sequence[int], affine: Affine, spec: PreprocessSpec) -> list[AxisResize]:
    """How a volume of these sizes is put onto the grid of a spec."""
    if spec.spacing_mm is not None:
        return at_spacing(sizes, spacing_of(affine), spec.prepared_shape, spec.spacing_mm)
    if spec.fit == "stretch":
        return stretch(sizes, spec.prepared_shape)
    return fit_within(sizes, spacing_of(affine), spec.prepared_shape)


def restored_labels(labels: Labels, axes: Sequence[AxisResize]) -> Labels:
    """A label map ([slices,] rows, columns) of the prepared grid on the original one.

    >>> axes = [AxisResize(2, 2, 4), AxisResize(4, 4, 4)]  # two rows were padded to four
    >>> restored_labels(np.array([[0] * 4, [1] * 4, [2] * 4, [0] * 4], np.uint8), axes).tolist()
    [[1, 1, 1, 1], [2, 2, 2, 2]]
    """
    if len(axes) == 2:
        return _restored_plane(labels, axes)
    first = axes[0]
    planes = [labels[n] if 0 <= n < first.out else None for n in _nearest(first)]
    empty = np.zeros(tuple(axis.size for axis in axes[1:]), np.uint8)
    return np.stack(
        [empty if plane is None else _restored_plane(plane, axes[1:]) for plane in planes]
    )


def _nearest(axis: AxisResize) -> list[int]:
    """The prepared sample that is nearest to each original one; outside, no number of a sample."""
    center = (np.arange(axis.size) + 0.5) * axis.inner / axis.size
    index = np.minimum(np.floor(center + 1e-9).astype(int), axis.inner - 1)
    return [int(n) for n in index - (axis.inner - axis.out) // 2]


def _restored_plane(labels: Labels, axes: Sequence[AxisResize]) -> Labels:
    result = np.zeros(tuple(axis.size for axis in axes), np.uint8)
    best = _restored_share(labels == 0, axes)
    for label in np.unique(labels[labels > 0]):
        share = _restored_share(labels == label, axes)
        wins = share > best
        best[wins], result[wins] = share[wins], label
    return result


def _restored_share(mask: NDArray[np.bool_], axes: Sequence[AxisResize]) -> NDArray[np.float64]:
    rows, columns = axes
    return _restored_axis(_restored_axis(mask.astype(np.float64), rows).T, columns).T


def _restored_axis(values: NDArray[np.float64], axis: AxisResize) -> NDArray[np.float64]:
    offset = (axis.inner - axis.out) // 2  # of the crop; negative: of the padding
    if axis.inner >= axis.out:
        inner = np.zeros((axis.inner, *values.shape[1:]))
        inner[offset : offset + axis.out] = values
    else:
        inner = values[-offset : -offset + axis.inner]
    return AxisResize(axis.inner, axis.size, axis.size).apply(inner, 0.0)
