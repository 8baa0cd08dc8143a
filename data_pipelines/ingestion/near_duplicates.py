"""Similar images of different patients: how many pairs there are, and the nearest of them.

Images with equal hashes are searched as one and counted as many, so that a thousand copies of an
image cost no more than one.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from data_pipelines.ingestion.hash_search import (
    EXACT_BELOW,
    ClosePairs,
    all_close_pairs,
    sampled_close_pairs,
)
from data_pipelines.ingestion.perceptual_hash import MAX_HASH_DISTANCE
from data_pipelines.runtime.worker_pool import ProgressCallback


class NearDuplicates(NamedTuple):
    """nearest: (i, j, distance) of images i < j, the nearest first. pairs: how many were found;
    across_splits: how many of those lie in two splits. exact: False if there may be more
    pairs than that.
    """

    nearest: list[tuple[int, int, float]]
    pairs: int
    across_splits: int
    exact: bool


def near_duplicates(
    hashes: list[str],
    owners: np.ndarray,
    splits: np.ndarray | None = None,
    *,
    show: int,
    limit: float = MAX_HASH_DISTANCE,
    progress: ProgressCallback | None = None,
) -> NearDuplicates:
    """Search for pairs of images of different owners whose hashes are within `limit`.

    hashes: of perceptual_hash; owners, splits: int (images,). show: how many pairs to return. The
    distance is from 0 to 1, 0 for equal hashes. An image without any bit, such as a constant one,
    has no pair. progress: called with (done, total), in steps of the search.
    """
    if splits is None:
        splits = np.zeros(len(hashes), np.int64)
    images = _Images(hashes, owners, splits)
    nearest = _Nearest(show)
    count = across = 0
    exact = len(images.words) <= EXACT_BELOW
    search = all_close_pairs if exact else sampled_close_pairs
    for close in itertools.chain([images.equal()], search(images.words, limit, progress)):
        n_pairs, n_across = images.pairs_between(close.first, close.second)
        count += int(n_pairs.sum())
        across += int(n_across.sum())
        nearest.add(images, ClosePairs(*(column[n_pairs > 0] for column in close)))
    return NearDuplicates(nearest.pairs(images), count, across, exact)


class _Images:
    """Images in groups of equal hashes. words: the hash of each group, uint64 (groups, 8)."""

    def __init__(self, hashes: list[str], owners: np.ndarray, splits: np.ndarray) -> None:
        words = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint64).reshape(-1, 8)
        self.owners = np.asarray(owners)
        self._rows = np.flatnonzero(words.any(axis=1))
        rows_as_bytes = np.ascontiguousarray(words[self._rows]).view("V64").ravel()
        _, first, group = np.unique(rows_as_bytes, return_index=True, return_inverse=True)
        self.words = words[self._rows[first]]
        self._order = np.argsort(group, kind="stable")
        self._starts = np.searchsorted(group[self._order], np.arange(len(first) + 1))
        owner, split = self.owners[self._rows], np.asarray(splits)[self._rows]
        both = owner.astype(np.int64) * (split.max(initial=0) + 1) + split
        self._by_owner, self._by_split, self._by_both = (
            _counts(group, key, len(first)) for key in (owner, split, both)
        )

    def members(self, group: int) -> np.ndarray:
        """Numbers of the images of a group, in rising order."""
        return self._rows[self._order[self._starts[group] : self._starts[group + 1]]]

    def first(self, groups: np.ndarray) -> np.ndarray:
        """The first image of each group."""
        return self._rows[self._order[self._starts[groups]]]

    def equal(self) -> ClosePairs:
        """Each group of several images, as a pair with itself."""
        groups = np.flatnonzero(np.diff(self._starts) > 1)
        return ClosePairs(groups, groups, np.zeros(len(groups), np.float32))

    def pairs_between(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each pair of groups the number of pairs of images of different owners, and how many
        of those lie in different splits. A group and itself: each pair of images counts once.
        """
        size = np.diff(self._starts).astype(np.int64)
        every = size[first] * size[second]
        same_owner = _common(self._by_owner, first, second)
        same_split = _common(self._by_split, first, second)
        same_both = _common(self._by_both, first, second)
        share = np.where(first == second, 2, 1)
        return (every - same_owner) // share, (every - same_owner - same_split + same_both) // share


class _Nearest:
    """The nearest pairs of groups met so far, at most `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        empty = np.zeros(0, np.int64)
        self.close = ClosePairs(empty, empty, np.zeros(0, np.float32))

    def add(self, images: _Images, close: ClosePairs) -> None:
        merged = ClosePairs(*map(np.concatenate, zip(self.close, close, strict=True)))
        a, b = images.first(merged.first), images.first(merged.second)
        order = np.lexsort((np.maximum(a, b), np.minimum(a, b), merged.distance))[: self.limit]
        self.close = ClosePairs(*(column[order] for column in merged))

    def pairs(self, images: _Images) -> list[tuple[int, int, float]]:
        """The nearest pairs of images."""
        pairs = [
            (i, j, float(distance))
            for first, second, distance in zip(*self.close, strict=True)
            for i, j in _image_pairs(images, first, second, self.limit)
        ]
        return sorted(pairs, key=lambda pair: (pair[2], pair[:2]))[: self.limit]


def _image_pairs(images: _Images, first: int, second: int, limit: int) -> list[tuple[int, int]]:
    """At most `limit` pairs (i < j) of images of different owners from two groups, or from one."""
    pairs: list[tuple[int, int]] = []
    partners = images.members(second)
    without_partner = set()
    for i in images.members(first).tolist():
        owner = images.owners[i]
        if owner in without_partner:
            continue
        others = partners[images.owners[partners] != owner]
        if first == second:
            others = others[others > i]
        if not len(others):
            without_partner.add(owner)
        pairs += [(min(i, j), max(i, j)) for j in others[: limit - len(pairs)].tolist()]
        if len(pairs) >= limit:
            break
    return pairs


def _counts(group: np.ndarray, key: np.ndarray, groups: int) -> csr_array:
    """The number of images by group (row) and key (column)."""
    column = np.unique(key, return_inverse=True)[1]
    shape = (groups, int(column.max(initial=-1)) + 1)
    table = csr_array((np.ones(len(group), np.int64), (group, column)), shape=shape)
    table.sum_duplicates()
    return table


def _common(counts: csr_array, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The number of pairs with an equal key, for each pair of groups."""
    if not len(first):
        return np.zeros(0, np.int64)
    return np.asarray(counts[first].multiply(counts[second]).sum(axis=1)).ravel()
