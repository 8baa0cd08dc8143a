"""Label maps from DICOM segmentations. Their slices are those that the file stores, and a slice
that it leaves out is background: before they are compared, two maps are put on one grid, without
resampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from data_pipelines.annotations.dicom_seg import (
    LABEL_MAP_SEGMENTATION,
    SEGMENTATION,
    read_segmentation,
)
from data_pipelines.annotations.grids import Grid
from data_pipelines.annotations.label_map import ClassNames
from data_pipelines.dicom.elements import Elements
from data_pipelines.dicom.reader import parse
from data_pipelines.errors import DicomError
from data_pipelines.runtime.limits import active_limits
from medres.errors import EvaluationError
from medres.evaluate.segmentation.surface_elements import FloatArray
from medres.evaluate.segmentation.surfaces import Mask

_WHOLE_STEP = 0.02  # share of the step by which a slice may be off


@dataclass(frozen=True, eq=False)
class Segments:
    """What a DICOM segmentation says beside its voxels. names: label by segment number. grid: of
    the slices that are stored; None where they have no position. step: between slices in mm, None
    where it is unknown.
    """

    names: Mapping[int, str]
    grid: Grid | None = None
    step: float | None = None


@dataclass(frozen=True, eq=False)
class StoredMasks:
    """layers: (layers, slices, rows, columns), the segment number of each voxel; as many layers as
    segments overlap. affine: to LPS mm of the regular grid of the slices.
    """

    layers: NDArray[np.int32]
    segments: Segments
    affine: FloatArray | None = None


def read_stored_masks(path: Path) -> StoredMasks:
    """The masks of a file on the regular grid of its slices. Raises EvaluationError:
    no_segmentation for another DICOM file, irregular_mask, or the code of the reader.
    """
    try:
        header = Elements(parse(path, pixels=False).dataset)
        if header.text("SOPClassUID") not in (SEGMENTATION, LABEL_MAP_SEGMENTATION):
            raise EvaluationError(
                "the DICOM file is no segmentation: leave the folder to segmentations",
                code="no_segmentation",
            )
        raw = read_segmentation(path, ClassNames())
    except DicomError as error:
        raise EvaluationError(str(error), code=error.code) from None
    numbers = _numbers(header)
    table = np.array([0, *(numbers[name] for name in raw.label_map.classes)], np.int32)
    names = {number: name for name, number in numbers.items() if name in raw.label_map.classes}
    stored = StoredMasks(table[raw.label_map.layers], Segments(names, raw.grid, _step(header)))
    return stored if raw.grid is None else _on_regular_grid(stored)


def placed(masks: StoredMasks, affine: FloatArray, shape: tuple[int, ...]) -> NDArray | None:
    """The layers on the grid of another map (slices, rows, columns); None where the grids differ,
    or where a voxel lies on a slice that the other map does not have.
    """
    target = Grid.from_affine(affine, (shape[0], shape[1], shape[2]))
    own, layers = _own_grid(masks), masks.layers
    if own is None:
        return None
    turn = own.turn_to(target)
    turned, layers = own.turned(turn), turn.apply(layers)
    slices = None if turned is None else turned.slices_at(target)
    if slices is None:
        return None
    used = np.zeros(layers.shape[1], np.bool_)
    used[slices[slices >= 0]] = True
    if layers[:, ~used].any():
        return None
    result = np.zeros((len(layers), *shape), layers.dtype)
    result[:, slices >= 0] = layers[:, slices[slices >= 0]]
    return result


def joint_grid(a: StoredMasks, b: StoredMasks) -> tuple[FloatArray, tuple[int, ...]] | None:
    """Affine and shape of the regular grid that holds the slices of both; None if there is none."""
    one, other = _own_grid(a), _own_grid(b)
    if one is None or other is None:
        return None
    turned = other.turned(other.turn_to(one))
    if turned is None or (turned.rows, turned.columns) != (one.rows, one.columns):
        return None
    origins = np.concatenate([one.origins, turned.origins])
    origins = origins[np.argsort(origins @ one.normal, kind="stable")]
    far = np.diff(origins @ one.normal, prepend=-np.inf) > 1e-3
    joined = _regular(replace(one, origins=origins[far]), a.segments.step or b.segments.step)
    affine = None if joined is None else joined.affine
    return None if joined is None or affine is None else (affine, joined.shape)


def spacing_of(affine: FloatArray) -> tuple[float, ...]:
    """mm between neighbors along each axis."""
    return tuple(float(step) for step in np.linalg.norm(affine[:3, :3], axis=0))


def renumbered(layers: NDArray, values: Mapping[int, int]) -> NDArray[np.int32]:
    """Layers with other numbers. values: new by old number, for all that occur but 0."""
    found = np.unique(layers)
    table = np.array([values[int(number)] if number else 0 for number in found], np.int32)
    return np.asarray(table[np.searchsorted(found, layers)])


def mask_in(layers: NDArray, value: int) -> Mask:
    """Where a value is in any of the layers."""
    return np.asarray((layers == value).any(axis=0))


def _own_grid(masks: StoredMasks) -> Grid | None:
    _, slices, rows, columns = masks.layers.shape
    if masks.affine is None:
        return masks.segments.grid
    return Grid.from_affine(masks.affine, (slices, rows, columns))


def _numbers(header: Elements) -> dict[str, int]:
    """Segment number by label, the first of each label; see `read_segmentation`."""
    numbers: dict[str, int] = {}
    for item in map(Elements, header.items("SegmentSequence")):
        number = item.integer("SegmentNumber") or 0
        numbers.setdefault(item.text("SegmentLabel") or f"segment {number}", number)
    return numbers


def _step(header: Elements) -> float | None:
    """mm between slices as the file states it, else their thickness."""
    shared = Elements(header.item("SharedFunctionalGroupsSequence") or Dataset())
    frames = header.items("PerFrameFunctionalGroupsSequence")
    own = Elements(frames[0] if frames else Dataset())
    item = shared.item("PixelMeasuresSequence") or own.item("PixelMeasuresSequence") or Dataset()
    measures = Elements(item)
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = measures.number(keyword)
        if value is not None and 0 < value < np.inf:
            return float(value)
    return None


def _on_regular_grid(stored: StoredMasks) -> StoredMasks:
    """With the slices that the file leaves out between others. A single slice without a step stays
    as it is, without an affine. Raises EvaluationError (irregular_mask, limit_exceeded).
    """
    grid, layers = stored.segments.grid, stored.layers
    if grid is None or (len(grid.origins) == 1 and stored.segments.step is None):
        return stored
    regular = _regular(grid, stored.segments.step)
    if regular is None or regular.affine is None:
        raise EvaluationError(
            "the slices of the segmentation have no constant step, and distances between them "
            "cannot be measured: export it on the slices of its images",
            code="irregular_mask",
        )
    heights = (grid.origins - grid.origins[0]) @ grid.normal
    step = float((regular.origins[1] - regular.origins[0]) @ grid.normal)
    filled = np.zeros((len(layers), *regular.shape), layers.dtype)
    filled[:, np.rint(heights / step).astype(int)] = layers
    return StoredMasks(filled, stored.segments, regular.affine)


def _regular(grid: Grid, step: float | None) -> Grid | None:
    """The grid with all slices at a constant step, two at least; None if there is no such step. A
    stated step that the positions contradict is not used.
    """
    heights = (grid.origins - grid.origins[0]) @ grid.normal
    length = float(heights[-1])
    for candidate in (step, float(np.diff(heights).min()) if len(heights) > 1 else None):
        if candidate is None or candidate <= 0:
            continue
        count = round(length / candidate)
        if (count + 2) * grid.rows * grid.columns > active_limits().inflated:
            raise EvaluationError(
                "the slices of the segmentation lie too far apart", code="limit_exceeded"
            )
        exact = length / count if count else candidate
        numbers = heights / exact
        whole = np.rint(numbers)
        if np.abs(numbers - whole).max() > _WHOLE_STEP or (np.diff(whole) < 1).any():
            continue
        along = (grid.origins[-1] - grid.origins[0]) / length if count else grid.normal
        origins = grid.origins[0] + np.outer(np.arange(max(count + 1, 2)) * exact, along)
        return replace(grid, origins=origins)
    return None
