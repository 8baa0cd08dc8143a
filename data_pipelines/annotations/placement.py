"""Brings the masks of one image onto its grid, and makes its label map. Runs in workers.

The same grid, up to a permutation and flips of the axes, is copied exactly. Another grid is refused
unless resampling was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from data_pipelines.annotations.dicom_seg import read_segmentation
from data_pipelines.annotations.grids import Grid
from data_pipelines.annotations.label_map import ClassNames, LabelMap
from data_pipelines.annotations.mask_resampling import changed_share, resample_layers
from data_pipelines.annotations.nifti_mask import read_nifti_mask
from data_pipelines.annotations.raster_mask import read_raster_mask
from data_pipelines.annotations.raw_mask import Identity, RawMask, Target
from data_pipelines.annotations.references import WITH_REFERENCES, MaskFormat, identity_of
from data_pipelines.annotations.rtstruct import read_structures
from data_pipelines.annotations.store import label_map_bytes
from data_pipelines.dicom.elements import Elements
from data_pipelines.dicom.reader import parse
from data_pipelines.errors import AnnotationError, DicomError
from data_pipelines.preprocessing.resize import stretch
from data_pipelines.runtime.storage import read_source

#: relative difference of proportions up to which a mask without a position may be resized
_PROPORTIONS = 0.01


@dataclass(frozen=True)
class MaskSource:
    """One mask of one image.

    path: of the file; '' where a table says that the image was assessed and nothing was found.
    name: the path in the reports. file_format: see `MaskFormat`. slice_number: the slice of the
    target that a 2D mask is of; None for all. class_name: the class of everything in the file; ''
    where the file has labels. offset: (row, column) of the first pixel of a crop; None where the
    mask is as large as its image. declared: a table says that it belongs to this image.
    """

    path: str
    name: str
    file_format: MaskFormat
    slice_number: int | None = None
    class_name: str = ""
    offset: tuple[int, int] | None = None
    declared: bool = False


@dataclass(frozen=True)
class Job:
    """The masks of one target. names: see ClassNames. resample: masks on other grids are
    resampled. label_order: which class wins where classes overlap; None keeps overlaps.
    """

    target: Target
    sources: tuple[MaskSource, ...]
    names: ClassNames
    resample: bool = False
    label_order: str | None = None


@dataclass
class Outcome:
    """What became of one mask. code: '' where it was used. changed: see `changed_share`; 0 for an
    exact copy. before, after: ml of each class on the grid of the mask and of the image, where it
    was resampled.
    """

    name: str
    code: str = ""
    message: str = ""
    flags: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    changed: float = 0.0
    before_ml: dict[str, float] = field(default_factory=dict)
    after_ml: dict[str, float] = field(default_factory=dict)


@dataclass
class Made:
    """The label map of one target: its file, its classes and (slices, classes) voxels; no file
    where a mask was refused. voxel_ml: None where the volume of a voxel is unknown. flags: codes
    about all masks together.
    """

    outcomes: list[Outcome]
    data: bytes | None = None
    classes: tuple[str, ...] = ()
    voxels: np.ndarray | None = None
    voxel_ml: float | None = None
    overlap_voxels: int = 0
    flags: tuple[str, ...] = ()


def make_label_map(job: Job) -> Made:
    """Read the masks of one target and join them to one label map. A mask that cannot be used is
    an outcome with its code, and the target then has no label map.
    """
    try:
        _require_all_slices(job)
    except AnnotationError as error:
        return Made([Outcome(source.name, error.code, str(error)) for source in job.sources])
    outcomes, placed = [], []
    for source in job.sources:
        try:
            label_map, outcome = _placed(source, job)
        except DicomError as error:
            outcome = Outcome(source.name, error.code, str(error))
        else:
            placed.append(label_map)
        outcomes.append(outcome)
    if any(outcome.code for outcome in outcomes):
        return Made(outcomes)
    return _joined(job, placed, outcomes)


def _require_all_slices(job: Job) -> None:
    """A slice that is absent from a stack of 2D masks is an error, not background."""
    numbers = {source.slice_number for source in job.sources} - {None}
    missing = job.target.shape[0] - len(numbers)
    if numbers and missing:
        raise AnnotationError(
            f"{missing} of {job.target.shape[0]} slices of the image have no mask. Give each slice "
            f"one; an empty one means that nothing is there.",
            code="missing_slice",
        )


def _joined(job: Job, placed: Sequence[LabelMap], outcomes: list[Outcome]) -> Made:
    target = job.target
    classes = tuple(dict.fromkeys(name for label_map in placed for name in label_map.classes))
    grid_affine = None if target.grid is None else target.grid.affine
    joined = LabelMap.empty(target.shape, classes)
    own_flags = dict.fromkeys(flag for outcome in outcomes for flag in outcome.flags)
    flags: dict[str, None] = {}
    drawn = [
        name
        for label_map, source in zip(placed, job.sources, strict=True)
        if not source.declared
        for name in label_map.classes
    ]
    if len(set(drawn)) < len(drawn) and not _is_stack(job):
        flags["class_in_several_masks"] = None
    for label_map in placed:
        for name in label_map.classes:
            joined = joined.with_plane(name, label_map.plane(name))
    overlap = joined.overlap_voxels
    if overlap:
        flags["overlap"] = None
        if job.label_order is not None:
            named = [n.strip() for n in job.label_order.split("<")]
            order = "<".join(n for n in named if n in classes)
            joined = joined.resolved(order)
            flags["overlap_resolved"] = None
    joined = joined.changed(affine=grid_affine, images=target.images, flags=(*own_flags, *flags))
    voxel_ml = None if grid_affine is None else _voxel_ml(grid_affine)
    counts = joined.counts_by_slice()
    data = label_map_bytes(joined)
    return Made(outcomes, data, classes, counts, voxel_ml, overlap, tuple(flags))


def _is_stack(job: Job) -> bool:
    """Whether there is one 2D mask for each slice."""
    return any(source.slice_number is not None for source in job.sources)


def _placed(source: MaskSource, job: Job) -> tuple[LabelMap, Outcome]:
    """One mask in the grid of the target."""
    if not source.path:
        empty = LabelMap.empty(job.target.shape, ())
        return empty, Outcome(source.name, flags=("empty_mask",))
    raw, identity = _read(source, job)
    flags = list(raw.flags)
    if identity is not None and identity.is_other_patient(job.target.identity):
        raise AnnotationError(
            "The mask names another patient than its image.", code="wrong_patient"
        )
    if source.offset is not None or source.file_format == "raster":
        label_map, outcome = _placed_flat(raw, source, job)
    else:
        label_map, outcome = _placed_in_patient(raw, source, job, identity)
    if not label_map.layers.any():
        flags.append("empty_mask")
    outcome.flags = tuple(dict.fromkeys((*flags, *outcome.flags)))
    outcome.classes = label_map.classes
    return label_map, outcome


def _read(source: MaskSource, job: Job) -> tuple[RawMask, Identity | None]:
    if not Path(source.path).is_file():
        raise AnnotationError(
            "The mask that masks.csv names does not exist. Its path is relative to the folder of "
            "the table.",
            code="mask_missing",
        )
    names = ClassNames({"*": source.class_name}) if source.class_name else job.names
    data = read_source(source.path)
    if source.file_format in _IMAGE_READERS:
        return _IMAGE_READERS[source.file_format](data, names), None
    if source.file_format not in WITH_REFERENCES:
        raise AnnotationError(
            "The mask is none of the formats that are read: PNG, NIfTI, DICOM SEG and RTSTRUCT.",
            code="mask_format",
        )
    parsed = parse(data, pixels=False)
    identity = identity_of(Elements(parsed.dataset))
    if source.file_format == "structures":
        return read_structures(parsed.dataset, job.target.grid, names), identity
    return read_segmentation(data, names), identity


_IMAGE_READERS: dict[str, Callable[[bytes, ClassNames], RawMask]] = {
    "raster": read_raster_mask,
    "nifti": read_nifti_mask,
}


def _placed_flat(raw: RawMask, source: MaskSource, job: Job) -> tuple[LabelMap, Outcome]:
    """A mask of one slice without a position: of the same size, or a crop with its offset."""
    slices, rows, columns = job.target.shape
    if raw.label_map.shape[0] > 1:
        raise AnnotationError(
            "The mask is a volume, and offsets are for 2D masks.", code="volume_on_image"
        )
    if slices > 1 and source.slice_number is None:
        raise AnnotationError(
            "The mask is one image, and what it belongs to is a volume. Give a volume, or one mask "
            "for each slice.",
            code="image_on_volume",
        )
    outcome = Outcome(source.name)
    _, *size = raw.label_map.shape
    top, left = source.offset or (0, 0)
    if source.offset is not None:
        if top < 0 or left < 0 or top + size[0] > rows or left + size[1] > columns:
            raise AnnotationError(
                f"The crop of {size[0]} x {size[1]} pixels at row {top}, column {left} reaches out "
                f"of the image of {rows} x {columns}.",
                code="off_image",
            )
    elif size != [rows, columns]:
        raw, outcome = _resized(raw, source, job)
        size = [rows, columns]
    number = source.slice_number or 0
    layers = np.zeros((len(raw.label_map.layers), *job.target.shape), np.uint8)
    layers[:, number, top : top + size[0], left : left + size[1]] = raw.label_map.layers[:, 0]
    return raw.label_map.changed(layers=layers), outcome


def _resized(raw: RawMask, source: MaskSource, job: Job) -> tuple[RawMask, Outcome]:
    """A mask of other size with the proportions of its image, edge to edge, if that was asked."""
    _, rows, columns = job.target.shape
    _, *size = raw.label_map.shape
    ratio = (size[0] / rows) / (size[1] / columns)
    if not job.resample or abs(ratio - 1) > _PROPORTIONS:
        advice = "--resample-masks resizes it"
        if abs(ratio - 1) > _PROPORTIONS:
            advice = "Its proportions differ: export it again in the size of the image"
        raise AnnotationError(
            f"The mask has {size[0]} x {size[1]} pixels, the image {rows} x {columns}. {advice}, "
            f"or masks.csv gives the offset of a crop.",
            code="wrong_size",
        )
    steps = [axis.size / axis.out for axis in stretch(size, (rows, columns))]
    affine = np.eye(4)
    own = np.diag([1.0, *steps, 1.0])
    own[1:3, 3] = [(step - 1) / 2 for step in steps]
    target = Grid.from_affine(own, (1, rows, columns))
    layers = resample_layers(raw.label_map.layers, affine, target)
    label_map = raw.label_map.changed(layers=layers)
    lost = _lost(raw.label_map, label_map)
    outcome = Outcome(source.name, flags=("resampled", *lost))
    return replace(raw, label_map=label_map), outcome


def _placed_in_patient(
    raw: RawMask, source: MaskSource, job: Job, identity: Identity | None
) -> tuple[LabelMap, Outcome]:
    """A mask with a position or with references to images."""
    target = job.target
    refers = source.declared or (
        identity is not None and bool(identity.sop_uids & target.identity.sop_uids)
    )
    if raw.grid is None or target.grid is None:
        if identity is None:
            raise AnnotationError(
                "The mask is a volume with a position, and the image has none.",
                code="volume_on_image",
            )
        return _placed_by_frame(raw, target), Outcome(source.name)
    exact = _same_grid(raw, target.grid)
    flags = []
    if identity is not None:
        own, other = identity.frame_of_reference, target.identity.frame_of_reference
        if not own or own != other:
            if not refers or exact is None:
                raise AnnotationError(
                    "The mask is in another frame of reference than its image, and neither its "
                    "referenced images nor its geometry show that they belong together.",
                    code="wrong_frame_of_reference",
                )
            flags.append("frame_of_reference_differs" if own else "frame_of_reference_absent")
    if exact is not None:
        return exact, Outcome(source.name, flags=tuple(flags))
    label_map, outcome = _resampled(raw, source, job)
    outcome.flags = (*flags, *outcome.flags)
    return label_map, outcome


def _same_grid(raw: RawMask, grid: Grid) -> LabelMap | None:
    """An exact copy onto `grid`; None where the mask lies on another grid.

    Raises AnnotationError: missing_slice where a slice of a volume is absent, off_image where the
    mask has voxels on slices that the image does not have.
    """
    assert raw.grid is not None  # noqa: S101  checked by the caller
    turn = raw.grid.turn_to(grid)
    own = raw.grid.turned(turn)
    sources = None if own is None else own.slices_at(grid)
    if sources is None or (sources < 0).all():
        return None
    layers = turn.apply(raw.label_map.layers)
    used = np.zeros(layers.shape[1], np.bool_)
    used[sources[sources >= 0]] = True
    if layers[:, ~used].any():
        raise AnnotationError(
            f"The mask has voxels on {int((~used).sum())} slices that are not in the image.",
            code="off_image",
        )
    if not raw.sparse and (sources < 0).any():
        raise AnnotationError(
            f"{int((sources < 0).sum())} of {len(sources)} slices of the image are absent from the "
            f"mask.",
            code="missing_slice",
        )
    placed = np.zeros((len(layers), *grid.shape), np.uint8)
    placed[:, sources >= 0] = layers[:, sources[sources >= 0]]
    return raw.label_map.changed(layers=placed, affine=grid.affine)


def _placed_by_frame(raw: RawMask, target: Target) -> LabelMap:
    """A segmentation of images without a position: by referenced frame, rows and columns."""
    if raw.label_map.shape[1:] != target.shape[1:]:
        _, rows, columns = raw.label_map.shape
        raise AnnotationError(
            f"The mask has {rows} x {columns} pixels, the image {target.shape[1]} x "
            f"{target.shape[2]}.",
            code="wrong_size",
        )
    number = {frame: n for n, frame in enumerate(target.frames)}
    layers = np.zeros((len(raw.label_map.layers), *target.shape), np.uint8)
    slots = {slot: number[frame] for slot, frame in enumerate(raw.frames) if frame in number}
    if not slots:
        raise AnnotationError(
            "No frame of the mask was drawn on this image.", code="wrong_reference"
        )
    for slot, position in slots.items():
        layers[:, position] = raw.label_map.layers[:, slot]
    return raw.label_map.changed(layers=layers)


def _resampled(raw: RawMask, source: MaskSource, job: Job) -> tuple[LabelMap, Outcome]:
    grid = job.target.grid
    assert grid is not None and raw.grid is not None  # noqa: S101, PT018  checked by the caller
    if raw.grid.is_apart_from(grid):
        raise AnnotationError("The mask lies outside the image.", code="off_image")
    if not job.resample:
        raise AnnotationError(
            "The mask lies on another grid than its image. --resample-masks resamples it.",
            code="other_grid",
        )
    raw = _with_all_slices(raw)
    affine = None if raw.grid is None else raw.grid.affine
    if affine is None:
        raise AnnotationError(
            "The slices of the mask have no constant step, so that it cannot be resampled.",
            code="irregular_mask",
        )
    before = raw.label_map
    after = before.changed(layers=resample_layers(before.layers, affine, grid), affine=grid.affine)
    if before.layers.any() and not after.layers.any():
        raise AnnotationError(
            "No voxel of the mask is left in the image: it lies outside, or it is smaller than "
            "half a voxel.",
            code="off_image",
        )
    own_ml = _voxel_ml(affine)
    target_ml = float("nan") if grid.affine is None else _voxel_ml(grid.affine)
    return after, Outcome(
        source.name,
        flags=("resampled", *_lost(before, after)),
        changed=changed_share(before.layers, affine, after.layers, grid),
        before_ml={name: n * own_ml for name, n in before.counts().items()},
        after_ml={name: n * target_ml for name, n in after.counts().items()},
    )


def _lost(before: LabelMap, after: LabelMap) -> tuple[str, ...]:
    left = after.counts()
    is_lost = any(count and not left[name] for name, count in before.counts().items())
    return ("label_lost",) if is_lost else ()


def _with_all_slices(raw: RawMask) -> RawMask:
    """A sparse segmentation with the empty slices that its file leaves out."""
    assert raw.grid is not None  # noqa: S101  checked by the caller
    numbers = raw.grid.whole_steps() if raw.sparse and raw.grid.affine is None else None
    if numbers is None:
        return raw
    label_map = raw.label_map
    layers = np.zeros((len(label_map.layers), int(numbers[-1]) + 1, *label_map.shape[1:]), np.uint8)
    layers[:, numbers] = label_map.layers
    first, last = raw.grid.origins[[0, -1]]
    origins = first + np.linspace(0, 1, layers.shape[1])[:, np.newaxis] * (last - first)
    return replace(
        raw,
        label_map=label_map.changed(layers=layers),
        grid=replace(raw.grid, origins=origins),
        frames=(),
    )


def _voxel_ml(affine: np.ndarray) -> float:
    return float(abs(np.linalg.det(affine[:3, :3]))) / 1000
