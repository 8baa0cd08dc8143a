"""Finds the pairs of perceptual hashes that are close, without comparing all pairs.

Up to EXACT_BELOW hashes are compared pair by pair. Above, hashes are compared that agree on a
random subset of the bits, over many subsets (bit sampling; Indyk and Motwani, STOC 1998). Two
hashes that differ in h of 512 bits agree on k of them with a probability that depends on h and k
alone, so the number of subsets is chosen such that a pair at the limit is missed with a probability
of at most MISS_PROBABILITY, and closer pairs far more rarely. The pigeonhole principle (equal in
one of several bands, as for hashes of 64 bits) would miss nothing, but at this limit up to 60 of
512 bits may differ, and bands so narrow are equal in a tenth of all pairs of radiographs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

HASH_BITS = 512
EXACT_BELOW = 6000
MISS_PROBABILITY = 1e-6
#: A hash with this many close ones is looked for no more: its other pairs are not counted.
MAX_NEIGHBORS = 100
_WORDS = HASH_BITS // 64
_BLOCK = 1024
_WINDOW = 32  # a hash is compared with so many of those that agree on a subset of the bits
_CHUNK = 1 << 19  # pairs that are compared at a time
_MERGE_AT = 1 << 17  # pairs that may wait until repeated ones are dropped
_SAMPLE = 1500  # hashes from whose pairs the number of sampled bits is chosen
_PLANNED_FOR = 800_000  # hashes: below, the subsets are as large, and the time is linear
_SORT_NS, _COMPARE_NS = 60.0, 150.0  # per hash and subset; per pair
_BIT_COUNTS = (20, 40, 80, 160, HASH_BITS)  # sparse hashes need larger subsets than dense ones

#: called with (done, total)
Progress = Callable[[int, int], None]
_BYTE_COUNTS = np.array([byte.bit_count() for byte in range(256)], np.uint8)


class ClosePairs(NamedTuple):
    """Indices of two hashes, first < second (pairs,), and their distances, float32 (pairs,)."""

    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray


def all_close_pairs(
    words: np.ndarray, limit: float, progress: Progress | None = None
) -> Iterator[ClosePairs]:
    """Yield every pair of hashes whose Jaccard distance is at most `limit`, by comparing all.

    words: distinct hashes, uint64 (hashes, 8), each with at least one bit.
    """
    bits = np.unpackbits(words.view(np.uint8), axis=1).astype(np.float32)
    size = bits.sum(axis=1)
    for start in range(0, len(bits), _BLOCK):
        block = slice(start, start + _BLOCK)
        common = bits[block] @ bits[start:].T
        union = size[block, None] + size[None, start:] - common
        distance = (union - common) / union
        first, second = np.nonzero(np.triu(distance <= limit, 1))
        yield ClosePairs(first + start, second + start, distance[first, second])
        if progress is not None:
            progress(min(start + _BLOCK, len(bits)), len(bits))


def sampled_close_pairs(
    words: np.ndarray, limit: float, progress: Progress | None = None
) -> Iterator[ClosePairs]:
    """Yield nearly every pair of hashes whose Jaccard distance is at most `limit`, each once, in
    time that grows little faster than the number of hashes.

    words: as for `all_close_pairs`. What is not found: a pair within the limit with a probability
    of at most MISS_PROBABILITY, and pairs of hashes with more than MAX_NEIGHBORS close ones.
    """
    rng = np.random.default_rng(0)
    size = _popcount(words).sum(axis=1, dtype=np.int64)
    plans = [plan for plan in _plans(words, size, limit, rng) if len(plan.tables)]
    total, done = sum(int(plan.tables[0]) for plan in plans), 0
    found = _Pairs(len(words))
    for plan in plans:
        members = words[plan.members]
        columns = np.ascontiguousarray(members.T)
        active = np.ones(len(members), bool)
        for table in range(int(plan.tables[0])):
            count = int(np.searchsorted(-plan.tables, -table, side="left"))
            rows = np.flatnonzero(active[:count])
            part = columns[:, :count] if len(rows) == count else columns[:, rows]
            matches = _matches(part, rows, *_random_mask(rng, plan.sampled_bits))
            for pairs in _chunks(matches):
                close = _compare(members, size[plan.members], pairs, limit)
                found.add(plan.members[close.first], plan.members[close.second])
            if found.merge():
                active = found.neighbors[plan.members] < MAX_NEIGHBORS
            done += 1
            if progress is not None:
                progress(done, total)
    found.merge(final=True)
    for pairs in _chunks(np.divmod(found.codes, len(words))):
        yield _compare(words, size, pairs, limit)


def _popcount(words: np.ndarray) -> np.ndarray:
    """The number of set bits of each word; a fallback for NumPy 1, which cannot count them."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(words)
    return _BYTE_COUNTS[words.view(np.uint8)].reshape(*words.shape, 8).sum(axis=-1)


