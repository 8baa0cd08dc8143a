"""The label maps of the rows of a table, as a cache stores them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from data_pipelines.annotations.label_map import MaskState
from data_pipelines.annotations.preparation import prepare_label_map
from data_pipelines.annotations.store import FOLDER, SliceRef, slice_refs, stacked
from data_pipelines.cache.annotations import StoredArray
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.volumes.series import Group

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class MaskSource:
    """The label maps of the rows of a table. folder: `annotations/` of the work folder. classes:
    those of the cohort, without the background. refs: one for each row.
    """

    noun: ClassVar[str] = "a usable mask"
    name: ClassVar[str] = "masks"

    folder: str
    classes: tuple[str, ...]
    refs: tuple[SliceRef, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of everything that determines the stored label maps."""
        rows = [(ref.file, ref.slice, ref.sha256, ref.state) for ref in self.refs]
        return hashlib.sha256(f"{self.classes}\n{rows}".encode()).hexdigest()

    @property
    def index(self) -> dict[str, Any]:
        """What cache.json says of them."""
        return {"mask_classes": list(self.classes)}

    def stored(self, spec: PreprocessSpec) -> StoredArray:
        """What is stored of each sample."""
        return stored_masks(spec)

    def at(self, rows: Sequence[int]) -> MaskSource:
        """The label maps of some rows, in their order."""
        return replace(self, refs=tuple(self.refs[row] for row in rows))

    def states(self, rows: Sequence[int]) -> list[MaskState]:
        """The state of each of some rows."""
        return [self.refs[row].state for row in rows]

    def array(
        self, rows: Sequence[int], spec: PreprocessSpec, aspect: float, group: Group | None
    ) -> np.ndarray:
        """The label map of a sample, uint8 `spec.mask_shape`. Raises AnnotationError
        (overlapping_classes), ManifestError (annotations_changed, annotations_unreadable).
        """
        label_map = stacked(Path(self.folder), self.at(rows).refs, self.classes)
        return prepare_label_map(label_map, spec, aspect=aspect, group=group)


def stored_masks(spec: PreprocessSpec) -> StoredArray:
    """The label map of a sample, as it is stored."""
    return StoredArray("uint8", spec.mask_shape)


def mask_source(work: Path | str, table: pd.DataFrame) -> MaskSource:
    """The label maps of the images of a manifest's table. Raises ManifestError (no_annotations,
    unknown_sample, annotations_unreadable).
    """
    refs, classes = slice_refs(work, table["image"].tolist())
    return MaskSource(str(Path(work) / FOLDER), classes, tuple(refs))
