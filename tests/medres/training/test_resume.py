"""A run that was killed, at any batch, ends bit-equal to one that was not."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import rewrite
from helpers import raises_code

import medres
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.spec import spec_from
from medres.errors import TrainingError
from medres.progress import ProgressReporter
from medres.training import checkpoint
from medres.training.config.recipe import Recipe
from medres.training.data import load_data
from medres.training.loop import Loop, should_stop
from medres.training.setup import data_hash
from medres.training.targets import training_targets

# Everything that has a state: random layers, moving averages, accumulated gradients, stages that
# thaw, early stopping.
OPTIONS = {
    "model": "resnet10",
    "preset": "xray-32",
    "width": 8,
    "batch_size": 4,
    "seed": 9,
    "epochs": 3,
    "ema": 0.9,
    "stochastic_depth": 0.3,
    "mixup": 0.3,
    "accumulate": 3,
    "clip": 1.0,
    "patience": 5,
    "checkpoint_steps": 2,
}


def contents(run: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Everything in the last and the best checkpoint and the served model; the card."""
    found = {}
    for path in (checkpoint.latest(run / "checkpoints"), run / "checkpoints" / "best.npz"):
        found |= {f"{path.name}/{name}": array for name, array in checkpoint.read(path)[0].items()}
    artefact = medres.load(run / "model.keras").artefact
    found |= {
        f"{layer.name}/{w.name}": w.numpy()
        for layer in artefact.model.layers
        for w in layer.weights
    }
    return found, artefact.card.model_dump(exclude={"members"})


def history(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "history.csv").drop(
        columns=["seconds", "images_per_second", "data_wait"]
    )


def assert_equal(one: Path, other: Path) -> None:
    (a, card), (b, other_card) = contents(one), contents(other)
    assert a.keys() == b.keys()
    assert [name for name in a if not (a[name] == b[name]).all()] == []
    pd.testing.assert_frame_equal(history(one), history(other), check_exact=True)
    assert card == other_card


