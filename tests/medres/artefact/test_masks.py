from __future__ import annotations

import numpy as np
import pytest

from medres.artefact.masks import ComponentRule, SegmentationFields, class_colors, postprocessed


def test_components_of_each_class_follow_their_own_rule() -> None:
    labels = np.array([[1, 0, 1, 1, 0, 2, 0, 2], [0, 0, 0, 0, 0, 0, 0, 2]], np.uint8)
    rules = [ComponentRule(name="a", min_voxels=2), ComponentRule(name="b", largest=True)]
    kept = postprocessed(labels, rules)
    assert kept.tolist() == [[0, 0, 1, 1, 0, 0, 0, 2], [0, 0, 0, 0, 0, 0, 0, 2]]
    assert postprocessed(labels, [ComponentRule(name="a"), ComponentRule(name="b")]) is labels


def test_diagonal_neighbors_are_connected() -> None:
    volume = np.zeros((3, 3, 3), np.uint8)
    volume[0, 0, 0] = volume[1, 1, 1] = volume[2, 2, 2] = 1
    np.testing.assert_array_equal(
        postprocessed(volume, [ComponentRule(name="a", min_voxels=3)]), volume
    )


def test_rules_and_colors_are_those_of_the_names() -> None:
    names = ["background", "a", "b"]
    rules = [ComponentRule(name="a"), ComponentRule(name="b")]
    fields = SegmentationFields(colors=class_colors(3), postprocess=rules)
    fields.check_names(names)
    for wrong in (["background", "a"], ["background", "b", "a"]):
        with pytest.raises(ValueError, match="segmentation"):
            fields.check_names(wrong)
