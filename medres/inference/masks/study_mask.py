"""`StudyMask`: a predicted label map on the grid of the images, with volumes. Loads no
TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipelines.annotations.grids import Grid
from data_pipelines.annotations.label_map import LabelMap
from data_pipelines.preprocessing.original_grid import OriginalGrid, restored_labels
from medres.artefact.masks import SegmentationFields

Labels = NDArray[np.uint8]
MM3_PER_ML = 1000.0


@dataclass(frozen=True, eq=False)
class StudyMask:
    """A label map of the images that were predicted.

    labels: uint8 (slices, rows, columns), or (rows, columns) of one image; 0 is background, n is
        `names[n]`.
    names, colors: of the labels; the color is (red, green, blue).
    affine: 4 x 4, (slice, row, column, 1) to LPS mm; None for one image, and for slices without a
        constant step.
    spacing_mm: between neighbors along each axis of `labels`; None where it is not known.
    slices: (SOP Instance UID, 0-based frame) of each slice, in the order of `labels`; () where the
        label map lies on a grid of its own, since the series has gaps or a tilt (is_resampled).
    errors: name -> (share of the volume, alpha): the true volume differs by at most this share, in
        all but the share alpha of patients like those of the tuning split.
    preview: the prepared image with most foreground and its label map, for pictures.
    """

    labels: Labels
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    affine: NDArray[np.float64] | None
    spacing_mm: tuple[float, ...] | None
    slices: tuple[tuple[str, int], ...] = field(repr=False)
    is_resampled: bool = False
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)
    preview: tuple[np.ndarray, Labels] | None = field(default=None, repr=False)

    @property
    def class_colors(self) -> dict[str, tuple[int, int, int]]:
        """Name -> color, without the background."""
        return dict(zip(self.names[1:], self.colors[1:], strict=True))

    @property
    def counts(self) -> dict[str, int]:
        """Name -> pixels or voxels, without the background."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.names))
        return {name: int(n) for name, n in zip(self.names[1:], counts[1:], strict=True)}

    @property
    def volumes(self) -> dict[str, dict[str, float | None]]:
        """Name -> `ml`, with `ml_low` and `ml_high` where the card has an error of the volume; of
        one image `mm2`. {} without a spacing.
        """
        if self.spacing_mm is None:
            return {}
        size = float(np.prod(self.spacing_mm))
        if self.labels.ndim == 2:
            return {name: {"mm2": n * size} for name, n in self.counts.items()}
        found: dict[str, dict[str, float | None]] = {}
        for name, n in self.counts.items():
            ml, (off, alpha) = n * size / MM3_PER_ML, self.errors.get(name, (None, None))
            found[name] = {"ml": ml}
            if off is not None:
                found[name] |= {
                    "ml_low": max(0.0, ml * (1 - off)),
                    "ml_high": ml * (1 + off),
                    "alpha": alpha,
                }
        return found

    @property
    def label_map(self) -> LabelMap:
        """With one layer, and an axis of slices also for one image."""
        labels = self.labels if self.labels.ndim == 3 else self.labels[np.newaxis]
        return LabelMap(labels[np.newaxis], self.names[1:], self.affine)

    def as_dict(self) -> dict[str, Any]:
        """What JSON has of it: everything but the pixels."""
        return {
            "shape": list(self.labels.shape),
            "voxels": self.counts,
            "volumes": self.volumes,
            "affine": None if self.affine is None else self.affine.tolist(),
            "spacing_mm": None if self.spacing_mm is None else list(self.spacing_mm),
            "is_resampled": self.is_resampled,
        }


def study_masks(
    prepared: Sequence[Labels],
    grids: Sequence[OriginalGrid],
    slices: Sequence[Sequence[tuple[str, int]]],
    names: Sequence[str],
    fields: SegmentationFields,
    images: Sequence[np.ndarray] = (),
) -> tuple[StudyMask, ...]:
    """The label maps of the samples of a study on the grid of its images. Slices of one series that
    were predicted one by one, with a constant step, become one volume.

    prepared: of each sample, on the grid of the preprocessing, after the post-processing. slices:
    of each sample, as in `Study`. images: prepared ones, for the previews.
    """
    masks = []
    for n, (labels, grid) in enumerate(zip(prepared, grids, strict=True)):
        own = tuple(slices[n]) if len(grid.planes) > 1 else (slices[n][len(slices[n]) // 2],)
        masks.append(
            StudyMask(
                labels=restored_labels(labels, grid.axes),
                names=tuple(names),
                colors=tuple(fields.colors),
                affine=grid.affine,
                spacing_mm=_spacing(grid),
                slices=() if grid.is_resampled else own,
                is_resampled=grid.is_resampled,
                errors={
                    rule.name: (rule.volume_error, rule.alpha)
                    for rule in fields.postprocess
                    if rule.volume_error is not None and rule.alpha is not None
                },
                preview=_preview(images[n], labels) if len(images) else None,
            )
        )
    joined = _joined(masks, grids)
    return tuple(masks) if joined is None else (joined,)


def _spacing(grid: OriginalGrid) -> tuple[float, ...] | None:
    if grid.affine is not None:
        return tuple(float(step) for step in np.linalg.norm(grid.affine[:3, :3], axis=0))
    return grid.planes[0].spacing


def _preview(image: np.ndarray, labels: Labels) -> tuple[np.ndarray, Labels]:
    if labels.ndim == 2:
        return image, labels
    at = int((labels > 0).sum(axis=(1, 2)).argmax())
    return image[at], labels[at]


def _joined(masks: Sequence[StudyMask], grids: Sequence[OriginalGrid]) -> StudyMask | None:
    """One volume of the slices of a series; None for other samples."""
    planes = [plane for grid in grids for plane in grid.planes]
    if len(masks) < 2 or len(planes) != len(masks):
        return None
    first = planes[0]
    same = all(
        plane.is_slice
        and (plane.series, plane.orientation, plane.spacing)
        == (first.series, first.orientation, first.spacing)
        and mask.labels.shape == masks[0].labels.shape
        for plane, mask in zip(planes, masks, strict=True)
    )
    grid = Grid.from_planes(planes) if same else None
    if grid is None:
        return None
    order = np.argsort(grid.origins @ grid.normal, kind="stable").tolist()
    ordered = Grid.from_planes([planes[n] for n in order])
    affine = None if ordered is None else ordered.affine
    if affine is None:
        return None
    best = max(masks, key=lambda mask: np.count_nonzero(mask.labels))
    return StudyMask(
        labels=np.stack([masks[n].labels for n in order]),
        names=best.names,
        colors=best.colors,
        affine=affine,
        spacing_mm=tuple(float(step) for step in np.linalg.norm(affine[:3, :3], axis=0)),
        slices=tuple(masks[n].slices[0] for n in order),
        errors=best.errors,
        preview=best.preview,
    )
