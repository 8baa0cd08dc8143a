"""Which image of the manifest a listed image is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from data_pipelines.annotations.boxes.readers.raw_boxes import NAME, ListedImage
from data_pipelines.annotations.matching import without_suffix
from data_pipelines.annotations.raw_mask import Identity
from data_pipelines.errors import AnnotationError
from data_pipelines.kinds import kinds_with_series
from data_pipelines.labels.join import INDEX_COLUMN
from data_pipelines.labels.table import normalise_key


@dataclass
class ImageFinder:
    """Looks up the rows of the index (by their position) that a listed image may mean."""

    images: pd.DataFrame
    by_key: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    by_name: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for n, path in enumerate(self.images["path"]):
            for name in _ends(normalise_key("path", path)):
                self.by_name[name].append(n)
        self._is_slice = self.images["kind"].isin(kinds_with_series()).to_numpy()
        self._frames = self.images["frame"].to_numpy()

    def find(self, listed: ListedImage) -> int:
        """The position of the image. Raises AnnotationError: image_unmatched (no accepted image),
        ambiguous_image (several), volume_boxes (the slices of a volume), wrong_patient.
        """
        rows = self._rows(listed)
        if listed.frame is not None:
            rows = [n for n in rows if self._frames[n] == listed.frame]
        if not rows:
            raise AnnotationError("No accepted image has this name.", code="image_unmatched")
        if len(rows) > 1 and all(self._is_slice[n] for n in rows):
            raise AnnotationError(
                f"The boxes are given for {len(rows)} slices at once. Detection is 2D: give each "
                f"slice its own boxes, by sop_instance_uid.",
                code="volume_boxes",
            )
        if len(rows) > 1:
            raise AnnotationError(
                f"{len(rows)} images have this name. Name them by their whole path, by "
                f"sop_instance_uid, or by frame.",
                code="ambiguous_image",
            )
        self._require_same_patient(rows[0], listed)
        return rows[0]

    def _rows(self, listed: ListedImage) -> list[int]:
        if listed.key != NAME:
            table = self._table(listed.key)
            return next((table[value] for value in listed.values if value in table), [])
        for value in listed.values:
            rows = self._named(normalise_key("path", value))
            if rows:
                return rows
        return []

    def _table(self, key: str) -> dict[str, list[int]]:
        if key not in self.by_key:
            table: dict[str, list[int]] = defaultdict(list)
            for n, value in enumerate(self.images[INDEX_COLUMN[key]]):
                table[normalise_key(key, value)].append(n)
            self.by_key[key] = dict(table)
        return self.by_key[key]

    def _named(self, name: str) -> list[int]:
        """The images whose path ends with the name, or whose whole path ends the name; with its
        extension, else without. The longest match wins.
        """
        for path in dict.fromkeys((name, without_suffix(name))):
            rows = self.by_name.get(path)
            if rows:
                return _whole(rows, self.images, path)
            for end in _ends(path):
                rows = [n for n in self.by_name.get(end, ()) if end in self._whole_names(n)]
                if rows:
                    return rows
        return []

    def _whole_names(self, n: int) -> tuple[str, str]:
        path = normalise_key("path", self.images["path"].iloc[n])
        return path, without_suffix(path)

    def _require_same_patient(self, n: int, listed: ListedImage) -> None:
        row = self.images.iloc[n]
        if listed.identity.is_other_patient(Identity(row["patient_id"], row["issuer"])):
            raise AnnotationError("The report is about another patient.", code="wrong_patient")


def _ends(path: str) -> Iterator[str]:
    """A path and its ends from each folder on, with and without the extension.

    >>> sorted(set(_ends("a/x.png")))
    ['a/x', 'a/x.png', 'x', 'x.png']
    """
    parts = PurePosixPath(path).parts
    for n in range(len(parts)):
        end = "/".join(parts[n:])
        yield from dict.fromkeys((end, without_suffix(end)))


def _whole(rows: list[int], images: pd.DataFrame, path: str) -> list[int]:
    """Of several images whose path ends with the name, those that have exactly this path."""
    if len(rows) == 1:
        return rows
    paths = [normalise_key("path", images["path"].iloc[n]) for n in rows]
    exact = np.flatnonzero([path in (whole, without_suffix(whole)) for whole in paths])
    return [rows[n] for n in exact] or rows
