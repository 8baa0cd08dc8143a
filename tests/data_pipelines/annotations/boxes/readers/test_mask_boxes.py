"""Objects of masks as boxes."""

from __future__ import annotations

import io

import numpy as np
from helpers import raises_code
from PIL import Image
from scipy.ndimage import label

from data_pipelines.annotations.boxes.readers.mask_boxes import (
    boxes_of_components,
    boxes_of_labels,
    read_mask_boxes,
)
from data_pipelines.errors import AnnotationError


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_box_of_every_label_holds_all_its_pixels() -> None:
    labels = np.random.default_rng(0).integers(0, 40, (12, 15)).astype(np.uint16) * 9
    boxes = dict(boxes_of_labels(labels.astype(np.int32)))
    assert sorted(boxes) == sorted(set(labels.ravel().tolist()) - {0})
    for number, (x_min, y_min, x_max, y_max) in boxes.items():
        rows, columns = np.nonzero(labels == number)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (
            *(x_min, y_min, x_max, y_max),
        )


def test_components_touch_at_corners_too() -> None:
    mask = np.random.default_rng(1).random((20, 20)) > 0.8
    assert len(boxes_of_components(mask)) == label(mask, np.ones((3, 3)))[1]
    assert boxes_of_components(np.eye(3, dtype=bool)) == [(0.0, 0.0, 3.0, 3.0)]


def test_labels_are_objects_or_classes() -> None:
    labels = np.zeros((8, 9), np.uint8)
    labels[1:3, 1:4], labels[5:7, 1:4], labels[4, 8] = 1, 1, 2
    (by_label,) = read_mask_boxes(png(labels), "a/x.png", "labels")
    assert (by_label.values, by_label.size) == (("a/x",), (8, 9))
    assert [(b.class_name, b.edges) for b in by_label.boxes] == [
        ("1", (1, 1, 4, 7)),
        ("2", (8, 4, 9, 5)),
    ]
    (by_component,) = read_mask_boxes(png(labels), "a/x.png", "components")
    assert [(b.class_name, b.edges) for b in by_component.boxes] == [
        ("1", (1, 1, 4, 3)),
        ("1", (1, 5, 4, 7)),
        ("2", (8, 4, 9, 5)),
    ]


def test_an_empty_mask_is_an_assessed_image() -> None:
    (listed,) = read_mask_boxes(png(np.zeros((4, 5), np.uint8)), "x.png", "labels")
    assert (listed.boxes, listed.size, listed.code) == ((), (4, 5), "")


def test_what_is_no_mask_is_refused() -> None:
    with raises_code(AnnotationError, "mask_color"):
        read_mask_boxes(png(np.zeros((4, 4, 3), np.uint8)), "x.png", "labels")