@pytest.fixture(scope="module")
def whole(tiny_work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole") / "run"
    medres.train(tiny_work, **OPTIONS, out=out)
    return out


@pytest.mark.parametrize(
    ("epoch", "batch"),
    [
        pytest.param(0, 1, marks=pytest.mark.long),
        (1, 5),
        pytest.param(2, 9, marks=pytest.mark.long),
    ],
)
def test_interrupted_at_a_batch(
    tiny_work: Path,
    tmp_path: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    epoch: int,
    batch: int,
) -> None:
    real = Loop._due

    def dies(loop: Loop, step: int, saved: float) -> bool:
        if (loop.state["epoch"], step) == (epoch, batch):
            raise KeyboardInterrupt
        return real(loop, step, saved)

    monkeypatch.setattr(Loop, "_due", dies)
    with pytest.raises(KeyboardInterrupt):
        medres.train(tiny_work, **OPTIONS, out=tmp_path / "run")
    monkeypatch.undo()
    newest = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert newest is None if (epoch, batch) == (0, 1) else newest.name == checkpoint.path_of(
        tmp_path, epoch, batch - batch % 2
    ).name  # fmt: skip
    medres.train(tiny_work, **OPTIONS, out=tmp_path / "run")
    assert_equal(whole, tmp_path / "run")


SCRIPT = """
import sys, medres
from test_resume import OPTIONS
from medres.progress import ProgressReporter
medres.train(sys.argv[1], **OPTIONS, out=sys.argv[2], progress=ProgressReporter())
"""


@pytest.mark.long  # by default a run that stops in this process goes on bit-equal (above)
def test_killed_by_the_system_at_a_random_moment(
    tiny_work: Path, tmp_path: Path, whole: Path
) -> None:
    """A process of its own gets SIGKILL while it trains; the same command then goes on."""
    out, folder = tmp_path / "run", Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), str(folder.parents[1]), *sys.path])
    }
    command = [sys.executable, "-c", SCRIPT, str(tiny_work), str(out)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wanted = random.randrange(2, 10)
    while process.poll() is None:
        newest = checkpoint.latest(out / "checkpoints")
        if newest is not None and int(newest.stem[-7:]) >= wanted:
            break
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (out / "model.keras").exists(), "it ended before it was killed"
    medres.train(tiny_work, **OPTIONS, out=out)
    assert_equal(whole, out)


@pytest.mark.long
def test_a_full_disk_ends_the_run_and_leaves_the_last_good_checkpoint(
    tiny_work: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = checkpoint.write_atomic, []

    def full(path: Path, data: bytes) -> None:
        if len(written) == 7:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        real(path, data)

    monkeypatch.setattr(checkpoint, "write_atomic", full)
    with pytest.raises(OSError, match="No space"):
        medres.train(tiny_work, **OPTIONS, out=tmp_path / "run")
    monkeypatch.undo()
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") == written[-1]
    medres.train(tiny_work, **OPTIONS, out=tmp_path / "run")
    assert_equal(whole, tmp_path / "run")


def test_checkpoints_of_other_data_are_refused(
    tiny_work: Path, tmp_path: Path, whole: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.copytree(tiny_work, tmp_path / "work")
    table = Manifest.load(tiny_work).table
    table.loc[table.index[:2], "label:square"] = 1 - table.loc[table.index[:2], "label:square"]
    rewrite(tmp_path / "work", table)
    with raises_code(TrainingError, "other_run", "data_sha256"):
        medres.train(tmp_path / "work", **OPTIONS, out=out)
    config = json.loads((out / "config.json").read_text())
    data = load_data(
        tmp_path / "work",
        spec_from("xray-32"),
        Manifest.load(tmp_path / "work"),
        ProgressReporter(),
    )
    recipe = Recipe.model_validate(config["recipe"])
    training = training_targets(data.targets, data.table(), data.rows("train"), recipe)
    config["data_sha256"] = data_hash(data, training)
    (out / "config.json").write_text(
        json.dumps(config)
    )  # as if someone had moved the checkpoints there
    with raises_code(TrainingError, "other_run", "checkpoint"):
        medres.train(tmp_path / "work", **OPTIONS, out=out)


def test_early_stopping_is_a_function_of_the_history() -> None:
    def ended(losses: list[float], patience: int) -> bool:
        return should_stop([{"tune_loss": loss} for loss in losses], patience)

    assert not ended([], 2)
    assert not ended([3, 2, 1], 2)
    assert not ended([1, 2], 2)
    assert ended([1, 2, 3], 2)
    assert not ended([1, 2, 0.5], 2)
    assert not ended([1, 2, 3, 4, 5], 0)


@pytest.mark.long
def test_patience_ends_a_run(tiny_work: Path, tmp_path: Path) -> None:
    run = medres.train(
        tiny_work,
        **OPTIONS | {"epochs": 30, "patience": 1, "learning_rate": 3e-2, "ema": 0.0},
        out=tmp_path / "run",
    )
    losses = run.history["tune_loss"].tolist()
    assert len(losses) < 30
    assert losses[-1] > losses[-2] == min(losses)
    assert run.best_epoch == len(losses) - 1


@pytest.mark.parametrize("part", ["image", pytest.param("label", marks=pytest.mark.long)])
def test_a_value_that_is_not_finite_names_its_batch_and_saves_nothing_bad(
    tiny_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    import tensorflow as tf

    from medres.training import loop

    real = loop.train_batches

    def spoiled(*arguments, epoch: int, start: int, **options):
        def spoil(number, batch):
            inputs, label, weight = batch
            bad = tf.where((number == 4) & (epoch == 1), float("nan"), 0.0)
            if part == "image":
                return inputs | {"image": inputs["image"] + bad}, label, weight
            return inputs, label + bad, weight

        return real(*arguments, epoch=epoch, start=start, **options).enumerate(start).map(spoil)

    monkeypatch.setattr(loop, "train_batches", spoiled)
    with raises_code(
        TrainingError, "not_finite", "epoch 2, batch 5", f"{part}s", "cache rows"
    ) as error:
        medres.train(tiny_work, **OPTIONS, out=tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    assert checkpoint.read(checkpoint.latest(folder))[1]["step"] <= 4
    for path in folder.glob("*.npz"):
        assert all(np.isfinite(array).all() for array in checkpoint.read(path)[0].values())
    assert not (tmp_path / "run" / "model.keras").exists()
    images = Manifest.load(tiny_work).table["image"]
    assert sum(name[:12] in str(error.value) for name in images) == 4
