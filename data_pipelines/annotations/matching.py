"""Which mask belongs to which image: DICOM objects by the UIDs that they refer to, other files by
masks.csv, or by their path relative to SOURCE without the extension.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import NamedTuple

import pandas as pd

from data_pipelines.annotations.grids import Grid
from data_pipelines.annotations.masks_table import MaskRow
from data_pipelines.annotations.raw_mask import Identity, Target
from data_pipelines.errors import AnnotationError
from data_pipelines.kinds import kinds_with_series
from data_pipelines.labels.table import normalise_key
from data_pipelines.volumes.series import group_planes

#: SOURCE, and the path below it
File = tuple[str, str]
#: suffixes that a path has or has not; other dots are part of the name (a UID has many)
_SUFFIXES = (".nii.gz", ".nii", ".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg")


class ImageCopy(NamedTuple):
    """A file that was left out of the cohort as a duplicate of an image that stays, by all keys
    that an annotation can name it with (columns of the index).
    """

    source: str
    path: str
    frame: int
    sop_uid: str
    series_uid: str
    study_uid: str
    accession_number: str
    patient_id: str


class Match(NamedTuple):
    """A target, and the slice of it; None for all of its slices."""

    target: int
    slice_number: int | None


def targets_of(images: pd.DataFrame) -> tuple[list[Target], dict[object, Match]]:
    """The images and volumes that masks may belong to, and the target and slice of each row.

    images: accepted rows of the index, with their pseudonyms and planes. The slices of a volume are
    those that `group_planes` puts together, in their order; every other image is on its own.
    """
    targets: list[Target] = []
    of_row: dict[object, Match] = {}

    def add(key: str, rows: pd.DataFrame, grid: Grid | None) -> None:
        of_row.update({name: Match(len(targets), n) for n, name in enumerate(rows.index)})
        targets.append(_target(key, rows, grid))

    has_series = images["kind"].isin(kinds_with_series())
    for n in range(len(images)):
        if not has_series.iloc[n]:
            add(str(images["image"].iloc[n]), images.iloc[n : n + 1], None)
    for series, rows in images[has_series].groupby("series", sort=False):
        groups = group_planes(
            [replace(plane, source_index=n) for n, plane in enumerate(rows["plane"])]
        )
        for number, group in enumerate(groups):
            members = rows.iloc[[plane.source_index for plane in group.planes]]
            key = str(series) if len(groups) == 1 else f"{series}-{number}"
            add(key, members, Grid.from_planes(group.planes))
    return targets, of_row


def _target(key: str, rows: pd.DataFrame, grid: Grid | None) -> Target:
    first = rows.iloc[0]
    identity = Identity(
        patient_id=first["patient_id"],
        issuer=first["issuer"],
        frame_of_reference=first["plane"].frame_of_reference,
        sop_uids=frozenset(rows["sop_uid"]) - {""},
        series_uids=frozenset(rows["series_uid"]) - {""},
    )
    return Target(
        key=key,
        images=tuple(rows["image"]),
        shape=(len(rows), int(first["rows"]), int(first["cols"])),
        grid=grid,
        frames=tuple((uid, int(f)) for uid, f in zip(rows["sop_uid"], rows["frame"], strict=True)),
        identity=identity,
    )


def without_suffix(path: str) -> str:
    """A path without a known extension.

    >>> without_suffix("a/x.nii.gz"), without_suffix("a/1.2.840")
    ('a/x', 'a/1.2.840')
    """
    suffix = next((end for end in _SUFFIXES if path.lower().endswith(end)), "")
    return path[: len(path) - len(suffix)]


@dataclass
class Matcher:
    """Looks up targets by the ways in which a mask can name them. Of a path, the matches are kept
    by the file (SOURCE and path) that they lie in.
    """

    targets: Sequence[Target]
    by_path: dict[str, dict[File, list[Match]]] = field(default_factory=dict)
    by_stem: dict[str, dict[File, list[Match]]] = field(default_factory=dict)
    by_sop: dict[str, list[Match]] = field(default_factory=lambda: defaultdict(list))
    by_series: dict[str, list[Match]] = field(default_factory=lambda: defaultdict(list))
    by_folder: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    @classmethod
    def of(
        cls, images: pd.DataFrame, targets: Sequence[Target], of_row: Mapping[object, Match]
    ) -> Matcher:
        """For the rows of `targets_of`. A column `copies` has each row's `ImageCopy`: what
        belongs to them belongs to the row.
        """
        matcher = cls(targets)
        columns = images[["source", "path", "sop_uid", "series_uid"]]
        for name, source, path, sop, series in columns.itertuples():
            match = of_row[name]
            matcher._add_path((source, path), match)
            path = normalise_key("path", path)
            matcher.by_sop[sop].append(match)
            matcher.by_series[series].append(match)
            for folder in PurePosixPath(path).parents:
                matcher.by_folder[str(folder)].add(match.target)
        for name, copies in images.get("copies", pd.Series(dtype=object)).items():
            for copy in copies:
                matcher._add_path((copy.source, copy.path), of_row[name])
        return matcher

    def _add_path(self, file: File, match: Match) -> None:
        path = normalise_key("path", file[1])
        for table, key in ((self.by_path, path), (self.by_stem, without_suffix(path))):
            table.setdefault(key, {}).setdefault(file, []).append(match)

    def by_references(self, identity: Identity) -> list[Match]:
        """The targets of a SEG or RTSTRUCT: those with images that it refers to, else the largest
        one of a series that it refers to. Of several volumes, the one with the most images.
        """
        counts = Counter(m.target for uid in identity.sop_uids for m in self.by_sop.get(uid, ()))
        if not counts:
            counts = Counter(
                m.target for uid in identity.series_uids for m in self.by_series.get(uid, ())
            )
        volumes = [t for t in counts if self.targets[t].grid is not None]
        chosen = [max(volumes, key=lambda t: counts[t])] if volumes else sorted(counts)
        return [Match(target, None) for target in chosen]

    def by_row(self, row: MaskRow) -> list[Match]:
        """The targets of a row of masks.csv. Raises AnnotationError (ambiguous_mask)."""
        if row.key == "path":
            return self._of_one_file(self.by_path.get(row.value, {}))
        by_uid = self.by_sop if row.key == "sop_instance_uid" else self.by_series
        return self._merged(by_uid.get(row.value, []))

    def by_name(self, path: str) -> tuple[list[Match], str]:
        """The targets of a file by its path relative to MASKS, and the class that its path names.

        The path without extension is that of an image or of the folder of a single volume; or,
        below one folder for each class, CLASS/path. Raises AnnotationError (ambiguous_mask).
        """
        stem = without_suffix(normalise_key("path", path))
        matches = self._by_stem(stem)
        if matches:
            return matches, ""
        class_name, _, rest = stem.partition("/")
        return (self._by_stem(rest), class_name) if rest else ([], "")

    def _by_stem(self, stem: str) -> list[Match]:
        matches = self._of_one_file(self.by_stem.get(stem, {}))
        if not matches and len(self.by_folder.get(stem, ())) == 1:
            return [Match(target, None) for target in self.by_folder[stem]]
        return matches

    def _of_one_file(self, files: Mapping[File, Sequence[Match]]) -> list[Match]:
        if len(files) > 1:
            raise AnnotationError(
                f"The path of the mask is that of {len(files)} images, in several SOURCEs or with "
                f"several extensions. Say in masks.csv which one it is.",
                code="ambiguous_mask",
            )
        return self._merged([match for matches in files.values() for match in matches])

    def _merged(self, matches: Sequence[Match]) -> list[Match]:
        """All slices of a target at once are the target."""
        numbers: dict[int, list[int | None]] = defaultdict(list)
        for match in matches:
            numbers[match.target].append(match.slice_number)
        merged = []
        for target, slices in numbers.items():
            is_slice = len(slices) == 1 and self.targets[target].shape[0] > 1
            merged.append(Match(target, slices[0] if is_slice else None))
        return merged
