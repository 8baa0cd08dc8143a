"""Measure images per second over whole epochs: Model.fit on medres.data and on arrays, the loop of
medres.train, and a PyTorch loop.

    python benchmarks/throughput.py WORK OUT [--torch-python PYTHON] [--preset xray-128]
        [--batch-size 32] [--turns 5] [--stem imagenet] [--width 64]

ResNet-18, AdamW, float32, with the same images, batches per step and steps. The parts take turns,
one epoch each, so that other work on the machine affects all of them: after each epoch of
medres.train, a callback runs one epoch of the others. The first epoch (tracing) is left out.

Without augmentation: Model.fit on arrays in memory and on medres.data, the latter also with
`medres.backbones.fused_training_copy`, the network that medres.train uses. With augmentation (the
default of the kind): Model.fit on medres.data with that network. Keras and medres compile without
XLA on a CPU and with XLA on a GPU. The tuning split is not counted: fit evaluates none here.

With --torch-python: medres.train in float32 and bfloat16 against PyTorch, with transforms of the
same kind from MONAI and from torchvision; see throughput_peer.py.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import medres
from data_pipelines.cache.store import ensure_cache
from medres.progress import ProgressReporter

ARRAYS, DATA, TRAIN = "Model.fit on arrays", "Model.fit on medres.data", "medres.train"
FUSED = f"{DATA}, fused"
RATIOS = ((DATA, ARRAYS), (FUSED, ARRAYS), (FUSED, TRAIN))


class OtherParts(keras.callbacks.Callback):
    """After each epoch of medres.train, one epoch of each other part: (model, what fit takes)."""

    def __init__(self, parts: dict[str, tuple[keras.Model, tuple, dict[str, Any]]]) -> None:
        super().__init__()
        self.parts = parts
        self.seconds: dict[str, list[float]] = {name: [] for name in parts}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for name, (model, data, more) in self.parts.items():
            clock = EpochClock()
            model.fit(*data, epochs=1, verbose=0, callbacks=[clock], **more)
            self.seconds[name].append(clock.seconds)


class EpochClock(keras.callbacks.Callback):
    """The seconds of an epoch of fit."""

    seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.seconds = -time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds += time.perf_counter()


def network(options: argparse.Namespace, shape: tuple[int, ...], *, fused: bool) -> keras.Model:
    """The compiled network of the parts with Model.fit; fused: with the fused normalization that
    medres.train uses.
    """
    keras.utils.set_random_seed(0)
    model = medres.classifier("resnet18", shape, 1, stem=options.stem, width=options.width)
    model = medres.backbones.fused_training_copy(model) if fused else model
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=0.01),
        keras.losses.BinaryCrossentropy(from_logits=True),
        jit_compile=bool(tf.config.list_physical_devices("GPU")),
    )
    return model


def alternating(options: argparse.Namespace, augment: str) -> dict[str, list[float]]:
    """Seconds of each epoch by part, without the first; augment: "none" or "auto"."""
    sets = medres.data(
        options.work,
        options.preset,
        options.batch_size,
        augment=None if augment == "none" else augment,
        progress=ProgressReporter(),
    )
    data: tuple[tuple, dict[str, Any]] = (sets.train,), {"shuffle": False}
    parts = {FUSED: (network(options, sets.shape, fused=True), *data)}
    if augment == "none":
        in_memory = arrays(options), {"batch_size": options.batch_size}
        parts[ARRAYS] = (network(options, sets.shape, fused=False), *in_memory)
        parts[DATA] = (network(options, sets.shape, fused=False), *data)
    others = OtherParts(parts)
    run = train(options, options.out / augment, augment, "float32", [others])
    seconds = {TRAIN: run.history["seconds"].tolist(), **others.seconds}
    return {name: values[1:] for name, values in seconds.items()}


def train(
    options: argparse.Namespace, out: Path, augment: str, precision: str, callbacks: Sequence = ()
) -> medres.Run:
    """A run of medres.train."""
    return medres.train(
        options.work,
        model="resnet18",
        preset=options.preset,
        stem=options.stem,
        width=options.width,
        batch_size=options.batch_size,
        augment=augment,
        precision=precision,
        epochs=options.turns + 1,
        callbacks=list(callbacks),
        out=out,
        progress=ProgressReporter(),
    )


def torch_loops(
    options: argparse.Namespace, images: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Return the seconds of the fastest epoch by name. images: (n, rows, cols, 1) in 0..1."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.npz"
        stored = np.round(images.transpose(0, 3, 1, 2) * 255).astype("uint8")
        np.savez(file, image=stored, label=labels[:, 0])
        script = Path(__file__).with_name("throughput_peer.py")
        command = [options.torch_python, script, file, options.batch_size, options.turns + 1]
        done = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def arrays(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of the batches of one epoch."""
    batches = medres.data(
        options.work, options.preset, options.batch_size, augment=None, progress=ProgressReporter()
    ).train
    images, labels, _ = (
        np.concatenate(part) for part in zip(*batches.as_numpy_iterator(), strict=True)
    )
    return images, labels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--torch-python", help="Python of an environment with torch, torchvision and MONAI"
    )
    parser.add_argument("--preset", default="xray-128")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--stem", default="imagenet")
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    ensure_cache(options.work, options.preset)
    images, labels = arrays(options)
    for augment in ("none", "auto"):
        seconds = alternating(options, augment)
        print(f"augmentation {augment}, load {os.getloadavg()[0]:.1f}", flush=True)
        for name, values in seconds.items():
            print(f"  {name}: {len(images) / statistics.median(values):.1f} images/s {values}")
        for name, other in (pair for pair in RATIOS if set(pair) <= set(seconds)):
            ratio = statistics.median(seconds[other]) / statistics.median(seconds[name])
            print(f"  {name} is {ratio:.3f} times as fast as {other}", flush=True)
    if options.torch_python:
        against_torch(options, images, labels)


def against_torch(options: argparse.Namespace, images: np.ndarray, labels: np.ndarray) -> None:
    """Print the speed of medres.train with augmentation and of PyTorch loops, the best epochs."""
    peers = torch_loops(options, images, labels)
    for precision in ("float32", "bfloat16"):
        policy = "mixed_bfloat16" if precision == "bfloat16" else precision
        run = train(options, options.out / precision, "auto", policy)
        seconds = min(run.history["seconds"].tolist()[1:])
        print(f"{TRAIN}, augmented, {precision}: {len(images) / seconds:.1f} images/s")
        for name in (name for name in peers if name.endswith(precision)):
            print(f"  {peers[name] / seconds:.2f} times {name}")


if __name__ == "__main__":
    main()
