from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import raises_code

from data_pipelines.ingestion import Manifest
from medres.errors import TrainingError
from medres.training import hardware
from medres.training.config.recipe import Recipe, recipe
from medres.training.hardware import BF16, ComputeSettings, check_devices, compute, largest_batch

LONG = recipe(epochs=100)


def steps_of(seconds: dict[str, float], tried: list[str]):
    """Steps that return how long they would take."""

    def make(policy: str, chosen: Recipe):
        tried.append(policy)
        return lambda: seconds[policy]

    return make


@pytest.mark.parametrize(("fast", "want"), [(0.04, BF16), (0.045, "float32")])
def test_the_faster_policy_is_chosen_and_said(
    monkeypatch: pytest.MonkeyPatch, fast: float, want: str
) -> None:
    monkeypatch.setattr(hardware, "has_bfloat16", lambda: True)
    monkeypatch.setattr(hardware, "_seconds", lambda step: step())
    tried: list[str] = []
    lines: list[str] = []
    steps = steps_of({"float32": 0.05, BF16: fast}, tried)
    settings = compute("auto", LONG, 100, steps, lines.append)
    assert settings["precision"] == want
    assert lines == [f"{want}: {settings['why']}"]
    assert "times as fast as in float32" in settings["why"]
    assert tried == ["float32", BF16]


def test_nothing_is_tried_where_it_cannot_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    make = steps_of({}, tried)
    monkeypatch.setattr(hardware, "has_bfloat16", lambda: True)
    assert compute("auto", recipe(epochs=1), 100, make)["precision"] == "float32"
    assert compute(BF16, LONG, 100, make) == {
        "precision": BF16,
        "why": "requested",
        "jit": False,
        "devices": 1,
        "batch_size": 32,
        "accumulate": 1,
    }
    monkeypatch.setattr(hardware, "has_bfloat16", lambda: False)
    assert compute("auto", LONG, 100, make)["precision"] == "float32"
    assert tried == []


def test_the_batch_that_fits_keeps_the_images_of_an_update() -> None:
    tried: list[int] = []

    def train_one(chosen: Recipe) -> None:
        tried.append(chosen.batch_size)
        if chosen.batch_size > 10:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    largest = largest_batch(recipe(batch_size=64, accumulate=2), train_one)
    assert (largest.batch_size, largest.accumulate, tried) == (8, 16, [64, 32, 16, 8])
    with raises_code(TrainingError, "out_of_memory"):
        largest_batch(
            recipe(), lambda chosen: train_one(chosen.model_copy(update={"batch_size": 99}))
        )


TWO = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import medres
from medres.backbones import resnet
from medres.progress import ProgressReporter
from medres.training import checkpoint, hardware, setup, train_step
work, folder, epochs = sys.argv[1:]
hardware.has_bfloat16, hardware.MIN_BATCHES, hardware.MIN_SPEEDUP = lambda: True, 0, 1e9
options = dict(
    preset="xray-32", batch_size=8, epochs=int(epochs), seed=1, ema=0.9, clip=0.5,
    optimizer="sgd", learning_rate=1e-4, stochastic_depth=0.0,
)
step = train_step.Trainer._replica_step
for name, names in (("one", ["CPU:0"]), ("two", ["CPU:0", "CPU:1"])):
    def recorded(self, batch, number, name=name):
        tf.print(tf.shape(batch[0]["image"])[0], output_stream=f"file://{folder}/{name}.txt")
        step(self, batch, number)
    train_step.Trainer._replica_step = recorded
    hardware.devices = setup.devices = lambda: names
    tf.keras.utils.set_random_seed(1)
    model = resnet(10, (32, 32, 1), norm="group", width=8)
    run = medres.train(
        work, model=model, **options, out=f"{folder}/{name}", progress=ProgressReporter()
    )
    weights, _ = checkpoint.read(run.out / "checkpoints" / checkpoint.BEST)
    arrays = {key.replace("/", "-"): value for key, value in weights.items()}
    np.savez(f"{folder}/{name}.npz", **arrays)
    print(run.history[["loss", "grad_head", "tune_loss"]].to_json(orient="values"))
