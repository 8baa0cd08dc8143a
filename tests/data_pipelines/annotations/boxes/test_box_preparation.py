"""Boxes go through preparation in step with their image."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import raises_code

from data_pipelines.annotations.boxes import EdgeBoxes, boxes_to_original, prepare_boxes
from data_pipelines.errors import AnnotationError, SpecError
from data_pipelines.preprocessing import spec_from
from data_pipelines.preprocessing.preparation import resize_axes
from data_pipelines.preprocessing.resize import resize_image

EDGES = [(5, 7, 23, 16), (0, 0, 9, 4)]


def of(size: tuple[int, int], edges: list = EDGES, **fields: object) -> EdgeBoxes:
    return EdgeBoxes.of(edges, [0] * len(edges), ("cyst",), size, **fields)


def spec_of(fit: str):
    return spec_from({"kind": "radiograph", "rows": 48, "cols": 64, "fit": fit})


@pytest.mark.parametrize("size", [(60, 90), (200, 130), (20, 24)])
@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize("aspect", [1.0, 1.25])
def test_a_bright_rectangle_stays_in_its_box(size: tuple, fit: str, aspect: float) -> None:
    """The sum of the bright pixels is the area of the box, and their center is its center."""
    spec = spec_of(fit)
    for edges in EDGES:
        pixels = np.zeros(size, np.float32)
        x_min, y_min, x_max, y_max = edges
        pixels[y_min:y_max, x_min:x_max] = 1
        image = SimpleNamespace(pixels=pixels, aspect=aspect)
        prepared = resize_image(pixels, resize_axes(image, spec), spec.fill)
        boxes = prepare_boxes(of(size, [edges]), spec, aspect=aspect)
        (left, top, right, bottom) = boxes.edges[0]
        bright = prepared >= 0.5
        assert boxes.size == prepared.shape == (48, 64)
        assert bright.any(axis=0).sum() == pytest.approx(right - left, abs=1)
        assert bright.any(axis=1).sum() == pytest.approx(bottom - top, abs=1)
        rows, columns = np.nonzero(bright)
        assert columns.mean() + 0.5 == pytest.approx((left + right) / 2, abs=0.5)
        assert rows.mean() + 0.5 == pytest.approx((top + bottom) / 2, abs=0.5)


@pytest.mark.parametrize("size", [(60, 90), (200, 130), (33, 17)])
@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_boxes_come_back_to_the_original_pixels(size: tuple, fit: str) -> None:
    edges = [(1.5, 2, 16, 30), (0, 0, size[1], size[0])]
    prepared = prepare_boxes(of(size, edges), spec_of(fit), aspect=0.8)
    back = boxes_to_original(prepared.edges, size, spec_of(fit), aspect=0.8)
    np.testing.assert_allclose(back, edges, atol=1e-9)


def test_the_whole_image_is_the_letterbox() -> None:
    boxes = prepare_boxes(of((10, 40), [(0, 0, 40, 10)]), spec_of("pad"))
    assert boxes.edges.tolist() == [[0, 16, 64, 32]]
    stretched = prepare_boxes(of((10, 40), [(0, 0, 40, 10)]), spec_of("stretch"))
    assert stretched.edges.tolist() == [[0, 0, 64, 48]]


def test_scores_and_ignore_regions_stay_with_their_boxes() -> None:
    boxes = of((48, 64), scores=np.array([0.1, 0.2]), ignore=np.array([True, False]))
    prepared = prepare_boxes(boxes.only(np.array([False, True])), spec_of("pad"))
    assert (prepared.scores.tolist(), prepared.ignore.tolist()) == ([0.2], [False])
    assert prepared.edges.tolist() == [[0, 0, 9, 4]]


def test_an_image_without_objects_has_no_boxes() -> None:
    assert len(prepare_boxes(of((20, 20), []), spec_of("pad"))) == 0


def test_only_annotated_images_are_prepared_and_no_volumes() -> None:
    for state in ("rejected", "not_annotated"):
        with raises_code(AnnotationError, "not_annotated"):
            prepare_boxes(of((20, 20), [], state=state), spec_of("pad"))
    with raises_code(SpecError, "volume_boxes"):
        prepare_boxes(of((20, 20), []), spec_from("ctvol-32"))
