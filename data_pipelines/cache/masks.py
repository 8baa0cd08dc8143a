"""Label maps in a cache: which samples have one, and its integers, in step with the image.

A cache with masks stores each label map behind the integers of its image, so that one shuffle moves
both. Samples without a usable label map are not in it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.annotations.label_map import MaskState
from data_pipelines.annotations.preparation import prepare_label_map
from data_pipelines.annotations.store import FOLDER, SliceRef, slice_refs, stacked, worst_state
from data_pipelines.errors import CacheError
from data_pipelines.pixels.image import Image
from data_pipelines.preprocessing.samples import SampleSlices, prepare_samples
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.volumes.plane import Plane
from data_pipelines.volumes.series import classify_spacing

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class MaskSource:
    """The label maps of the rows of a table. folder: `annotations/` of the work folder. classes:
    those of the cohort, without the background. refs: one for each row.
    """

    folder: str
    classes: tuple[str, ...]
    refs: tuple[SliceRef, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of everything that determines the stored label maps."""
        rows = [(ref.file, ref.slice, ref.sha256, ref.state) for ref in self.refs]
        return hashlib.sha256(f"{self.classes}\n{rows}".encode()).hexdigest()

    def at(self, rows: Sequence[int]) -> MaskSource:
        """The label maps of some rows, in their order."""
        return replace(self, refs=tuple(self.refs[row] for row in rows))


def mask_source(work: Path | str, table: pd.DataFrame) -> MaskSource:
    """The label maps of the images of a manifest's table. Raises ManifestError (no_annotations,
    unknown_sample, annotations_unreadable).
    """
    refs, classes = slice_refs(work, table["image"].tolist())
    return MaskSource(str(Path(work) / FOLDER), classes, tuple(refs))


def annotated_samples(
    samples: Sequence[SampleSlices], source: MaskSource, spec: PreprocessSpec
) -> tuple[list[SampleSlices], dict[str, int]]:
    """The samples with a usable label map, and the number of others by the state of their label map
    (not_annotated, rejected). For a stack, the middle slice counts; for a volume, all of them.

    Raises CacheError (no_annotated_sample) if none is left.
    """
    kept, left_out = list[SampleSlices](), Counter[str]()
    for sample in samples:
        state = _state(sample, source, spec)
        if state == "annotated":
            kept.append(sample)
        else:
            left_out[state] += 1
    if not kept:
        counts = ", ".join(f"{count} {state}" for state, count in left_out.items())
        raise CacheError(
            f"preset {spec.name}: no sample has a usable mask ({counts}); annotations.csv says why",
            code="no_annotated_sample",
        )
    return kept, dict(sorted(left_out.items()))


def _state(sample: SampleSlices, source: MaskSource, spec: PreprocessSpec) -> MaskState:
    return worst_state([source.refs[row].state for row in mask_rows(sample, spec)])


def mask_rows(sample: SampleSlices, spec: PreprocessSpec) -> tuple[int, ...]:
    """The slices whose label map belongs to a sample."""
    return sample.slice_indices if spec.layout == "volume" else (sample.middle,)


def prepare_with_masks(
    samples: Sequence[SampleSlices],
    planes: Sequence[Plane],
    read: Callable[[int], Image],
    spec: PreprocessSpec,
    source: MaskSource,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The prepared integers of each sample (see `prepare_samples`) and its label map, uint8
    `spec.mask_shape`. Raises AnnotationError (overlapping_classes), ManifestError
    (annotations_changed, annotations_unreadable).
    """
    aspects: dict[int, float] = {}

    def noted(index: int) -> Image:
        image = read(index)
        aspects[index] = image.aspect
        return image

    prepared = prepare_samples(samples, planes, noted, spec)
    for sample, pixels in zip(samples, prepared, strict=True):
        rows, group = mask_rows(sample, spec), None
        if spec.layout == "volume":
            group = classify_spacing([replace(planes[row], source_index=row) for row in rows])
            rows = tuple(plane.source_index for plane in group.planes)
        label_map = stacked(Path(source.folder), source.at(rows).refs, source.classes)
        aspect = aspects[sample.middle]
        yield pixels, prepare_label_map(label_map, spec, aspect=aspect, group=group)