"""


@pytest.mark.timeout(1800)
@pytest.mark.long  # two training runs in a process of their own, which needs two virtual CPUs
def test_two_devices_train_as_one(tiny_work: Path, tmp_path: Path) -> None:
    """After at most ten small updates with group norm: the same losses and weights but for
    rounding. Each device gets half of a batch, in the benchmark of bfloat16 too.
    """
    n_train = int((Manifest.load(tiny_work).table["split"] == "train").sum())
    epochs = max(1, 10 // (n_train // 8))
    done = subprocess.run(
        [sys.executable, "-c", TWO, str(tiny_work), str(tmp_path), str(epochs)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (np.array(json.loads(line)) for line in done.stdout.splitlines())
    assert two == pytest.approx(one, rel=1e-3)
    first, second = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert {*first} == {*second}
    assert max(np.abs(first[name] - second[name]).max() for name in first) < 1e-5
    shares = [set((tmp_path / f"{name}.txt").read_text().split()) for name in ("one", "two")]
    assert shares == [{"8"}, {"4"}]
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    assert config["compute"]["devices"] == 2


ACCUMULATED = """
import json
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from medres.models.classification import classifier
from medres.training.config.recipe import recipe
from medres.training.losses import Loss
from medres.training.network import named_variables
from medres.training.optimizers import optimizer
from medres.training.train_step import Trainer
rng = np.random.default_rng(0)
images = rng.random((3, 8, 12, 12, 1)).astype("f4")
labels = rng.integers(0, 2, (3, 8, 1)).astype("f4")

def trained(strategy, accumulate):
    settings = dict(optimizer="sgd", clip=0.5, learning_rate=1e-2, warmup=0, ema=0.5)
    chosen = recipe(batch_size=8, accumulate=accumulate, **settings)
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = classifier("resnet8", (12, 12, 1), ["a"], stem="cifar", width=4)
        built = optimizer(chosen, 3, model.trainable_variables)
        augment = lambda image, key, training: image
        trainer = Trainer(model, augment, Loss("binary", 0.0, 0.0, ()), built, chosen, jit=False)
    for epoch in range(2):
        trainer.begin_epoch(epoch)
        for number in range(3):
            def batches(context):
                inputs = {"image": images[number], "key": np.zeros((8, 2), "i4")}
                whole = tf.data.Dataset.from_tensor_slices(
                    (inputs, labels[number], np.ones((8, 1), "f4"))
                )
                return whole.batch(8 if context is None else 8 // context.num_replicas_in_sync)
            for batch in trainer.distribute(batches):
                trainer.step(batch, number)
    return {name: v.numpy() for name, v in named_variables(model).items()}

one = tf.distribute.get_strategy()
first, second, other = (
    trained(strategy, accumulate)
    for strategy, accumulate in (
        (one, 2), (tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), 2), (one, 1)
    )
)
print(json.dumps([
    max(float(abs(first[name] - arrays[name]).max()) for name in first)
    for arrays in (second, other)
]))
"""


@pytest.mark.timeout(900)
@pytest.mark.long  # a process of its own, which needs two virtual CPUs
def test_two_devices_accumulate_gradients_as_one() -> None:
    """With default batch normalization, over epochs of an odd number of batches."""
    done = subprocess.run(
        [sys.executable, "-c", ACCUMULATED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    difference, without = json.loads(done.stdout.splitlines()[-1])
    assert difference < 1e-6
    assert without > 1e-3


def test_devices_that_cannot_share_a_batch_or_differ_from_before() -> None:
    compute_settings: ComputeSettings = {
        "precision": "float32",
        "why": "requested",
        "jit": False,
        "devices": 2,
        "batch_size": 32,
        "accumulate": 1,
    }
    check_devices(2, compute_settings, recipe())
    with raises_code(TrainingError, "other_devices", "2 devices", "1"):
        check_devices(1, compute_settings, recipe())
    with raises_code(TrainingError, "indivisible_batch", "32"):
        check_devices(3, None, recipe())
    check_devices(2, None, recipe(accumulate=2))
