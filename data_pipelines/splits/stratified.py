"""Splitting patients, never images: seeded, stratified, and checked afterwards.

Everything here is a pure function of its arguments. Patients are taken in the order of their first
row, so sort the rows by something that does not depend on a secret key (their paths) to get the
same split from the same seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from data_pipelines.errors import SplitError

SPLITS = ("train", "tune", "test")
FRACTIONS = (0.70, 0.15, 0.15)


def connected_groups(patients: Sequence[str], links: Iterable[Sequence[str]] = ()) -> np.ndarray:
    """Return a group number a row: rows share one when they share a patient or a non-empty value of
    any of `links`.

    Numbers run from 0 in the order of first appearance. Transitive: a-b and b-c put a and c
    together.
    """
    parent = list(range(len(patients)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for column in (patients, *links):
        first: dict[str, int] = {}
        for row, value in enumerate(column):
            if value:
                a, b = sorted((root(row), root(first.setdefault(value, row))))
                parent[b] = a
    return pd.factorize(np.array([root(row) for row in range(len(parent))], dtype=int))[0]


def group_strata(groups: np.ndarray, labels: Sequence[str]) -> list[str]:
    """Return one stratum a group: the rarest (in groups) of its rows' labels; ties go to the label
    that sorts last.
    """
    members = [set[str]() for _ in range(int(groups.max(initial=-1)) + 1)]
    for group, label in zip(groups, labels, strict=True):
        members[group].add(label)
    count = (
        pd.Series([label for labels_ in members for label in labels_], dtype=object)
        .value_counts()
        .to_dict()
    )
    return [max(labels_, key=lambda label: (-count[label], label)) for labels_ in members]


def row_strata(table: pd.DataFrame) -> list[str]:
    """Return the label by which each row of a manifest's table is stratified: its kind, and

    its class; or the rarest of its findings that is 1, else 'absent' where any is 0, else ''
    (uncertain, not assessed).
    """
    if "class" in table:
        labels = table["class"].astype(object)
    else:
        values = table[[name for name in table if str(name).startswith("label:")]]
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
    held: Sequence[int] | np.ndarray = (),
) -> np.ndarray:
    """Return a part (index into `fractions`) for each group, drawn at random within its stratum.

    Every stratum is dealt out in proportion; one of as many groups as there are parts reaches each
    of them, a smaller one reaches as many as it can. What rounding leaves goes where the total lags
    most. No part stays empty where there are groups enough; a part of fraction 0 gets none. `held`:
    groups that each part has already; they count in the total.
    """
    shares = np.asarray(fractions, float) / np.sum(fractions)
    parts = np.full(len(strata), -1)
    had = np.zeros(len(shares)) if len(held) == 0 else np.asarray(held, float)
    have = had.copy()
    rng = np.random.default_rng(seed)
    order = pd.Series(strata, dtype=object).groupby(list(strata)).indices if len(strata) else {}
    dealt = int(had.sum())
    for _, members in sorted(order.items(), key=lambda item: (len(item[1]), item[0])):
        members = rng.permutation(np.sort(members))
        dealt += len(members)
        counts = _counts(len(members), shares, dealt * shares - have)
        parts[members] = np.repeat(np.arange(len(shares)), counts)
        have += counts
    if not had.any():
        _fill_empty(parts, strata, shares)
    return parts


def split_patients(
    groups: np.ndarray, labels: Sequence[str], *, seed: int, fractions: Sequence[float] = FRACTIONS
) -> np.ndarray:
    """Return 'train', 'tune' or 'test' a row: whole groups, stratified by their rarest label.

    Raises SplitError for bad fractions or for fewer groups than splits.
    """
    check_fractions(fractions)
    wanted = sum(share > 0 for share in fractions)
    strata = group_strata(groups, labels)
    if len(strata) < wanted:
        raise SplitError(
            f"{len(strata)} patients cannot fill {wanted} splits. Add patients, or set a fraction "
            f"to 0."
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
    """Return the given splits, with tune drawn from train by group where only train and test are
    given.
    """
    check_fractions(fractions)
    splits = np.array(given, object)
    train = np.flatnonzero(splits == "train")
    if set(splits) != {"train", "test"} or fractions[1] == 0:
        return splits
    within = pd.factorize(groups[train])[0]
    strata = group_strata(within, [labels[int(row)] for row in train])
    if len(strata) < 2:
        raise SplitError(
            "The given train split has one patient: none is left to tune on. Give tune rows as "
            "well."
        )
    splits[train[allocate(strata, fractions[:2], seed)[within] == 1]] = "tune"
    return splits


def group_folds(table: pd.DataFrame, k: int, seed: int) -> np.ndarray:
    """Return a fold 0..k-1 for each row of a manifest's table: whole patients, stratified. Raises
    SplitError.
    """
    groups = connected_groups(list(table["patient"]), [list(table["pixel_sha256"])])
    return assign_folds(groups, row_strata(table), k, seed)


def assign_folds(groups: np.ndarray, labels: Sequence[str], k: int, seed: int) -> np.ndarray:
    """Return a fold 0..k-1 for each row: whole groups, stratified by their rarest label. Raises
    SplitError.
    """
    strata = group_strata(groups, labels)
    if not 2 <= k <= len(strata):
        way = "2 or more folds" if k < 2 else "fewer folds, at most one a patient"
        raise SplitError(f"{k} folds of {len(strata)} patients: give {way}.")
    return allocate(strata, [1 / k] * k, seed)[groups]


def check_no_overlap(table: pd.DataFrame) -> None:
    """Raise SplitError where a patient or identical pixels lie in two splits. Columns: split,
    patient, pixel_sha256.
    """
    crossing = {name: int(overlap(table, name).nunique()) for name in ("patient", "pixel_sha256")}
    if any(crossing.values()):
        raise SplitError(
            f"{crossing['patient']} patients and {crossing['pixel_sha256']} pictures with "
            f"identical pixels lie in two "
            "splits: scores on them would be too good. Give all rows of a patient, and all "
            "copies, one split."
        )


def overlap(table: pd.DataFrame, column: str) -> pd.Series:
    """Return the values of `column` (rows kept) that occur in more than one split."""
    return table[column][table.groupby(column)["split"].transform("nunique") > 1]


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise SplitError unless there are three numbers from 0 to 1 with sum 1 and some training."""
    values = np.asarray(fractions, float)
    if (
        values.shape != (3,)
        or not (values >= 0).all()
        or abs(values.sum() - 1) > 1e-6
        or values[0] == 0
    ):
        raise SplitError(
            f"fractions {tuple(fractions)}: give train, tune and test with sum 1, as in 0.7, "
            f"0.15, 0.15."
        )


def _counts(n: int, shares: np.ndarray, lag: np.ndarray) -> np.ndarray:
    """Deal n groups to parts by `shares`; the rest of the rounding follows `lag`, what each part is
    owed in all.
    """
    used = shares > 0
    enough = n >= used.sum()
    lowest, highest = used & enough, np.where(used, n if enough else 1, 0)
    counts = np.maximum(np.floor(n * shares + 1e-9).astype(int), lowest)
    while counts.sum() != n:
        step = 1 if counts.sum() < n else -1
        free = (counts + step >= lowest) & (counts + step <= highest)
        counts[int(np.argmax(np.where(free, step * (lag - counts), -np.inf)))] += step
    return counts


def _fill_empty(parts: np.ndarray, strata: Sequence[str], shares: np.ndarray) -> None:
    """Give each empty part one group of the commonest stratum of the fullest part."""
    for part in np.flatnonzero(shares > 0)[::-1]:
        held = np.bincount(parts, minlength=len(shares))
        if held[part] == 0 and held.max() > 1:
            members = np.flatnonzero(parts == held.argmax())
            count = pd.Series([strata[int(group)] for group in members], dtype=object)
            parts[members[int(np.argmax(count.map(count.value_counts())))]] = part