class _Plan(NamedTuple):
    """members: the hashes that are searched together, those with most tables first. tables: the
    number of subsets for each of them. sampled_bits: the size of a subset.
    """

    members: np.ndarray
    tables: np.ndarray
    sampled_bits: int


class _Pairs:
    """The distinct pairs found so far, as numbers first * count + second, and the number of close
    hashes of each hash at the last merge.
    """

    def __init__(self, count: int) -> None:
        self.count, self.codes = count, np.zeros(0, np.int64)
        self.neighbors = np.zeros(count, np.int64)
        self._new: list[np.ndarray] = []
        self._waiting = 0

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        low, high = np.minimum(first, second), np.maximum(first, second)
        self._new.append(low.astype(np.int64) * self.count + high)
        self._waiting += len(first)

    def merge(self, *, final: bool = False) -> bool:
        """Drop repeated pairs once enough are waiting; returns whether that was done."""
        if self._waiting < max(_MERGE_AT, len(self.codes) // 8) and not final:
            return False
        codes = np.concatenate([self.codes, *self._new])
        codes.sort()
        self.codes = codes[np.append(codes[1:] != codes[:-1], True)] if len(codes) else codes
        self._new, self._waiting = [], 0
        self.neighbors = sum(
            np.bincount(part, minlength=self.count) for part in np.divmod(self.codes, self.count)
        )  # type: ignore[assignment]
        return True


def _plans(
    words: np.ndarray, size: np.ndarray, limit: float, rng: np.random.Generator
) -> Iterator[_Plan]:
    """Groups of hashes with similar numbers of bits. A pair within the limit lies within the group
    of its larger hash, which reaches down to the smallest partner.
    """
    low = 0
    for high in _BIT_COUNTS:
        has_larger = bool(((size > low) & (size <= high)).any())
        members = np.flatnonzero((size >= (1 - limit) * low) & (size <= high))
        low = high
        if not has_larger or len(members) < 2:
            continue
        # of n bits: the partner has at most n / (1 - limit), of which the share `limit` differs
        largest = np.minimum(size[members] / (1 - limit), high)
        differing = np.floor(limit * largest + 1e-9).astype(np.int64)
        sample = words[rng.choice(members, min(_SAMPLE, len(members)), replace=False)]
        sampled_bits, tables = _cheapest(differing, _far_pairs(sample, limit), len(members))
        order = np.argsort(-tables, kind="stable")
        yield _Plan(members[order], tables[order], sampled_bits)


def _cheapest(differing: np.ndarray, sample: np.ndarray, count: int) -> tuple[int, np.ndarray]:
    """The number of sampled bits with the lowest expected time, and the tables of each hash.

    differing: bits in which a hash may differ from a close one. sample: numbers of pairs beyond the
        limit, by differing bits; those within it are few or bounded by MAX_NEIGHBORS.
    """
    agreement = _agreement()
    by_bits = np.bincount(differing, minlength=HASH_BITS + 1)
    with np.errstate(divide="ignore"):
        tables = np.ceil(math.log(1 / MISS_PROBABILITY) / agreement)
    tables = np.minimum(tables, 1e6)
    matches = sample @ agreement / max(sample.sum(), 1) * max(count, _PLANNED_FOR) / 2
    cost = (by_bits @ tables) * (_SORT_NS + _COMPARE_NS * np.minimum(matches, _WINDOW))
    best = int(np.argmin(cost))
    return best + 1, tables[differing, best].astype(np.int64)


def _agreement() -> np.ndarray:
    """The probability that hashes which differ in h bits (row) agree on k + 1 random ones
    (column): hypergeometric.
    """
    agreeing = HASH_BITS - np.arange(HASH_BITS + 1)[:, None] - np.arange(HASH_BITS // 2)
    with np.errstate(divide="ignore"):
        steps = np.log(np.maximum(agreeing, 0)) - np.log(HASH_BITS - np.arange(HASH_BITS // 2))
    return np.exp(np.cumsum(steps, axis=1))


def _far_pairs(words: np.ndarray, limit: float) -> np.ndarray:
    """The number of pairs beyond the limit that differ in 0, 1, ... 512 bits."""
    bits = np.unpackbits(words.view(np.uint8), axis=1).astype(np.float32)
    size = bits.sum(axis=1)
    differing = size[:, None] + size - 2 * (bits @ bits.T)
    far = np.triu(2 * differing > limit * (size[:, None] + size + differing), 1)
    return np.bincount(differing[far].astype(np.int64), minlength=HASH_BITS + 1)


def _random_mask(rng: np.random.Generator, sampled_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The sampled bits of a hash as words, and an odd factor for each word."""
    bits = np.zeros(HASH_BITS, np.uint8)
    bits[rng.choice(HASH_BITS, sampled_bits, replace=False)] = 1
    factor = rng.integers(0, 1 << 63, _WORDS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return np.packbits(bits).view(np.uint64), factor


def _matches(
    columns: np.ndarray, rows: np.ndarray, mask: np.ndarray, factor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of hashes that are equal under the mask; within a long run of equal ones, those that
    are at most _WINDOW apart.

    columns: the hashes as words, (8, hashes); rows: their numbers. In a key, the upper bits are the
    hash of the sampled bits, and the lower bits say whose they are, so that sorting the keys is
    enough.
    """
    keys = np.zeros(len(rows), np.uint64)
    for column, bits, odd in zip(columns, mask, factor, strict=True):
        if bits:
            keys += (column & bits) * odd
    width = np.uint64(max(len(rows) - 1, 1).bit_length())
    keys = ((keys ^ (keys >> np.uint64(29))) >> width << width) | np.arange(
        len(rows), dtype=np.uint64
    )
    keys.sort()
    owner = rows[(keys & ((np.uint64(1) << width) - np.uint64(1))).astype(np.int64)]
    keys >>= width
    starts = np.flatnonzero(keys[1:] == keys[:-1])
    first, second = [], []
    for lag in range(1, _WINDOW + 1):
        if lag > 1:
            starts = starts[starts + lag < len(keys)]
            starts = starts[keys[starts] == keys[starts + lag]]
        if not len(starts):
            break
        first.append(owner[starts])
        second.append(owner[starts + lag])
    if not first:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(first), np.concatenate(second)


def _chunks(pairs: tuple[np.ndarray, np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(pairs[0]), _CHUNK):
        yield pairs[0][start : start + _CHUNK], pairs[1][start : start + _CHUNK]


def _compare(
    words: np.ndarray, size: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], limit: float
) -> ClosePairs:
    """Those of the pairs whose distance is at most `limit`."""
    first, second = pairs
    differing = _popcount(words[first] ^ words[second]).sum(axis=1, dtype=np.float32)
    union = (size[first] + size[second] + differing).astype(np.float32) / 2
    distance = differing / union
    near = distance <= limit
    return ClosePairs(first[near], second[near], distance[near])
