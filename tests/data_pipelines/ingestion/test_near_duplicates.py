from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.ingestion import hash_search
from data_pipelines.ingestion.near_duplicates import NearDuplicates, near_duplicates
from data_pipelines.ingestion.perceptual_hash import MAX_HASH_DISTANCE


def as_hashes(bits: np.ndarray) -> list[str]:
    return [np.packbits(row).tobytes().hex() for row in bits]


def slow(bits: np.ndarray, owners: np.ndarray, splits: np.ndarray) -> NearDuplicates:
    """By definition: the share of differing bits among those set in either, of all pairs."""
    pairs = []
    for i, a in enumerate(bits):
        for j in range(i + 1, len(bits)):
            union = (a | bits[j]).sum()
            distance = (a ^ bits[j]).sum() / union if union else 1.0
            if owners[i] != owners[j] and distance <= MAX_HASH_DISTANCE:
                pairs.append((i, j, float(distance)))
    pairs.sort(key=lambda pair: (pair[2], pair[:2]))
    across = sum(splits[i] != splits[j] for i, j, _ in pairs)
    return NearDuplicates(pairs, len(pairs), int(across), True)


def cohort(seed: int, count: int, patterns: int, density: float) -> np.ndarray:
    """Hashes of a few patterns with some bits flipped: copies, near ones and far ones."""
    rng = np.random.default_rng(seed)
    base = rng.random((patterns, 512)) < density
    flips = rng.choice([0, 0, 0.01, 0.04, 0.08, 0.3], count) * density
    return base[rng.integers(0, patterns, count)] ^ (rng.random((count, 512)) < flips[:, None])


def assert_same(got: NearDuplicates, expected: NearDuplicates) -> None:
    assert got[1:3] == expected[1:3]
    assert [pair[:2] for pair in got.nearest] == [pair[:2] for pair in expected.nearest]
    assert [pair[2] for pair in got.nearest] == pytest.approx(
        [pair[2] for pair in expected.nearest], abs=1e-6
    )


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 60),
    patterns=st.integers(1, 12),
    density=st.sampled_from([0, 0.01, 0.05, 0.2, 0.45, 0.8, 1]),
    owners=st.integers(1, 30),
    sampled=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_the_pairs_are_those_of_the_definition(
    seed: int, count: int, patterns: int, density: float, owners: int, sampled: bool
) -> None:
    bits = cohort(seed, count, patterns, density)
    rng = np.random.default_rng(seed)
    owner, split = rng.integers(0, owners, count), rng.integers(0, 3, count)
    with pytest.MonkeyPatch.context() as patch:
        if sampled:
            patch.setattr("data_pipelines.ingestion.near_duplicates.EXACT_BELOW", -1)
            patch.setattr(hash_search, "_PLANNED_FOR", 1000)
            patch.setattr(hash_search, "_WINDOW", 1000)
        got = near_duplicates(as_hashes(bits), owner, split, show=10**6)
    assert got.exact is not sampled
    assert_same(got, slow(bits, owner, split))


def test_a_search_by_samples_finds_what_the_comparison_of_all_finds() -> None:
    bits = cohort(1, 8000, 4000, 0.5)
    words = np.unique(np.packbits(bits, axis=1), axis=0).view(np.uint64)
    found = [
        {
            (i, j): d
            for close in search(words, MAX_HASH_DISTANCE)
            for i, j, d in zip(*map(np.ndarray.tolist, close), strict=True)
        }
        for search in (hash_search.all_close_pairs, hash_search.sampled_close_pairs)
    ]
    assert len(words) > hash_search.EXACT_BELOW
    assert len(found[0]) > 500
    assert found[0] == found[1]


def test_copies_are_counted_without_being_compared() -> None:
    bits = np.repeat(np.random.default_rng(2).random((40, 512)) < 0.5, 5000, axis=0)
    owners, hashes = np.arange(len(bits)) % 5000, as_hashes(bits)
    tracemalloc.start()
    got = near_duplicates(hashes, owners, owners % 2, show=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got.exact
    assert got.pairs == 40 * math.comb(5000, 2)
    assert got.across_splits == 40 * 2500**2
    assert got.nearest == [(0, j, 0.0) for j in range(1, 1001)]
    assert peak < 500 << 20


def test_many_similar_images_cost_bounded_work_and_hide_no_other_pair() -> None:
    rng = np.random.default_rng(3)
    alike = (rng.random(512) < 0.5) ^ (rng.random((3000, 512)) < 0.02)
    others = rng.random((5000, 512)) < 0.5
    copies = others[:50] ^ (rng.random((50, 512)) < 0.03)
    bits = np.concatenate([alike, others, copies])
    got = near_duplicates(as_hashes(bits), np.arange(len(bits)), show=10**7)
    pairs = {pair[:2] for pair in got.nearest}
    assert not got.exact
    assert 3000 * hash_search.MAX_NEIGHBORS // 2 <= got.pairs < math.comb(3000, 2)
    assert {(3000 + n, 8000 + n) for n in range(50)} <= pairs


@pytest.mark.parametrize("count", [30, 7000])
def test_progress_reaches_its_total(count: int) -> None:
    steps: list[tuple[int, int]] = []
    hashes = as_hashes(cohort(4, count, count, 0.5))
    near_duplicates(hashes, np.arange(count), show=5, progress=lambda *step: steps.append(step))
    assert steps[-1][0] == steps[-1][1]
    assert steps == sorted(steps)
