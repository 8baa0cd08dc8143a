"""Which level of a folder tree has the classes, which one the splits and which one the patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data_pipelines.labels.table import SPLIT_ALIASES

FEW = 12  # more names than this at one level are rarely classes
_MOSTLY = 0.8

Parents = Sequence[tuple[str, ...]]  # of each file, the folders between SOURCE and the file


@dataclass(frozen=True)
class FolderLevels:
    """Numbers of levels below SOURCE, from 0; None where there is no such level."""

    classes: int
    split: int | None
    patient: int | None


def folder_levels(parents: Parents) -> FolderLevels:
    """Return the levels of a tree.

    Splits: a level whose names are mostly train, tune (val, ...) or test. Classes: the first other
    level with two or more names, as Keras takes it; or the level below it, where the first one
    looks like patients and the one below has few names that occur under many of them. Patients: the
    level below (or above) the classes where its names look like patients.

    >>> folder_levels([("cat", "p1"), ("cat", "p2"), ("dog", "p3")])
    FolderLevels(classes=0, split=None, patient=1)
    """
    parents = [parts for parts in parents if parts]
    depth = min((len(parts) for parts in parents), default=0)
    names = [[parts[level] for parts in parents] for level in range(depth)]
    split = next((level for level in range(depth) if _are_splits(names[level])), None)
    levels = [level for level in range(depth) if level != split]
    branching = [level for level in levels if len(set(names[level])) > 1]
    if not branching:
        return FolderLevels(levels[0] if levels else 0, split, None)
    top = branching[0]
    lower = [level for level in branching if level > top]
    if lower and _are_patients_of(names[top], names[lower[0]]):
        return FolderLevels(lower[0], split, top)
    above = [level for level in levels if level < top]
    if above and len(set(names[top])) > FEW and _look_like_patients(names[top]):
        return FolderLevels(above[-1], split, top)  # one class: its folders are patients
    below = next((level for level in levels if level > top), None)
    if below is None or len(set(names[below])) <= len(set(names[top])):
        return FolderLevels(top, split, None)
    return FolderLevels(top, split, below if _look_like_patients(names[below]) else None)


def _are_splits(names: Sequence[str]) -> bool:
    different = set(names)
    return sum(name.lower() in SPLIT_ALIASES for name in different) * 2 > len(different)


def _look_like_patients(names: Sequence[str]) -> bool:
    """Three or more names, most of which hold a digit, or more names than classes usually have."""
    different = set(names)
    n_with_digit = sum(any(c.isdigit() for c in name) for name in different)
    return len(different) > FEW or (len(different) > 2 and n_with_digit >= _MOSTLY * len(different))


def _are_patients_of(outer: Sequence[str], inner: Sequence[str]) -> bool:
    """Whether the outer folders are patients and the inner ones classes: few inner names, of which
    most outer folders hold only one, or too many outer folders for classes.
    """
    n_outer, n_inner = len(set(outer)), len(set(inner))
    if not _look_like_patients(outer) or _look_like_patients(inner) or n_inner >= n_outer:
        return False
    n_pairs = len(set(zip(outer, inner, strict=True)))
    return n_outer > FEW or n_pairs * _MOSTLY <= n_outer
