from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import rewrite
from helpers import raises_code
from typer.testing import CliRunner

from data_pipelines.ingestion.manifest import Manifest
from medres.backbones import backbone, network_spec
from medres.cli.app import app
from medres.errors import TrainingError
from medres.training.config.options import resolve_settings
from medres.training.config.planner import (
    OUTPUTS_224,
    RULES,
    Fingerprint,
    fingerprint,
    plan,
    plan_for,
)

LARGE = Fingerprint(
    kind="radiograph",
    task="multilabel",
    images=80000,
    patients=30000,
    tune_patients=4000,
    findings=14,
    side=2048,
    spacing_mm=0.14,
    slices=1,
    rarest=0.002,
    uncertain=900,
    gpu=True,
    memory_gib=79.0,
)


def settings(**changes: object) -> dict:
    return plan_for(dataclasses.replace(LARGE, **changes)).settings


def test_a_large_cohort_on_a_gpu() -> None:
    assert settings() == {
        "preset": "xray-320",
        "model": "resnet50",
        "recipe": "modern",
        "class_weights": "balanced",
        "uncertain": {"*": "ignore"},
        "batch_size": 32,
        "epochs": 10,
    }


def test_a_small_one_without_a_gpu() -> None:
    made = settings(
        images=180,
        patients=90,
        gpu=False,
        memory_gib=16.0,
        rarest=0.4,
        uncertain=0,
        kind="ct",
        side=512,
    )
    assert made == {
        "preset": "ct-128",
        "model": "resnet18",
        "width": 32,
        "recipe": "small",
        "class_weights": "none",
        "batch_size": 16,
        "epochs": 100,
    }


def test_small_images_are_not_enlarged() -> None:
    assert settings(side=28)["preset"] == "xray-28"
    assert settings(side=8)["preset"] == "xray-16"


def test_little_memory_gives_smaller_batches_that_add_up_to_the_recipes() -> None:
    made = settings(memory_gib=6.0)
    assert made["batch_size"] * made["accumulate"] == 32
    assert made["batch_size"] < 8
    assert made["epochs"] == settings()["epochs"]


def test_few_images_give_eight_batches_an_epoch() -> None:
    made = settings(images=100, patients=100)
    assert made["batch_size"] == 8
    assert "accumulate" not in made


def test_every_setting_has_a_reason_with_its_numbers_and_the_table_covers_all() -> None:
    made = plan_for(LARGE)
    assert made.reasons.keys() == made.settings.keys()
    assert "80000" in made.reasons["preset"]
    assert "0.2%" in made.reasons["class_weights"]
    assert all("{" not in reason for reason in made.reasons.values())
    assert {rule.setting for rule in RULES} >= {"preset", "model", "recipe", "batch_size", "epochs"}
    assert all(f"{name} " in str(made) for name in made.settings)


def test_the_file_is_what_train_takes(tmp_path: Path) -> None:
    for seen in (
        LARGE,
        dataclasses.replace(LARGE, images=150, patients=80, memory_gib=2.0, side=64, gpu=False),
    ):
        made = plan_for(seen)
        (tmp_path / "plan.yaml").write_text(made.to_yaml())
        options, recipe = resolve_settings(tmp_path / "plan.yaml", {"epochs": 3})
        assert (options.preset, options.model, recipe.name) == tuple(
            made.settings[k] for k in ("preset", "model", "recipe")
        )
        assert (recipe.batch_size, recipe.epochs) == (made.settings["batch_size"], 3)


def test_the_fingerprint_of_a_work_folder(tiny_work: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_work, tmp_path / "work")
    table = Manifest.load(tiny_work).table
    values = table["label:square"].to_numpy(copy=True)
    train = np.flatnonzero(table["split"] == "train")
    values[train] = 0
    values[train[:3]] = 1
    values[train[3:5]] = -1
    rewrite(tmp_path / "work", table.assign(**{"label:square": values}))
    seen = fingerprint(Manifest.load(tmp_path / "work"))
    assert (seen.kind, seen.task, seen.images, seen.side, seen.slices) == (
        "radiograph",
        "binary",
        len(train),
        40,
        2,
    )
    assert seen.patients == table.loc[table["split"] == "train", "patient"].nunique()
    assert seen.rarest == pytest.approx(3 / (len(train) - 2))
    assert seen.uncertain == 2
    assert seen.memory_gib > 0.1


def test_two_kinds_and_no_labels_are_refused(tiny_work: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_work, tmp_path / "work")
    table = Manifest.load(tiny_work).table
    rewrite(tmp_path / "work", table.assign(kind=["ct", *["radiograph"] * (len(table) - 1)]))
    with raises_code(TrainingError, "several_kinds", "--kind"):
        plan(Manifest.load(tmp_path / "work"))
    assert plan(Manifest.load(tmp_path / "work"), kind="radiograph").settings["preset"] == "xray-40"
    rewrite(tmp_path / "work", table, task="none")
    with raises_code(TrainingError, "no_labels"):
        plan(Manifest.load(tmp_path / "work"))


def test_the_command(tiny_work: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["plan", str(tiny_work), "--out", str(tmp_path / "plan.yaml"), "--json"]
    )
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["settings"]["preset"] == "xray-40"
    assert (
        resolve_settings(tmp_path / "plan.yaml", {})[1].name
        == told["settings"]["recipe"]
        == "small"
    )
    again = CliRunner().invoke(app, ["plan", str(tiny_work), "--out", str(tmp_path / "plan.yaml")])
    assert again.exit_code == 1
    assert "exists" in again.stderr


def test_a_densenet_that_was_requested() -> None:
    """A smaller batch than for resnet50, whose outputs take less memory; no fields of ResNets."""
    seen = dataclasses.replace(LARGE, memory_gib=48.0)
    assert plan_for(seen).settings["batch_size"] == 32
    dense = plan_for(seen, "densenet201")
    assert (dense.settings["batch_size"], dense.settings["accumulate"]) == (16, 2)
    assert (dense.settings["model"], dense.settings["stochastic_depth"]) == ("densenet201", 0.0)
    assert "width" not in plan_for(dataclasses.replace(LARGE, patients=50), "densenet121").settings
    assert set(dense.settings) == set(dense.reasons)
    with raises_code(TrainingError, "unknown_model", "resnet7", "densenet121"):
        plan_for(LARGE, "resnet7")


@pytest.mark.parametrize("name", ["resnet10", "densenet121"])
def test_the_memory_is_that_of_the_built_network(name: str) -> None:
    model = backbone(network_spec(name), (224, 224, 1))
    numbers = sum(math.prod(layer.output.shape[1:]) for layer in model.layers)
    assert numbers * 4 / 2**20 == pytest.approx(OUTPUTS_224[name], abs=0.5)
