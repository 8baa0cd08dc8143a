from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from helpers import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st

from medres.errors import PredictionError
from medres.inference.sliding_windows import largest_class, sliding_window, windows_of

CLASSES = 3
CASES = [
    ((13, 9), (4, 5), 0.5),
    ((5, 17), (8, 4), 0.25),  # smaller than the window along one axis
    ((3, 3), (4, 6), 0.0),
    ((7, 12, 9), (4, 4, 4), 0.5),
    ((9, 6, 11), (3, 8, 5), 0.7),
]


def by_position(x: np.ndarray) -> np.ndarray:
    """Scores that depend on the value and on the position within the window."""
    position = np.arange(math.prod(x.shape[1:-1])).reshape(x.shape[1:-1]) % 7
    value = x[..., 0] + 0.1 * position
    return np.stack([np.sin(3 * value), np.cos(2 * value), np.sin(value + 1)], axis=-1)


def full_arrays(
    predict: Any,
    image: np.ndarray,
    patch: Sequence[int],
    overlap: float,
    flips: Sequence[Sequence[int]] = (),
) -> np.ndarray:
    """(classes, *sizes) by definition, in float64, with arrays for the whole image."""
    sizes = [max(n, side) for n, side in zip(image.shape, patch, strict=True)]
    padded = np.full(sizes, image.min())
    inside = tuple(slice(0, n) for n in image.shape)
    padded[inside] = image
    starts = []
    for n, side in zip(sizes, patch, strict=True):
        steps = math.ceil((n - side) / max(1, math.floor(side * (1 - overlap))))
        starts.append([round((n - side) * i / steps) for i in range(steps + 1)] if steps else [0])
    weight = np.ones(patch)
    for axis, side in enumerate(patch):
        g = np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (side / 8)) ** 2)
        weight *= g.reshape([-1 if a == axis else 1 for a in range(len(patch))])
    sums, weights = np.zeros((CLASSES, *sizes)), np.zeros(sizes)
    for corner in itertools.product(*starts):
        region = tuple(slice(s, s + side) for s, side in zip(corner, patch, strict=True))
        x = padded[region][None, ..., None]
        every = [(), *[tuple(a + 1 for a in axes) for axes in flips]]
        y = np.mean([np.flip(predict(np.flip(x, a)), a) for a in every], axis=0)[0]
        sums[(slice(None), *region)] += np.moveaxis(y, -1, 0) * weight
        weights[region] += weight
    return (sums / weights)[(slice(None), *inside)]


def score(i: int) -> Any:
    return lambda scores: scores[i]


@pytest.mark.parametrize(("sizes", "patch", "overlap"), CASES)
@pytest.mark.parametrize("flips", [(), [(0,), (0, 1)]])
def test_scores_equal_those_of_full_arrays(
    sizes: tuple[int, ...], patch: tuple[int, ...], overlap: float, flips: Any
) -> None:
    image = np.random.default_rng(0).normal(size=sizes).astype(np.float32)
    expected = full_arrays(by_position, image, patch, overlap, flips)
    for i in range(CLASSES):
        result = sliding_window(
            by_position, image, patch, overlap, batch=3, flips=flips, reduce=score(i)
        )
        np.testing.assert_allclose(result, expected[i], atol=2e-6)
    label = sliding_window(by_position, image, patch, overlap, flips=flips)
    top = np.sort(expected, axis=0)
    clear = top[-1] - top[-2] > 1e-4
    assert label.shape == sizes
    np.testing.assert_array_equal(label[clear], expected.argmax(axis=0)[clear])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 14), st.integers(1, 7)), min_size=2, max_size=3),
    st.sampled_from([0.0, 0.3, 0.5, 0.8]),
    st.integers(1, 5),
)
def test_the_weights_of_all_windows_sum_to_one(
    axes: list[tuple[int, int]], overlap: float, batch: int
) -> None:
    sizes, patch = zip(*axes, strict=True)
    image = np.random.default_rng(1).normal(size=sizes).astype(np.float32)
    result = sliding_window(lambda x: x, image, patch, overlap, batch=batch, reduce=score(0))
    np.testing.assert_allclose(result, image, atol=1e-5)


@pytest.mark.parametrize(("sizes", "patch"), [((8, 6), (4, 3)), ((4, 6, 6), (2, 3, 2))])
def test_windows_that_tile_keep_their_result_exactly(
    sizes: tuple[int, ...], patch: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(size=(*sizes, 2)).astype(np.float32)
    matrix = rng.normal(size=(2, CLASSES)).astype(np.float32)
    for i in range(CLASSES):
        result = sliding_window(lambda x: x @ matrix, image, patch, 0.0, reduce=score(i))
        for corner in itertools.product(
            *(range(0, n, p) for n, p in zip(sizes, patch, strict=True))
        ):
            region = tuple(slice(s, s + p) for s, p in zip(corner, patch, strict=True))
            assert (result[region] == (image[region][None] @ matrix)[0, ..., i]).all()


def test_every_call_has_the_same_shape() -> None:
    shapes = set()

    def predict(x: np.ndarray) -> np.ndarray:
        shapes.add((x.shape, x.dtype.name))
        return by_position(x)

    sliding_window(predict, np.zeros((9, 5, 7)), (4, 8, 3), batch=4)
    assert shapes == {((4, 4, 8, 3, 1), "float32")}


def peak(length: int) -> int:
    image = np.zeros((length, 16, 16), np.float32)
    tracemalloc.start()
    sliding_window(lambda x: np.repeat(x, 8, axis=-1), image, (8, 16, 16))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most - length * 256  # without the uint8 result


def test_memory_does_not_grow_with_the_number_of_windows() -> None:
    assert peak(400) < 1.3 * peak(40)


def test_the_largest_class_is_that_of_argmax() -> None:
    scores = np.random.default_rng(3).integers(0, 4, (5, 6, 7)).astype(np.float32)  # with ties
    np.testing.assert_array_equal(largest_class(scores), scores.argmax(axis=0))
    assert largest_class(np.zeros((300, 2))).dtype == np.uint16


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("bad_patch", {"patch": (4,)}),
        ("bad_patch", {"patch": (4, 0)}),
        ("bad_patch", {"patch": (4, 4, 4, 4)}),
        ("bad_patch", {"volume": np.zeros((0, 4))}),
        ("bad_patch", {"volume": np.zeros((2, 3, 4, 5))}),
        ("bad_overlap", {"overlap": 1.0}),
        ("bad_overlap", {"batch": 0}),
        ("bad_flips", {"flips": [(2,)]}),
        ("predict_shape", {"predict": lambda x: x[:, :2]}),
        ("non_finite", {"predict": lambda x: x * np.nan}),
    ],
)
def test_what_cannot_be_computed_is_refused(code: str, options: dict[str, Any]) -> None:
    arguments = {"predict": by_position, "volume": np.zeros((6, 6)), "patch": (4, 4)} | options
    with raises_code(PredictionError, code):
        sliding_window(**arguments)


def test_windows_are_those_that_the_network_sees() -> None:
    image = np.random.default_rng(0).random((7, 12, 9, 1)).astype(np.float32)
    seen = []

    def predict(x: np.ndarray) -> np.ndarray:
        seen.extend(each.tobytes() for each in x)
        return np.repeat(x, 2, axis=-1)

    sliding_window(predict, image, (4, 5, 4))
    assert sorted(seen) == sorted(each.tobytes() for each in windows_of(image, (4, 5, 4)))
