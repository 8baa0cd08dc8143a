"""One sample of a network that sees patches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medres.artefact.masks import SegmentationFields, class_colors
from medres.inference.masks.predicting import label_map

FIELDS = SegmentationFields(patch=[4, 4], colors=class_colors(2), postprocess=[])
CARD: Any = SimpleNamespace(segmentation=FIELDS, sides=(4, 4))


def test_the_distance_of_an_image_is_the_mean_over_its_windows() -> None:
    image = np.zeros((4, 8, 1), np.float32)
    image[:, 6:] = 1.0

    def scored(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate([0.5 - x, x - 0.5], axis=-1), x.mean(axis=(1, 2, 3))

    labels, distance = label_map(image, CARD, scored)
    assert labels.tolist() == image[..., 0].astype(int).tolist()
    # windows begin at 0, 2 and 4: 0, 0 and half of the last one is bright
    assert distance == pytest.approx((0.0 + 0.0 + 0.5) / 3)
    assert label_map(image, CARD, lambda x: (scored(x)[0], None))[1] is None


@pytest.mark.parametrize("sides", [(4, 8), (4, 4)])  # the whole image, and windows
def test_flips_are_averaged_and_the_distance_is_that_of_the_upright_image(
    sides: tuple[int, int],
) -> None:
    image = np.zeros((4, 8, 1), np.float32)
    image[:, 5:] = 1.0
    fields = FIELDS.model_copy(update={"flips": [[1]]})
    card: Any = SimpleNamespace(segmentation=fields, sides=sides)

    def scored(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The class is that of the image, doubted in the first columns of what the network sees;
        the distance is the brightness of its last column.
        """
        p = np.where(x > 0.5, 0.9, 0.1)
        p[:, :, :2] = 1 - p[:, :, :2] ** 0.5  # bright: 0.05, dark: 0.68, both wrong
        return np.concatenate([1 - p, p], axis=-1), x[:, 0, -1, 0]

    labels, distance = label_map(image, card, scored)
    # first two columns: (0.68 + 0.1) / 2 of bright; last ones: (0.9 + 0.05) / 2, below one half
    expected = np.zeros((4, 8), int)
    expected[:, 5:6] = 1
    if sides == (4, 8):
        np.testing.assert_array_equal(labels, expected)
        assert distance == 1.0
    else:  # windows begin at 0, 2 and 4
        assert distance == pytest.approx((0.0 + 1.0 + 1.0) / 3)
    plain, _ = label_map(image, SimpleNamespace(segmentation=FIELDS, sides=sides), scored)  # type: ignore[arg-type]
    assert (plain != labels).any()
