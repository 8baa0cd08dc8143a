"""Surface distances against slow versions that compare all pairs of surface pieces."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from scipy import ndimage

from medres.evaluate.segmentation.surface_elements import corners, element_sizes
from medres.evaluate.segmentation.surfaces import (
    CONVENTIONS,
    Directed,
    bounding_box,
    surface_distances,
)


def blobs(seed: int, axes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((11, 9, 10)[:axes])
    fields = [
        ndimage.gaussian_filter(base + 0.7 * rng.standard_normal(base.shape), 1) for _ in "ab"
    ]
    return tuple(field > np.quantile(field, 0.75) for field in fields)


def slow_surface(mask: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Centers and sizes of the surface elements, group of voxels by group of voxels."""
    sizes, points, weights = element_sizes(spacing), [], []
    for place in product(*(range(-1, n) for n in mask.shape)):
        code = 0
        for bit, corner in enumerate(corners(mask.ndim)):
            at = tuple(p + c for p, c in zip(place, corner, strict=True))
            inside = all(0 <= i < n for i, n in zip(at, mask.shape, strict=True))
            code |= int(inside and bool(mask[at])) << bit
        if 0 < code < sizes.size - 1:
            points.append([p * s for p, s in zip(place, spacing, strict=True)])
            weights.append(sizes[code])
    return np.array(points), np.array(weights)


