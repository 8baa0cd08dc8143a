"""Stratified splits by patient, never by image: seeded, and checked afterwards.

All functions are pure. Groups are numbered in the order of their first row. So sort the rows by
something that does not depend on the pseudonym key, such as their paths, to get the same split from
the same seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from data_pipelines.errors import SplitError

SPLITS = ("train", "tune", "test")
FRACTIONS = (0.70, 0.15, 0.15)


def connected_groups(patients: Sequence[str], links: Iterable[Sequence[str]] = ()) -> np.ndarray:
    """Return a group number per row: rows share a group when they share a patient or a non-empty
    value in one of `links`, directly or through other rows.

    patients and each of links: one text per row. Returns int64 (rows,), from 0 in the order of
    first appearance.

    >>> connected_groups(["a", "b", "c", "a"], [["", "x", "x", ""]]).tolist()
    [0, 1, 1, 0]
    """
    parent = list(range(len(patients)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for column in (patients, *links):
        first_row: dict[str, int] = {}
        for row, value in enumerate(column):
            if value:
                a, b = sorted((root(row), root(first_row.setdefault(value, row))))
                parent[b] = a
    return pd.factorize(np.array([root(row) for row in range(len(parent))], dtype=int))[0]


def group_strata(groups: np.ndarray, labels: Sequence[str]) -> list[str]:
    """Return one stratum per group: the label of its rows that the fewest groups have.

    Ties go to the label that sorts last.

    >>> group_strata(np.array([0, 0, 1, 2]), ["sick", "healthy", "healthy", "healthy"])
    ['sick', 'healthy', 'healthy']
    """
    labels_of = [set[str]() for _ in range(int(groups.max(initial=-1)) + 1)]
    for group, label in zip(groups, labels, strict=True):
        labels_of[group].add(label)
    count = (
        pd.Series([label for group in labels_of for label in group], dtype=object)
        .value_counts()
        .to_dict()
    )
    return [max(group, key=lambda label: (-count[label], label)) for group in labels_of]


def row_strata(table: pd.DataFrame) -> list[str]:
    """Return the label by which each row of a manifest is stratified: its kind and its class.

    Without classes, the second part is the rarest of its findings that is 1; else 'absent' if one
    is 0; else '' (uncertain or not assessed). Without findings, classes of boxes count like them.
    """
    if "class" in table:
        labels = table["class"].astype(object)
    else:
        findings = [name for name in table if str(name).startswith("label:")]
        boxes = [name for name in table if str(name).startswith("boxes:")]
        values = table[findings] if findings or not boxes else table[boxes].clip(upper=1)
        labels = pd.Series(
            np.where((values == 0).any(axis=1), "absent", ""), index=table.index, dtype=object
        )
        for name in (values == 1).sum().sort_values(ascending=False, kind="stable").index:
            labels[values[name] == 1] = str(name)
    return [f"{kind} {label}" for kind, label in zip(table["kind"], labels, strict=True)]


def allocate(
    strata: Sequence[str],
    fractions: Sequence[float],
    seed: int,
    *,
    existing: Sequence[int] | np.ndarray = (),
) -> np.ndarray:
    """Return a part (an index into `fractions`) per group, drawn at random within its stratum.

    Each stratum is divided in proportion. A stratum with at least as many groups as there are parts
    reaches every part; a smaller one reaches as many parts as it has groups. Rounding favors the
    part whose total lags most behind. No part stays empty if there are enough groups; a part of
    fraction 0 gets none. existing: groups that each part already has; they count in the totals.
    Returns int64 (groups,).

    >>> np.bincount(allocate(["a"] * 20, (0.7, 0.15, 0.15), seed=0)).tolist()
    [14, 3, 3]
    """
    shares = np.asarray(fractions, float) / np.sum(fractions)
    parts = np.full(len(strata), -1)
    before = np.zeros(len(shares)) if len(existing) == 0 else np.asarray(existing, float)
    totals = before.copy()
    rng = np.random.default_rng(seed)
    by_stratum = (
        pd.Series(strata, dtype=object).groupby(list(strata)).indices if len(strata) else {}
    )
    allocated = int(before.sum())
    for _, members in sorted(by_stratum.items(), key=lambda item: (len(item[1]), item[0])):
        members = rng.permutation(np.sort(members))
        allocated += len(members)
        counts = _part_sizes(len(members), shares, allocated * shares - totals)
        parts[members] = np.repeat(np.arange(len(shares)), counts)
        totals += counts
    if not before.any():
        _fill_empty_parts(parts, strata, shares)
    return parts


def split_patients(
    groups: np.ndarray, labels: Sequence[str], *, seed: int, fractions: Sequence[float] = FRACTIONS
) -> np.ndarray:
    """Return 'train', 'tune' or 'test' per row: whole groups, stratified by their rarest label.

    groups: int (rows,), numbered from 0; labels: one text per row. Raises SplitError: fractions, or
    too_few_patients when there are fewer groups than splits.

    >>> split_patients(np.array([0, 0, 1, 2]), ["a", "a", "a", "b"], seed=0).tolist()
    ['test', 'test', 'tune', 'train']
    """
    check_fractions(fractions)
    n_splits = sum(share > 0 for share in fractions)
    strata = group_strata(groups, labels)
    if len(strata) < n_splits:
        raise SplitError(
            f"{len(strata)} patients cannot fill {n_splits} splits (patients who share a study, a "
            "series or pixels count as one). Add patients, or set a fraction to 0.",
            code="too_few_patients",
        )
    return np.array(SPLITS, object)[allocate(strata, fractions, seed)[groups]]


def sample_tune_split(
    groups: np.ndarray,
    labels: Sequence[str],
    given: Sequence[str],
    *,
    seed: int,
    fractions: Sequence[float] = FRACTIONS,
) -> np.ndarray:
    """Return the given splits; if they are train and test only, tune is drawn from train by group.

    Raises SplitError: fractions, or too_few_patients when train has a single patient.
    """
    check_fractions(fractions)
    splits = np.array(given, object)
    train = np.flatnonzero(splits == "train")
    if set(splits) != {"train", "test"} or fractions[1] == 0:
        return splits
    train_groups = pd.factorize(groups[train])[0]
    strata = group_strata(train_groups, [labels[int(row)] for row in train])
    if len(strata) < 2:
        raise SplitError(
            "The given train split has one patient, so there is none for the tune (validation) "
            "split. Give tune rows as well.",
            code="too_few_patients",
        )
    splits[train[allocate(strata, fractions[:2], seed)[train_groups] == 1]] = "tune"
    return splits


def group_folds(table: pd.DataFrame, k: int, seed: int) -> np.ndarray:
    """Return a fold 0..k-1 per row of a manifest's table: whole patients, stratified.

    Patients with equal pixels, or in one `group` of linked patients, share a fold. Raises
    SplitError (code folds).
    """
    links = [list(table["pixel_sha256"])]
    if "group" in table:  # manifests of earlier versions have none
        links.append(list(table["group"].map(str)))
    groups = connected_groups(list(table["patient"]), links)
    return assign_folds(groups, row_strata(table), k, seed)


def assign_folds(groups: np.ndarray, labels: Sequence[str], k: int, seed: int) -> np.ndarray:
    """Return a fold 0..k-1 per row: whole groups, stratified by their rarest label.

    Raises SplitError (code folds) unless 2 <= k <= the number of groups.
    """
    strata = group_strata(groups, labels)
    if not 2 <= k <= len(strata):
        fix = "2 or more folds" if k < 2 else "fewer folds, at most one per patient"
        raise SplitError(f"{k} folds of {len(strata)} patients: give {fix}.", code="folds")
    return allocate(strata, [1 / k] * k, seed)[groups]


def check_no_overlap(table: pd.DataFrame) -> None:
    """Raise SplitError (code split_leak) when a patient or equal pixels lie in two splits.

    Columns read: split, patient, pixel_sha256.
    """
    crossing = {name: int(overlap(table, name).nunique()) for name in ("patient", "pixel_sha256")}
    if any(crossing.values()):
        raise SplitError(
            f"{crossing['patient']} patients and {crossing['pixel_sha256']} images (by identical "
            f"pixels) lie in two splits: a score on the test split would be too good. Give all "
            f"rows of a patient, and all copies of an image, the same split.",
            code="split_leak",
        )


def overlap(table: pd.DataFrame, column: str) -> pd.Series:
    """Return the values of `column` that occur in more than one split, with the index of their
    rows.
    """
    return table[column][table.groupby(column)["split"].transform("nunique") > 1]


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise SplitError (code fractions) unless there are three numbers from 0 to 1 with sum 1, the
    first above 0.
    """
    values = np.asarray(fractions, float)
    if (
        values.shape != (3,)
        or not (values >= 0).all()
        or abs(values.sum() - 1) > 1e-6
        or values[0] == 0
    ):
        raise SplitError(
            f"fractions {tuple(fractions)}: give the shares of train, tune and test with sum 1, as "
            f"in 0.7, 0.15, 0.15.",
            code="fractions",
        )


