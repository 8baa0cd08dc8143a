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
