"""Lesions matched by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medres.evaluate.segmentation.lesions import bin_names, match_lesions


def mask(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Boxes (top, bottom, left, right) in an image of 20 x 40."""
    values = np.zeros((20, 40), np.bool_)
    for top, bottom, left, right in boxes:
        values[top:bottom, left:right] = True
    return values


def test_found_missed_and_false() -> None:
    reference = mask((0, 4, 0, 4), (10, 14, 0, 4))
    match = match_lesions(reference, mask((1, 5, 0, 4), (10, 13, 20, 22)))
    assert match.size.tolist() == [16, 16]
    assert match.found.tolist() == [True, False]
    assert match.false_size.tolist() == [6]
    assert (match.n_split, match.n_merged) == (0, 0)


def test_iou_must_be_above_the_limit() -> None:
    reference, prediction = mask((0, 10, 0, 1)), mask((9, 20, 0, 1))  # IoU 1 / 20
    assert not match_lesions(reference, prediction).found.any()
    assert match_lesions(reference, prediction).false_size.tolist() == [11]
    assert match_lesions(reference, prediction, 0.04).found.all()
    ten = mask((0, 1, 0, 10))
    assert not match_lesions(ten, mask((0, 1, 0, 1)), 0.1).found.any()  # IoU exactly 0.1
    assert match_lesions(ten, mask((0, 1, 0, 2)), 0.1).found.all()


def test_split_lesion_is_one_hit_and_its_pieces_are_not_false() -> None:
    match = match_lesions(mask((0, 4, 0, 20)), mask((0, 4, 0, 9), (0, 4, 11, 20)))
    assert match.found.tolist() == [True]
    assert match.false_size.tolist() == []
    assert (match.n_split, match.n_merged) == (1, 0)


def test_large_component_that_grazes_a_hit_lesion_is_false() -> None:
    match = match_lesions(mask((0, 4, 0, 20)), mask((0, 4, 0, 9), (3, 20, 19, 30)))
    assert match.found.tolist() == [True]
    assert match.false_size.tolist() == [17 * 11]


def test_merged_lesions_are_one_hit_by_greatest_overlap() -> None:
    match = match_lesions(mask((0, 4, 0, 9), (0, 4, 11, 17)), mask((0, 4, 0, 17)))
    assert match.found.tolist() == [True, False]
    assert (match.n_split, match.n_merged) == (0, 1)
    assert match.false_size.tolist() == []


def test_corners_connect() -> None:
    match = match_lesions(mask((0, 2, 0, 2), (2, 4, 2, 4)), mask((0, 2, 0, 2), (2, 4, 2, 4)))
    assert match.size.tolist() == [8]
    diagonal = np.zeros((3, 3, 3), np.bool_)
    diagonal[0, 0, 0] = diagonal[1, 1, 1] = True
    assert match_lesions(diagonal, diagonal).size.tolist() == [2]


@pytest.mark.parametrize("reference", [mask(), mask((0, 2, 0, 2))])
def test_empty_prediction(reference: np.ndarray) -> None:
    match = match_lesions(reference, mask())
    assert match.found.tolist() == [False] * int(reference.any())
    assert match.false_size.size == 0


def test_names_of_bins_cover_all_sizes() -> None:
    assert bin_names((1.0, 2.5), "mm2") == ["below 1 mm2", "1 to 2.5 mm2", "at least 2.5 mm2"]
