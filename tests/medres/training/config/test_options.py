"""Where settings come from, and what is refused before the first step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import rewrite
from helpers import raises_code
from typer.testing import CliRunner

import medres
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.spec import spec_from
from medres.backbones.variants import network_options, network_spec
from medres.cli.app import app
from medres.errors import TrainingError
from medres.training.config.options import (
    augment_spec,
    configuration,
    preprocessing,
    resolve_settings,
)

BASE = {"model": "resnet10", "preset": "xray-32", "width": 8, "batch_size": 8, "epochs": 1}


def test_python_overrides_the_file_and_the_file_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "recipe: modern\nepochs: 7\nlearning_rate: 0.01\nwindows: [lung, [40, 400]]\n"
    )
    options, chosen = resolve_settings(tmp_path / "a.yaml", {"epochs": 3, "seed": None})
    assert (chosen.name, chosen.epochs, chosen.learning_rate, chosen.ema) == (
        "modern",
        3,
        0.01,
        0.999,
    )
    assert options.windows == ["lung", (40.0, 400.0)]
    assert options.seed == 0
    (tmp_path / "a.json").write_text(json.dumps({"seed": 4, "uncertain": {"a": 0.7}}))
    options, chosen = resolve_settings(tmp_path / "a.json", {})
    assert (options.seed, chosen.uncertain) == (4, {"a": 0.7})


@pytest.mark.parametrize(
    ("text", "code", "value"),
    [
        ("epoch: 3", "unknown_setting", "'epochs'"),
        ("zzzz: 3", "unknown_setting", "learning_rate"),
        ("name: mine", "unknown_setting", "'name'"),
        ("precision: int4", "bad_setting", "precision"),
        ("epochs: many", "bad_setting", "epochs"),
        ("operating_points: {screening: sensitive}", "bad_setting", "'sensitive'"),
        ("a: [", "unreadable_config", "line"),
        ("- epochs", "unreadable_config", "a.yaml"),
        ("", "unreadable_config", "a.yaml"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, code: str, value: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with raises_code(TrainingError, code, value):
        resolve_settings(tmp_path / "a.yaml", {})


def test_the_shortcut_of_medicalnet_is_a_setting(tiny_work: Path) -> None:
    manifest = Manifest.load(tiny_work)

    def network(**more: object) -> dict:
        settings = {"model": "resnet18", "preset": "xray-32", "width": 4, "stem": "imagenet"} | more
        options, chosen = resolve_settings(None, settings)
        spec = preprocessing(options.preset, manifest)
        return configuration(options, chosen, spec)["model"]

    built = network_spec("resnet18", **network_options(network(shortcut="A")))
    assert (built.shortcut, built.channel_padding) == ("A", "end")
    assert "shortcut" not in network()
    assert network_spec("resnet18", **network_options(network(shortcut="C"))).shortcut == "C"
    for more in ({"shortcut": "D"}, {"shortcut": "A", "model": "densenet121"}):
        with raises_code(TrainingError, "bad_setting", "shortcut"):
            network(**more)


def changed(work: Path, to: Path, **columns: object) -> Path:
    shutil.copytree(work, to)
    table = Manifest.load(work).table
    rewrite(to, table.assign(**columns))
    return to


def test_a_finding_that_no_tuning_patient_has(tiny_work: Path, tmp_path: Path) -> None:
    table = Manifest.load(tiny_work).table
    values = np.where(table["split"] == "tune", 0.0, table["label:square"])
    work = changed(tiny_work, tmp_path / "work", **{"label:square": values})
    with raises_code(TrainingError, "one_class", "square", "tune", "--finding"):
        medres.train(work, **BASE, out=tmp_path / "run")


def test_no_label_in_train(tiny_work: Path, tmp_path: Path) -> None:
    table = Manifest.load(tiny_work).table
    values = np.where(table["split"] == "train", -1.0, table["label:square"])
    work = changed(tiny_work, tmp_path / "work", **{"label:square": values})
    with raises_code(TrainingError, "no_label", "square", "train"):
        medres.train(work, **BASE, out=tmp_path / "run")
    with raises_code(TrainingError, "one_class", "square", "train"):
        medres.train(work, **BASE, uncertain={"square": "one"}, out=tmp_path / "run")


def test_an_empty_tuning_split(tiny_work: Path, tmp_path: Path) -> None:
    split = Manifest.load(tiny_work).table["split"]
    work = changed(tiny_work, tmp_path / "work", split=split.where(split != "tune", "train"))
    with raises_code(TrainingError, "empty_split", "tune"):
        medres.train(work, **BASE, out=tmp_path / "run")


def test_one_class_and_labels_outside_the_classes(tiny_work: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(tiny_work, work)
    table = Manifest.load(work).table.drop(columns="label:square").assign(**{"class": "only"})
    rewrite(work, table, task="multiclass", findings=[], classes=["only"])
    with raises_code(TrainingError, "single_class", "only"):
        medres.train(work, **BASE, out=tmp_path / "run")
    rewrite(
        work,
        table.assign(**{"class": ["odd", *["only"] * (len(table) - 1)]}),
        task="multiclass",
        findings=[],
        classes=["only", "other"],
    )
    with raises_code(TrainingError, "unknown_class", "only, other"):
        medres.train(work, **BASE, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def run(*arguments: object):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_the_command_line_reaches_every_setting(tiny_work: Path, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "model: resnet10\npreset: xray-32\nwidth: 8\nepochs: 5\nbatch_size: 8\n"
    )
    done = run(
        tiny_work,
        "--config",
        tmp_path / "a.yaml",
        "--out",
        tmp_path / "run",
        "--epochs",
        1,
        "--set",
        "ema=0.5",
        "--set",
        "batch_size=4",
        "--set",
        "smoothing=0.1",
        "--uncertain",
        "square=0.7",
        "--operating-point",
        "screening=sensitivity:0.9",
        "--json",
    )
    assert done.exit_code == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    recipe = config["recipe"]
    assert (recipe["epochs"], recipe["ema"], recipe["smoothing"], recipe["batch_size"]) == (
        1,
        0.5,
        0.1,
        4,
    )
    assert recipe["uncertain"] == {"square": 0.7}
    assert config["after"]["operating_points"] == {"screening": "sensitivity:0.9"}
    assert config["model"]["width"] == 8
    assert "tune_auc_low" in json.loads(done.stdout)["history"][0]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "speed=3"], 1, "'speed'"),
        (["--set", "speed"], 2, "NAME=VALUE"),
        (["--set", "ema=["], 2, "YAML"),
        (["--uncertain", "perhaps"], 1, "uncertain"),
        (["--uncertain", "lump=one"], 1, "lump"),
        (["--operating-point", "sensitivity:0.9"], 2, "NAME=VALUE"),
        (["--operating-point", "a=sensitivity:9"], 1, "'sensitivity:9'"),
        (["--config", "absent.yaml"], 1, "absent.yaml"),
        (["--set", "scaling=imagenet"], 1, "--weights"),
        (["--set", "ordinal=[a, b]"], 1, "ordinal"),
    ],
)
def test_what_the_command_line_refuses(
    tiny_work: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = run(tiny_work, "--preset", "xray-32", "--out", tmp_path / "run", *arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("preset", "augment"),
    [
        ("xray-32", "chest_xray"),
        ("ct-32", "ct_slice"),
        ("ct25d-32", "ct_slice"),
        ("ctvol-16", "ct_volume"),
    ],
)
def test_augmentation_fits_what_the_preset_prepares(preset: str, augment: str) -> None:
    spec = spec_from(preset)
    assert spec.default_augmentation == augment
    assert augment_spec(resolve_settings(None, {"augment": augment})[1], spec).is_active
