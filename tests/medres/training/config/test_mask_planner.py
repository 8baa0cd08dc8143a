"""The proposal for a segmenter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from helpers import medres, raises_code

from data_pipelines.preprocessing.spec import spec_from
from medres.errors import TrainingError
from medres.training.config.mask_planner import (
    MaskFingerprint,
    mask_fingerprint,
    plan_masks_for,
    target_spacing,
)
from medres.training.config.options import resolve_settings

SMALL = MaskFingerprint(
    kind="mr",
    images=140,
    patients=140,
    tune_patients=30,
    shapes=((35, 50, 35), (47, 59, 41), (34, 49, 36)),
    spacings=((1.0, 1.0, 1.0),) * 3,
    classes=("anterior", "posterior"),
    rarest=0.02,
    gpu=False,
    memory_gib=16.0,
)
ABDOMEN = replace(
    SMALL,
    kind="ct",
    shapes=((90, 512, 512), (110, 512, 512), (100, 512, 512)),
    spacings=((5.0, 0.8, 0.8), (5.0, 0.7, 0.7), (3.0, 0.9, 0.9)),
    gpu=True,
)


def test_small_volumes_are_learned_whole() -> None:
    made = plan_masks_for(SMALL)
    assert made.settings["preset"] == {
        "kind": "mr",
        "form": "volume",
        "slices": 48,
        "rows": 64,
        "cols": 48,
        "spacing_mm": [1.0, 1.0, 1.0],
    }
    assert "patch" not in made.settings
    assert (made.settings["batch_size"], made.settings["model"]) == (2, "resnet10")
    assert made.reasons.keys() == made.settings.keys()


def test_large_volumes_are_learned_in_patches_at_a_finer_step() -> None:
    spacing, why = target_spacing(ABDOMEN)
    assert spacing == (3.4, 0.8, 0.8)  # the 10th percentile of 5, 5 and 3; medians
    assert "10th percentile" in why
    made = plan_masks_for(ABDOMEN)
    patch, preset = made.settings["patch"], made.settings["preset"]
    assert all(side % 8 == 0 for side in patch)
    assert all(p <= preset[key] for p, key in zip(patch, ("slices", "rows", "cols"), strict=True))
    batch = made.settings["batch_size"] * patch[0] * patch[1] * patch[2]
    assert batch * 2048 <= 8 * 2**30
    assert made.settings["width"] == 32


def test_isotropic_volumes_keep_the_median_step() -> None:
    same = replace(SMALL, spacings=((2.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 1.0, 1.0)))
    assert target_spacing(same)[0] == (2.0, 1.0, 1.0)


def test_few_slices_and_single_images_are_learned_in_2d() -> None:
    few = replace(SMALL, kind="ct", shapes=((5, 512, 512),) * 3)
    assert plan_masks_for(few).settings["preset"] == "ct-256"
    assert "5 slices" in plan_masks_for(few).reasons["preset"]
    films = replace(SMALL, kind="radiograph", shapes=((40, 44),) * 3, spacings=())
    assert plan_masks_for(films).settings["preset"] == "xray-48"


def test_the_file_is_what_train_takes(tmp_path: Path) -> None:
    for facts in (SMALL, ABDOMEN):
        (tmp_path / "plan.yaml").write_text(plan_masks_for(facts).to_yaml())
        options, recipe = resolve_settings(tmp_path / "plan.yaml", {})
        assert options.task == "segmentation"
        assert isinstance(options.preset, dict)
        assert spec_from(options.preset).layout == "volume"
        assert recipe.batch_size >= 2


def test_the_command_on_a_work_folder_with_masks(
    mask_work: Path, tiny_work: Path, tmp_path: Path
) -> None:
    out = tmp_path / "plan.yaml"
    done = medres("plan", mask_work, "--json", "--out", out)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["settings"]["task"] == "segmentation"
    assert found["fingerprint"]["classes"] == ["bright", "dark"]
    assert found["settings"]["preset"] == "xray-40"
    with raises_code(TrainingError, "no_masks"):
        mask_fingerprint(tiny_work)