def _part_sizes(n: int, shares: np.ndarray, deficit: np.ndarray) -> np.ndarray:
    """Divide n groups among the parts by `shares`; rounding goes to the part with the largest
    `deficit`, the groups that it still lacks in total.
    """
    used = shares > 0
    enough = n >= used.sum()
    lowest, highest = used & enough, np.where(used, n if enough else 1, 0)
    counts = np.maximum(np.floor(n * shares + 1e-9).astype(int), lowest)
    while counts.sum() != n:
        step = 1 if counts.sum() < n else -1
        free = (counts + step >= lowest) & (counts + step <= highest)
        counts[int(np.argmax(np.where(free, step * (deficit - counts), -np.inf)))] += step
    return counts


def _fill_empty_parts(parts: np.ndarray, strata: Sequence[str], shares: np.ndarray) -> None:
    """Give each empty part one group of the most common stratum of the largest part."""
    for part in np.flatnonzero(shares > 0)[::-1]:
        sizes = np.bincount(parts, minlength=len(shares))
        if sizes[part] == 0 and sizes.max() > 1:
            members = np.flatnonzero(parts == sizes.argmax())
            stratum = pd.Series([strata[int(group)] for group in members], dtype=object)
            parts[members[int(np.argmax(stratum.map(stratum.value_counts())))]] = part
