"""The label map: layers, overlap, orders, and labels from values."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.annotations.label_map import ClassNames, LabelMap, label_map_of
from data_pipelines.errors import AnnotationError, InputError

CLASSES = ("a", "b", "c")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.0, 0.9))
def test_planes_come_back_as_they_were_given(seed: int, share: float) -> None:
    planes = np.random.default_rng(seed).random((3, 2, 4, 5)) < share
    label_map = LabelMap.empty((2, 4, 5), CLASSES)
    for name, plane in zip(CLASSES, planes, strict=True):
        label_map = label_map.with_plane(name, plane)
    for name, plane in zip(CLASSES, planes, strict=True):
        np.testing.assert_array_equal(label_map.plane(name), plane)
    depth = planes.sum(axis=0)
    assert label_map.overlap_voxels == (depth > 1).sum()
    assert len(label_map.layers) == max(1, depth.max())
    assert label_map.counts_by_slice().tolist() == planes.sum(axis=(2, 3)).T.tolist()
    single = label_map.resolved("c<a<b").layers[0]
    expected = np.where(planes[1], 2, np.where(planes[0], 1, np.where(planes[2], 3, 0)))
    np.testing.assert_array_equal(single, expected)


def test_overlap_needs_an_order() -> None:
    both = LabelMap.empty((1, 1, 3), ("a", "b"))
    both = both.with_plane("a", np.array([[[True, True, False]]]))
    both = both.with_plane("b", np.array([[[False, True, True]]]))
    with raises_code(AnnotationError, "overlapping_classes", "1 voxels"):
        both.single()
    assert both.single("a<b").tolist() == [[1, 2, 2]]
    assert both.single("b<a").tolist() == [[1, 1, 2]]
    for order in ("a", "a<a", "a<b<b"):
        with raises_code(InputError, "label_order", "a, b"):
            both.single(order)


def test_labels_become_classes_of_a_cohort() -> None:
    values = np.array([[[0, 3], [7, 3]]])
    own = label_map_of(values, ClassNames())
    assert own.classes == ("3", "7")
    cohort = own.renamed(("7", "5", "3"))
    assert cohort.single().tolist() == [[0, 3], [1, 3]]


def test_names_join_and_drop_labels() -> None:
    values = np.array([[[0, 1, 2, 3, 4]]], np.float32)
    names = ClassNames({"1": "lung", "2": "lung", "3": "", "*": "other"})
    label_map = label_map_of(values, names)
    assert label_map.classes == ("lung", "other")
    assert label_map.single().tolist() == [[0, 1, 1, 0, 2]]
    with raises_code(AnnotationError, "unknown_label"):
        label_map_of(values, ClassNames({"1": "lung"}))


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([0.0, 0.5], "float_mask"),
        ([0.0, np.nan], "float_mask"),
        ([0, -1], "negative_label"),
        (range(300), "too_many_labels"),
    ],
)
def test_values_that_are_no_labels(values: list, code: str) -> None:
    with raises_code(AnnotationError, code):
        label_map_of(np.array([[list(values)]]), ClassNames())
