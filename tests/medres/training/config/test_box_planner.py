from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers import raises_code

from data_pipelines.errors import ManifestError
from medres.training.config.box_planner import BoxFingerprint, box_fingerprint, plan_boxes_for
from medres.training.config.options import resolve_settings

FACTS = BoxFingerprint(
    kind="radiograph",
    images=200,
    patients=150,
    tune_patients=40,
    classes=("nodule", "lung"),
    side=2000,
    smallest="nodule",
    share=0.05,
    rarest="nodule",
    count=120,
    gpu=True,
    memory_gib=40.0,
)


@pytest.mark.parametrize(
    ("changes", "preset", "levels"),
    [
        ({}, "xray-320", [2, 3, 4, 5]),  # 16 px of .05 are 320
        ({"share": 0.5}, "xray-256", [3, 4, 5, 6]),
        ({"share": 0.002}, "xray-1024", [2, 3, 4, 5]),
        ({"share": 0.05, "gpu": False}, "xray-256", [2, 3, 4, 5]),
        ({"share": 0.05, "side": 290}, "xray-320", [2, 3, 4, 5]),
        ({"share": 0.01, "side": 290}, "xray-320", [2, 3, 4, 5]),  # images are not enlarged
    ],
)
def test_size_and_levels_follow_the_smallest_objects(
    changes: dict, preset: str, levels: list[int]
) -> None:
    proposal = plan_boxes_for(replace(FACTS, **changes))
    assert (proposal.settings["preset"], proposal.settings["levels"]) == (preset, levels)
    assert {*proposal.settings} == {*proposal.reasons}
    resolve_settings(proposal.settings, {})
    assert 10 <= proposal.settings["epochs"] <= 100


def test_a_class_with_few_boxes_is_named() -> None:
    reason = plan_boxes_for(replace(FACTS, count=7)).reasons["task"]
    assert "nodule has only 7 boxes" in reason


def test_the_fingerprint_of_a_work_folder(box_work: Path, mask_work: Path) -> None:
    facts = box_fingerprint(box_work)
    assert facts.classes == ("bright", "dark")
    assert facts.share == pytest.approx(120**0.5 / 40)  # boxes of 10 x 12 in images of 40 x 40
    assert facts.side == 40
    assert 5 < facts.images < 16
    with raises_code(ManifestError, "no_boxes"):
        box_fingerprint(mask_work)