def slow_boundary(mask: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Voxels with a face on the outside."""
    padded = np.pad(mask, 1)
    points = []
    for at in np.argwhere(padded):
        steps = [
            sign * np.eye(mask.ndim, dtype=int)[axis]
            for axis in range(mask.ndim)
            for sign in (1, -1)
        ]
        if not all(padded[tuple(at + step)] for step in steps):
            points.append(at * np.array(spacing))
    return np.array(points), np.ones(len(points))


def nearest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).min(1)


def weighted_percentile(distance: np.ndarray, weight: np.ndarray) -> float:
    pairs = sorted(zip(distance, weight, strict=True))
    total, so_far = sum(weight), 0.0
    for d, w in pairs:
        so_far += w
        if so_far >= 0.95 * total:
            return d
    raise AssertionError


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0), (1.0, 1.0, 1.0), (3.0, 0.7, 0.9)])
@pytest.mark.parametrize("name", ["surface", "boundary"])
def test_distances_are_those_of_all_pairs(name: str, spacing: tuple[float, ...]) -> None:
    slow = {"surface": slow_surface, "boundary": slow_boundary}[name]
    for seed in range(2):
        a, b = blobs(seed, len(spacing))
        found = surface_distances(a, b, spacing, CONVENTIONS[name])
        (pa, wa), (pb, wb) = slow(a, spacing), slow(b, spacing)
        there, back = nearest(pa, pb), nearest(pb, pa)
        near = wa[there <= 1.0].sum() + wb[back <= 1.0].sum()
        total = wa.sum() + wb.sum()
        if name == "surface":
            hd95 = max(weighted_percentile(there, wa), weighted_percentile(back, wb))
        else:
            hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
        assert found.hausdorff() == pytest.approx(hd95, abs=1e-9)
        assert found.surface_dice(1.0) == pytest.approx(near / total, abs=1e-12)
        average = (there @ wa + back @ wb) / total
        assert found.average() == pytest.approx(average, abs=1e-12)


def test_sizes_of_pieces_of_simple_bodies() -> None:
    flat, cut = 0b1111, 0b0001
    assert element_sizes((5.0, 2.0, 3.0))[flat << 4] == pytest.approx(6.0)  # across the first axis
    edge = [
        np.hypot(2, 3) / 2,
        np.hypot(3, 5) / 2,
        np.hypot(2, 5) / 2,
    ]  # of the triangle at a corner
    half = sum(edge) / 2
    heron = np.sqrt(half * np.prod([half - e for e in edge]))
    assert element_sizes((5.0, 2.0, 3.0))[cut] == pytest.approx(heron)
    assert element_sizes((3.0, 4.0))[cut] == pytest.approx(2.5)
    assert element_sizes((3.0, 4.0))[0b1001] == pytest.approx(5.0)  # opposite corners


def test_sizes_do_not_depend_on_side_or_direction() -> None:
    sizes = element_sizes((1.0, 1.0, 1.0))
    assert sizes == pytest.approx(sizes[::-1])  # inside and outside exchanged
    places = corners(3)
    for order, flip in product(permutations(range(3)), product((0, 1), repeat=3)):
        moved = [
            tuple(corner[o] ^ f for o, f in zip(order, flip, strict=True)) for corner in places
        ]
        bits = [places.index(corner) for corner in moved]
        turned = [sum((code >> i & 1) << bit for i, bit in enumerate(bits)) for code in range(256)]
        assert sizes[turned] == pytest.approx(sizes)


def test_two_balls() -> None:
    """benchmarks/masks_peers.py gives the same values by surface-distance and MONAI."""
    z, y, x = np.ogrid[:64, :64, :64]
    a = (z - 32) ** 2 + (y - 32) ** 2 + (x - 32) ** 2 <= 15**2
    b = (z - 32) ** 2 + (y - 32) ** 2 + (x - 35) ** 2 <= 16**2
    surface, boundary = (
        surface_distances(a, b, (1.0, 1.0, 1.0), convention) for convention in CONVENTIONS.values()
    )
    assert surface.hausdorff() == pytest.approx(3.3166247903554)
    assert surface.surface_dice(1.0) == pytest.approx(0.527914458646954)
    assert surface.average() == pytest.approx(1.3405020197278619)
    assert boundary.hausdorff() == pytest.approx(3.605551275463989)
    assert boundary.surface_dice(1.0) == pytest.approx(0.4292845257903494)
    assert boundary.average() == pytest.approx(1.6224232215852985)


def test_spacing_scales_distances_and_equal_masks_are_at_zero() -> None:
    a, b = blobs(5, 3)
    for convention in CONVENTIONS.values():
        one = surface_distances(a, b, (1.0, 2.0, 3.0), convention)
        two = surface_distances(a, b, (2.0, 4.0, 6.0), convention)
        back = surface_distances(b, a, (1.0, 2.0, 3.0), convention)
        assert two.hausdorff() == pytest.approx(2 * one.hausdorff())
        assert two.average() == pytest.approx(2 * one.average())
        assert back.hausdorff() == one.hausdorff()
        same = surface_distances(a, a, (1.0, 2.0, 3.0), convention)
        assert (same.hausdorff(), same.average(), same.surface_dice(0.0)) == (0.0, 0.0, 1.0)


def test_place_in_the_image_does_not_matter() -> None:
    a, b = blobs(6, 3)
    moved = [np.pad(mask, ((0, 9), (7, 0), (3, 4))) for mask in (a, b)]
    for convention in CONVENTIONS.values():
        here = surface_distances(a, b, (1.0, 2.0, 3.0), convention)
        there = surface_distances(*moved, (1.0, 2.0, 3.0), convention)
        assert there.average() == pytest.approx(here.average())
    box = bounding_box(moved[0] | moved[1], margin=100)
    assert box == tuple(slice(0, n) for n in moved[0].shape)


def test_corners_inside_that_touch_at_an_edge_only_are_cut_off_one_by_one() -> None:
    sizes, places = element_sizes((1.0, 2.0, 3.0)), corners(3)
    one = sizes[1 << places.index((0, 0, 0))]
    two = sizes[1 << places.index((0, 0, 0)) | 1 << places.index((0, 1, 1))]
    assert two == pytest.approx(2 * one)


def test_the_percentile_of_few_pieces_may_be_the_last() -> None:
    few = Directed(np.array([0.0, 0.0, 7.0]), np.ones(3))
    assert few.weighted_percentile(95.0) == 7.0
    tenths = Directed(np.arange(10.0), np.full(10, 0.1))  # their shares do not quite add up to 1
    assert tenths.weighted_percentile(100.0) == 9.0


def test_the_bounding_box_is_as_tight_as_it_can_be() -> None:
    mask = np.zeros((9, 9), bool)
    mask[3:5, 2] = True
    assert bounding_box(mask) == (slice(3, 5), slice(2, 3))
    assert bounding_box(mask, 3) == (slice(0, 8), slice(0, 6))
