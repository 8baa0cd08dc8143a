"""Label maps or boxes in a cache: which samples have them, and how they are stored behind the
integers of their image, so that one shuffle moves both. Samples that nobody annotated are not in
such a cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from data_pipelines.annotations.label_map import MaskState
from data_pipelines.annotations.store import worst_state
from data_pipelines.errors import CacheError
from data_pipelines.pixels.image import Image
from data_pipelines.preprocessing.samples import SampleSlices, prepare_samples
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.volumes.plane import Plane
from data_pipelines.volumes.series import Group, classify_spacing


@dataclass(frozen=True)
class StoredArray:
    """The dtype and the shape of what a cache stores behind each image."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Of one sample."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class AnnotationSource(Protocol):
    """The annotations of the rows of a table: `MaskSource`, `BoxSource`. noun: for messages. name:
    in the name of a cache's folder.
    """

    noun: ClassVar[str]
    name: ClassVar[str]

    @property
    def digest(self) -> str:
        """SHA-256 of everything that determines what is stored."""

    @property
    def index(self) -> dict[str, Any]:
        """What cache.json says of the annotations."""

    def stored(self, spec: PreprocessSpec) -> StoredArray:
        """What is stored of each sample."""

    def at(self, rows: Sequence[int]) -> Self:
        """Those of some rows, in their order."""

    def states(self, rows: Sequence[int]) -> list[MaskState]:
        """The state of each of some rows."""

    def array(
        self, rows: Sequence[int], spec: PreprocessSpec, aspect: float, group: Group | None
    ) -> np.ndarray:
        """What is stored for a sample. rows: its slices, in order. aspect: of its image. group: the
        slices of a volume.
        """


def annotated_samples(
    samples: Sequence[SampleSlices], source: AnnotationSource, spec: PreprocessSpec
) -> tuple[list[SampleSlices], dict[str, int]]:
    """The samples with a usable annotation, and the number of others by its state (not_annotated,
    rejected). For a stack, the middle slice counts; for a volume, all of them.

    Raises CacheError (no_annotated_sample) if none is left.
    """
    kept, left_out = list[SampleSlices](), Counter[str]()
    for sample in samples:
        state = worst_state(source.states(annotated_rows(sample, spec)))
        if state == "annotated":
            kept.append(sample)
        else:
            left_out[state] += 1
    if not kept:
        counts = ", ".join(f"{count} {state}" for state, count in left_out.items())
        raise CacheError(
            f"preset {spec.name}: no sample has {source.noun} ({counts}); annotations.csv says why",
            code="no_annotated_sample",
        )
    return kept, dict(sorted(left_out.items()))


def annotated_rows(sample: SampleSlices, spec: PreprocessSpec) -> tuple[int, ...]:
    """The slices whose annotations belong to a sample."""
    return sample.slice_indices if spec.layout == "volume" else (sample.middle,)


def prepare_annotated(
    samples: Sequence[SampleSlices],
    planes: Sequence[Plane],
    read: Callable[[int], Image],
    spec: PreprocessSpec,
    source: AnnotationSource,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The prepared integers of each sample (see `prepare_samples`) and its annotation. Raises what
    `source.array` raises.
    """
    aspects: dict[int, float] = {}

    def noted(index: int) -> Image:
        image = read(index)
        aspects[index] = image.aspect
        return image

    prepared = prepare_samples(samples, planes, noted, spec)
    for sample, pixels in zip(samples, prepared, strict=True):
        rows, group = annotated_rows(sample, spec), None
        if spec.layout == "volume":
            group = classify_spacing([replace(planes[row], source_index=row) for row in rows])
            rows = tuple(plane.source_index for plane in group.planes)
        yield pixels, source.array(rows, spec, aspects[sample.middle], group)
