"""The boxes of the rows of a table, as a cache stores them: in the pixels of the prepared image, so
many lines for each image as the image with most boxes needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from data_pipelines.annotations.boxes.edge_boxes import EdgeBoxes
from data_pipelines.annotations.boxes.padding import padded_boxes
from data_pipelines.annotations.boxes.preparation import prepare_boxes, require_planes
from data_pipelines.annotations.boxes.store import boxes_of_images
from data_pipelines.annotations.label_map import MaskState
from data_pipelines.cache.annotations import StoredArray
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.volumes.series import Group

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class BoxSource:
    """The boxes of the rows of a table, in the pixels of their original images. classes: those of
    the cohort. boxes: one object for each row. most: boxes in one image of the whole table.
    """

    noun: ClassVar[str] = "usable boxes (or the statement that there are none)"
    name: ClassVar[str] = "boxes"

    classes: tuple[str, ...]
    boxes: tuple[EdgeBoxes, ...]
    most: int

    @property
    def digest(self) -> str:
        """SHA-256 of everything that determines the stored boxes."""
        digest = hashlib.sha256(f"{self.classes}\n{self.most}\n".encode())
        for each in self.boxes:
            digest.update(f"{each.state} {len(each)} {each.size}\n".encode())
            for values in (each.edges, each.labels, each.ignore):
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    @property
    def index(self) -> dict[str, Any]:
        """What cache.json says of them."""
        return {"box_classes": list(self.classes), "most_boxes": self.most}

    def stored(self, spec: PreprocessSpec) -> StoredArray:
        """What is stored of each sample."""
        return stored_boxes(self.most)

    def at(self, rows: Sequence[int]) -> BoxSource:
        """The boxes of some rows, in their order."""
        return replace(self, boxes=tuple(self.boxes[row] for row in rows))

    def states(self, rows: Sequence[int]) -> list[MaskState]:
        """The state of each of some rows."""
        return [self.boxes[row].state for row in rows]

    def array(
        self, rows: Sequence[int], spec: PreprocessSpec, aspect: float, group: Group | None
    ) -> np.ndarray:
        """The boxes of a sample, float32 (most, 5), see `padded_boxes`."""
        return padded_boxes(prepare_boxes(self.boxes[rows[0]], spec, aspect=aspect), self.most)


def stored_boxes(most: int) -> StoredArray:
    """The boxes of a sample, as they are stored; see `padded_boxes`."""
    return StoredArray("float32", (most, 5))


def box_source(work: Path | str, table: pd.DataFrame, spec: PreprocessSpec) -> BoxSource:
    """The boxes of the images of a manifest's table. Raises ManifestError (no_boxes,
    unknown_sample, boxes_changed, boxes_unreadable), and SpecError (volume_boxes) for a preset of
    volumes.
    """
    require_planes(spec)
    boxes, classes = boxes_of_images(work, table["image"].tolist())
    most = max((len(each) for each in boxes if each.annotated), default=0)
    return BoxSource(classes, tuple(boxes), max(1, most))
