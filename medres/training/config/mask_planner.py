"""A proposal for the settings of a segmenter, by the rules of nnU-Net (Isensee et al. 2021) as far
as they go with a backbone of fixed depth: spacing, size and patch follow from the fingerprint of
the data and from the memory, each with its reason.

What is left out of nnU-Net: the choice between 2D and 3D by cross-validation, and levels by the
size of the patch. A backbone has four levels after its stem; the stem decides how small the last
map is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from data_pipelines.annotations import read_label_map
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.kinds import image_kind
from medres.errors import TrainingError
from medres.training.config.planner import TrainingProposal, device_memory

MAX_SERIES = 200  # of which spacing and size are read
MIN_SLICES = 12  # of the median series, for a network in 3D
ANISOTROPY = 3.0  # ratio of spacings above which nnU-Net calls a volume anisotropic
STRIDE = 8  # of the deepest map with the small stem
LARGE_SIDE = 512  # px, from which on the stem may reduce
BYTES_PER_VOXEL = 2048  # of training with 32 channels in float32
CPU_VOXELS = 1 << 19  # of a batch, without a GPU
MIN_BATCH = 2
FOREGROUND = 0.3333
UPDATES = {True: 8000, False: 2000}  # optimizer steps of a run, by whether there is a GPU
MAX_SIDE = {True: 512, False: 256}  # px of an image in 2D
Shape = tuple[int, ...]


@dataclass(frozen=True)
class MaskFingerprint:
    """The input of the rules. All but `tune_patients` is of the annotated training images.

    images: samples, which are series where the network may be 3D. shapes: (slices, rows, columns)
    of each series, or (rows, columns) of each image. spacings: in mm along the same axes, of the
    series where they are known. rarest: the smallest share that a class has of all pixels.
    """

    kind: str
    images: int
    patients: int
    tune_patients: int
    shapes: tuple[Shape, ...] = field(repr=False)
    spacings: tuple[tuple[float, ...], ...] = field(repr=False)
    classes: tuple[str, ...]
    rarest: float
    gpu: bool
    memory_gib: float

    @property
    def median_slices(self) -> float:
        """1 for images."""
        return float(np.median([s[0] if len(s) == 3 else 1 for s in self.shapes]))


def plan_masks(work: Path | str, *, kind: str | None = None) -> TrainingProposal:
    """The proposal for a segmenter on a work folder that was ingested with masks. Raises
    TrainingError (several_kinds, no_masks, no_spacing).
    """
    return plan_masks_for(mask_fingerprint(work, kind))


def plan_masks_for(facts: MaskFingerprint) -> TrainingProposal:
    """The proposal for a fingerprint."""
    chosen: dict[str, Any] = {"task": "segmentation"}
    reasons = {"task": f"the work folder has masks of {', '.join(facts.classes)}"}
    is_volume = image_kind(facts.kind).has_series and facts.median_slices >= MIN_SLICES
    rules = (_volume if is_volume else _plane)(facts)
    for name, value, reason in rules:
        chosen[name], reasons[name] = value, reason
    return TrainingProposal(facts, chosen, reasons)


Rows = list[tuple[str, Any, str]]


def _volume(facts: MaskFingerprint) -> Rows:
    spacing, why = target_spacing(facts)
    shapes = resampled_shapes(facts, spacing)
    largest, median = _whole(shapes.max(axis=0)), _whole(np.median(shapes, axis=0))
    limit = _voxels_per_batch(facts)
    patch = patch_size(median, limit // MIN_BATCH)
    fits = math.prod(largest) <= limit // MIN_BATCH
    seen = largest if fits else patch
    preset: dict[str, Any] = {"kind": facts.kind, "form": "volume"}
    preset |= dict(zip(("slices", "rows", "cols"), largest, strict=True))
    preset |= {"spacing_mm": list(spacing)}
    rows: Rows = [
        (
            "preset",
            preset,
            f"3D: the median series has {facts.median_slices:.0f} slices. Spacing: {why}. Size: "
            f"that of the largest of {len(shapes)} series, in multiples of {STRIDE}",
        )
    ]
    if not fits:
        rows.append(
            (
                "patch",
                list(patch),
                f"the median series has {_size(median)} voxels; {MIN_BATCH} patches of this size "
                f"fit into {limit:,} voxels per batch ({_memory(facts)})",
            )
        )
        rows.append(
            (
                "foreground",
                FOREGROUND,
                f"a third of the patches hold a labeled voxel, as in nnU-Net; the rarest class has "
                f"{facts.rarest:.2%} of the voxels",
            )
        )
    return [*rows, *_network(facts, seen, limit)]


def _plane(facts: MaskFingerprint) -> Rows:
    sides = [max(shape[-2:]) for shape in facts.shapes]
    side = min(MAX_SIDE[facts.gpu], _whole([float(np.median(sides))])[0])
    prefix = image_kind(facts.kind).layouts["image"].preset
    why = "2D: single images"
    if image_kind(facts.kind).has_series:
        why = f"2D: the median series has {facts.median_slices:.0f} slices"
    larger = side < float(np.median(sides))
    size = f"the median image has {np.median(sides):.0f} px; " + (
        f"{side} px are enough to train in a reasonable time ({_memory(facts)})"
        if larger
        else f"{side} is the next multiple of {STRIDE}"
    )
    limit = _voxels_per_batch(facts)
    return [
        ("preset", f"{prefix}-{side}", f"{why}. {size[0].upper()}{size[1:]}"),
        *_network(facts, (side, side), limit),
    ]


def _network(facts: MaskFingerprint, seen: Shape, limit: int) -> Rows:
    """seen: what the network sees at a time."""
    is_volume = len(seen) == 3
    narrow = not facts.gpu
    model = "resnet10" if is_volume and narrow else "resnet18"
    width = (8 if is_volume else 16) if narrow else 32
    stem, reduction = ("imagenet", 4 * STRIDE) if min(seen) >= LARGE_SIDE else ("small", STRIDE)
    deepest = [-(-side // reduction) for side in seen]
    batch = _power_of_two(limit / math.prod(seen))
    batch = max(MIN_BATCH, min(batch, 32, _power_of_two(facts.images / 16)))
    epochs = UPDATES[facts.gpu] * batch / max(1, facts.images)
    device = "a GPU" if facts.gpu else "no GPU: a small network"
    return [
        ("model", model, device),
        ("width", width, f"channels of the first stage; {device}"),
        (
            "stem",
            stem,
            f"depth: four levels, each half of the one before; the deepest map has "
            f"{_size(deepest)} points",
        ),
        (
            "batch_size",
            batch,
            f"batches of at most {limit:,} pixels or voxels ({_memory(facts)}), and at least "
            f"{MIN_BATCH} images",
        ),
        (
            "learning_rate",
            0.003 if narrow else 0.001,
            "a narrow network learns with three times the usual rate"
            if narrow
            else "the usual rate of AdamW",
        ),
        (
            "epochs",
            int(min(100, max(10, math.ceil(epochs)))),
            f"about {UPDATES[facts.gpu]:,} updates of {facts.images} training samples, within 10 "
            f"to 100 epochs",
        ),
    ]


def target_spacing(facts: MaskFingerprint) -> tuple[tuple[float, float, float], str]:
    """(slice, row, column) in mm: the median of each axis. Of an axis that is more than three times
    as coarse as the others, and has less than a third of their voxels, the 10th percentile.
    """
    values = np.array(facts.spacings, np.float64)
    if not len(values):
        raise TrainingError(
            "no series has a constant step between its slices: give a preset without spacing_mm",
            code="no_spacing",
        )
    steps = np.median(values, axis=0)
    sizes = np.median(np.array(facts.shapes), axis=0)
    coarse = int(steps.argmax())
    others = [axis for axis in range(3) if axis != coarse]
    why = f"the median of {len(values)} series"
    if steps[coarse] > ANISOTROPY * max(steps[others]) and sizes[coarse] * ANISOTROPY < min(
        sizes[others]
    ):
        steps[coarse] = max(np.percentile(values[:, coarse], 10), max(steps[others]))
        why += f", and along the {('slices', 'rows', 'columns')[coarse]}, which are coarse, the "
        why += "10th percentile"
    slice_step, row, column = (round(float(step), 4) for step in steps)
    return (slice_step, row, column), why


def resampled_shapes(facts: MaskFingerprint, spacing: Sequence[float]) -> np.ndarray:
    """float64 (series, 3): the sizes of the series at a spacing."""
    known = dict(enumerate(facts.spacings))
    middle = np.median(np.array(facts.spacings), axis=0)
    return np.array(
        [
            np.array(shape) * np.array(known.get(n, middle)) / np.array(spacing)
            for n, shape in enumerate(facts.shapes)
        ]
    )


def patch_size(median: Shape, voxels: int) -> Shape:
    """The median size, reduced along the axis that is longest in relation to a multiple of the
    stride until the patch has at most this number of voxels.

    >>> patch_size((40, 56, 40), 1 << 18)
    (40, 56, 40)
    >>> patch_size((320, 512, 512), 1 << 18)
    (64, 64, 64)
    """
    patch = list(median)
    while math.prod(patch) > voxels and max(patch) > 4 * STRIDE:
        patch[int(np.argmax(patch))] -= STRIDE
    return tuple(patch)


def mask_fingerprint(work: Path | str, kind: str | None = None) -> MaskFingerprint:
    """The fingerprint of a work folder with masks, and of this machine."""
    manifest = Manifest.load(work)
    table = manifest.table
    kinds = sorted(table["kind"].unique())
    if kind is None and len(kinds) != 1:
        raise TrainingError(
            f"the work folder has images of several kinds: choose one with "
            f"{' or '.join(f'--kind {name}' for name in kinds)}",
            code="several_kinds",
        )
    kind = kind or str(kinds[0])
    table = table[table["kind"] == kind]
    if "mask_state" not in table.columns:
        raise TrainingError(
            "the work folder was ingested without masks: ingest with --masks MASKS",
            code="no_masks",
        )
    table = table[table["mask_state"] == "annotated"]
    train = table[table["split"] == "train"]
    if train.empty:
        raise TrainingError("no training image has a usable mask", code="no_masks")
    columns = [str(c) for c in train if str(c).startswith("voxels:")]
    pixels = float((train["rows"].astype(float) * train["cols"].astype(float)).sum())
    shares = train[columns].sum() / pixels
    by_series = image_kind(kind).has_series
    shapes, spacings = _series(work, train) if by_series else (_images(train), ())
    gpu = bool(tf.config.list_physical_devices("GPU"))
    return MaskFingerprint(
        kind=kind,
        images=train["series"].nunique() if by_series else len(train),
        patients=train["patient"].nunique(),
        tune_patients=table.loc[table["split"] == "tune", "patient"].nunique(),
        shapes=shapes,
        spacings=spacings,
        classes=tuple(column.removeprefix("voxels:") for column in columns),
        rarest=float(shares.min()) if len(shares) else 0.0,
        gpu=gpu,
        memory_gib=round(device_memory(gpu), 1),
    )


def _images(train: Any) -> tuple[Shape, ...]:
    return tuple((int(r), int(c)) for r, c in zip(train["rows"], train["cols"], strict=True))


def _series(
    work: Path | str, train: Any
) -> tuple[tuple[Shape, ...], tuple[tuple[float, ...], ...]]:
    """Shapes and spacings; series without a constant step come last, and have no spacing."""
    known, unknown = list[tuple[Shape, tuple[float, ...]]](), list[Shape]()
    groups = list(train.sort_values("order").groupby("series", sort=True))[:MAX_SERIES]
    for _, rows in groups:
        size = (len(rows), int(rows["rows"].iloc[0]), int(rows["cols"].iloc[0]))
        affine = read_label_map(work, rows["image"].tolist()).affine
        if affine is None:
            unknown.append(size)
            continue
        steps = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
        known.append((size, tuple(float(step) for step in steps)))
    shapes = tuple([shape for shape, _ in known] + unknown)
    return shapes, tuple(spacing for _, spacing in known)


def _voxels_per_batch(facts: MaskFingerprint) -> int:
    """Half of the memory stays free; without a GPU the time is the limit."""
    fits = int(facts.memory_gib / 2 * 2**30 / BYTES_PER_VOXEL)
    return fits if facts.gpu else min(fits, CPU_VOXELS)


def _memory(facts: MaskFingerprint) -> str:
    return f"half of {facts.memory_gib:.0f} GiB" if facts.gpu else "no GPU"


def _whole(sizes: Sequence[float] | np.ndarray) -> Shape:
    """Rounded up to multiples of the stride, 16 at least."""
    return tuple(max(16, STRIDE * math.ceil(round(float(s), 3) / STRIDE)) for s in sizes)


def _power_of_two(value: float) -> int:
    return int(2 ** max(0, math.floor(math.log2(max(1.0, value)))))


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
