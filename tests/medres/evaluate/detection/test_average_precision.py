"""Average precision of boxes: equal to pycocotools, to a slow obvious version, and to numbers
worked by hand.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from made_boxes import made_boxes, one_class, reference_of

from medres.evaluate.detection.average_precision import SIZES, match_precision
from medres.evaluate.detection.coco import read_predictions, read_reference

ALL = np.linspace(0.5, 0.95, 10)


def ours(reference: Any, predictions: Any, size: str = "all", weight: Any = None) -> np.ndarray:
    known = read_reference(reference)
    boxes = read_predictions(predictions, known)
    return np.array(
        [
            match_precision(
                boxes.of_class(c), known.boxes.of_class(c), len(known.images), size=size
            ).average_precisions(weight)
            for c in range(len(known.classes))
        ]
    )


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools(seed: int) -> None:
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    reference, predictions = made_boxes(seed, ties=seed % 2 == 1)
    np.random.default_rng(seed).shuffle(reference["images"])  # their order decides nothing
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = reference
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(predictions), "bbox")
        run.evaluate()
        run.accumulate()
    for i, size in enumerate(SIZES):
        theirs = run.eval["precision"][:, :, :, i, 2].mean(axis=1).T
        theirs = np.where(theirs == -1, np.nan, theirs)
        np.testing.assert_allclose(ours(reference, predictions, size), theirs, atol=1e-12)


def test_by_hand() -> None:
    """Two references; the first prediction is true, the second false, the third true at .5 only:
    recall .5 at precision 1, recall 1 at precision 2/3. Of the 101 values of recall, 51 are at most
    .5.
    """
    reference = reference_of(one_class([[0, 0, 10, 10], [50, 50, 10, 10]]))
    boxes = [[0, 0, 10, 10], [200, 200, 10, 10], [50, 50, 10, 6]]
    predictions = [
        entry | {"score": score}
        for entry, score in zip(one_class(boxes), [0.9, 0.8, 0.7], strict=True)
    ]
    found = ours(reference, predictions)[0]
    assert found[0] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert found[5] == pytest.approx(51 / 101)


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_copies_of_images(seed: int) -> None:
    """An image that counts k times gives what k copies of it give."""
    reference, predictions = made_boxes(seed, images=10, classes=1)
    weight = np.random.default_rng(seed).integers(0, 4, 10)
    copied: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": reference["categories"],
    }
    scores = []
    for image, copies in enumerate(weight):
        for copy in range(copies):
            number = 100 * (image + 1) + copy
            copied["images"].append({"id": number})
            copied["annotations"] += [
                entry | {"image_id": number}
                for entry in reference["annotations"]
                if entry["image_id"] == image + 5
            ]
            scores += [
                entry | {"image_id": number}
                for entry in predictions
                if entry["image_id"] == image + 5
            ]
    weighted = ours(reference, predictions, weight=weight.astype(float))
    np.testing.assert_allclose(weighted, ours(copied, scores), atol=1e-12)


def test_only_a_hundred_predictions_of_an_image_count() -> None:
    reference = reference_of(one_class([[0, 0, 10, 10]]))
    false = [[20.0 + i, 20, 5, 5] for i in range(100)]
    predictions = [entry | {"score": 0.9} for entry in one_class(false)]
    predictions += [entry | {"score": 0.1} for entry in one_class([[0, 0, 10, 10]])]
    assert ours(reference, predictions)[0, 0] == 0.0


def test_no_reference_is_not_a_number() -> None:
    assert np.isnan(ours(reference_of([]), [])).all()


def test_an_overlap_and_an_area_exactly_at_the_limit_count() -> None:
    """As COCO does: an overlap of .5 is a hit at .5, and 32 x 32 is small and medium."""
    reference = reference_of(one_class([[0, 0, 32, 32]]))
    half = [one_class([[0, 0, 32, 16]])[0] | {"score": 0.9}]
    assert ours(reference, half)[0].tolist() == [1.0] + [0.0] * 9
    whole = [one_class([[0, 0, 32, 32]])[0] | {"score": 0.9}]
    for size, value in (("small", 1.0), ("medium", 1.0), ("large", np.nan)):
        np.testing.assert_equal(ours(reference, whole, size)[0], np.full(10, value))


def test_the_curve_of_one_reference_ends_at_a_recall_of_one() -> None:
    known = read_reference(reference_of(one_class([[0, 0, 10, 10]])))
    boxes = read_predictions([one_class([[0, 0, 10, 10]])[0] | {"score": 0.9}], known)
    recall, precision = match_precision(boxes, known.boxes, 1).curve()
    assert (recall.tolist(), precision.tolist()) == ([1.0], [1.0])
