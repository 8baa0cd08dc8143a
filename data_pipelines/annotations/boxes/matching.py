"""Which image of the manifest a listed image is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

import pandas as pd

from data_pipelines.annotations.boxes.readers.raw_boxes import NAME, ListedImage
from data_pipelines.annotations.matching import without_suffix
from data_pipelines.annotations.raw_mask import Identity
from data_pipelines.errors import AnnotationError
from data_pipelines.kinds import kinds_with_series
from data_pipelines.labels.join import INDEX_COLUMN
from data_pipelines.labels.table import normalise_key


class NamedImage(NamedTuple):
    """A row of the index (its position) by one of the names that it has: its own, or that of a copy
    which was left out as a duplicate.
    """

    row: int
    path: str
    frame: int
    is_copy: bool


@dataclass
class ImageFinder:
    """Looks up the rows of the index (by their position) that a listed image may mean.

    A column `copies` has each row's `ImageCopy`: what is listed for them belongs to the row.
    """

    images: pd.DataFrame
    by_key: dict[str, dict[str, list[NamedImage]]] = field(default_factory=dict)
    by_name: dict[str, list[NamedImage]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for image, keys in self._named_images():
            for name in _ends(normalise_key("path", keys["path"])):
                self.by_name[name].append(image)
        self._is_slice = self.images["kind"].isin(kinds_with_series()).to_numpy()

    def find(self, listed: ListedImage) -> NamedImage:
        """The image. Raises AnnotationError: image_unmatched (no accepted image), ambiguous_image
        (several), volume_boxes (the slices of a volume), wrong_patient.
        """
        named = self._of(listed)
        if listed.frame is not None:
            named = [image for image in named if image.frame == listed.frame]
        rows = {image.row for image in named}
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
        self._require_same_patient(named[0].row, listed)
        return named[0]

    def _named_images(self) -> Iterator[tuple[NamedImage, Mapping[str, str]]]:
        """All names of all rows, each with its keys (columns of the index)."""
        columns = list(dict.fromkeys(INDEX_COLUMN.values()))
        lines = self.images[columns].to_dict("records")
        for n, (line, frame) in enumerate(zip(lines, self.images["frame"], strict=True)):
            keys = {str(column): value for column, value in line.items()}
            yield NamedImage(n, keys["path"], frame, is_copy=False), keys
        for n, copies in enumerate(self.images.get("copies", ())):
            for copy in copies:
                yield NamedImage(n, copy.path, copy.frame, is_copy=True), copy._asdict()

    def _of(self, listed: ListedImage) -> list[NamedImage]:
        if listed.key != NAME:
            table = self._table(listed.key)
            return next((table[value] for value in listed.values if value in table), [])
        for value in listed.values:
            named = self._named(normalise_key("path", value))
            if named:
                return named
        return []

    def _table(self, key: str) -> dict[str, list[NamedImage]]:
        if key not in self.by_key:
            table: dict[str, list[NamedImage]] = defaultdict(list)
            for image, keys in self._named_images():
                table[normalise_key(key, keys[INDEX_COLUMN[key]])].append(image)
            self.by_key[key] = dict(table)
        return self.by_key[key]

    def _named(self, name: str) -> list[NamedImage]:
        """The images whose path ends with the name, or whose whole path ends the name; with its
        extension, else without. The longest match wins.
        """
        for path in dict.fromkeys((name, without_suffix(name))):
            named = self.by_name.get(path)
            if named:
                return _whole(named, path)
            for end in _ends(path):
                named = [one for one in self.by_name.get(end, ()) if end in _whole_names(one)]
                if named:
                    return named
        return []

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


def _whole(named: list[NamedImage], path: str) -> list[NamedImage]:
    """Of several images whose path ends with the name, those that have exactly this path."""
    return [image for image in named if path in _whole_names(image)] or named


def _whole_names(image: NamedImage) -> tuple[str, str]:
    path = normalise_key("path", image.path)
    return path, without_suffix(path)
