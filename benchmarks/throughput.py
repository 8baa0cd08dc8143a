"""Measure images per second over whole epochs: Model.fit on medres.data and on arrays, the loop of
medres.train, and a PyTorch loop.

    python benchmarks/throughput.py WORK OUT [--torch-python PYTHON] [--preset xray-128]
        [--batch-size 32] [--epochs 3] [--turns 5] [--stem imagenet] [--width 64]

ResNet-18, AdamW, float32, with the same images, batches per step and steps. Without augmentation:
Model.fit on arrays in memory, Model.fit on medres.data, and medres.train. With augmentation (the
default of the kind): Model.fit on medres.data and medres.train, and with --torch-python also
medres.train in bfloat16 and PyTorch in float32 and bfloat16, with transforms of the same kind from
MONAI and from torchvision; see throughput_peer.py. Keras and medres compile without XLA on a CPU
and with XLA on a GPU. The first epoch (tracing) is left out everywhere; the fastest other one
counts. The evaluation of the tuning split by medres is not counted, because the others have none.
The parts take turns, so that other work on the machine affects all of them. Ratios are medians over
the turns of the ratio within a turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import medres
from data_pipelines.cache.store import ensure_cache
from medres.progress import ProgressReporter

ARRAYS, DATA, TRAIN = "Model.fit on arrays", "Model.fit on medres.data", "medres.train"
DATA_AUGMENTED, TRAIN_AUGMENTED = f"{DATA}, augmented", f"{TRAIN}, augmented"
RATIOS = ((DATA, ARRAYS), (DATA, TRAIN), (DATA_AUGMENTED, DATA), (DATA_AUGMENTED, TRAIN_AUGMENTED))


def fit(options: argparse.Namespace, shape: tuple[int, ...], *data: Any, **more: Any) -> float:
    """Return the seconds of the fastest epoch of Model.fit, without the first one. data: what fit
    takes.
    """
    keras.utils.set_random_seed(0)
    model = medres.classifier("resnet18", shape, 1, stem=options.stem, width=options.width)
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=0.01),
        keras.losses.BinaryCrossentropy(from_logits=True),
        jit_compile=bool(tf.config.list_physical_devices("GPU")),
    )
    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: ends.append(-time.perf_counter()),
        on_epoch_end=lambda epoch, logs: ends.append(ends.pop() + time.perf_counter()),
    )
    model.fit(*data, epochs=options.epochs, verbose=0, callbacks=[clock], **more)
    return min(ends[1:])


def train(options: argparse.Namespace, out: Path, augment: str, precision: str) -> float:
    """Return the seconds of the fastest epoch of medres.train, without the first one."""
    run = medres.train(
        options.work,
        model="resnet18",
        preset=options.preset,
        stem=options.stem,
        width=options.width,
        batch_size=options.batch_size,
        augment=augment,
        precision=precision,
        epochs=options.epochs,
        out=out,
        progress=ProgressReporter(),
    )
    return min(run.history["seconds"].tolist()[1:])


def torch_loops(
    options: argparse.Namespace, images: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Return the seconds of the fastest epoch by name. images: (n, rows, cols, 1) in 0..1."""
    if options.torch_python is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.npz"
        stored = np.round(images.transpose(0, 3, 1, 2) * 255).astype("uint8")
        np.savez(file, image=stored, label=labels[:, 0])
        script = Path(__file__).with_name("throughput_peer.py")
        command = [options.torch_python, script, file, options.batch_size, options.epochs]
        done = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def parts(options: argparse.Namespace, turn: int) -> dict[str, Callable[[], float]]:
    """What is timed, by name."""
    sets = {
        augment: medres.data(
            options.work,
            options.preset,
            options.batch_size,
            augment=augment,
            progress=ProgressReporter(),
        )
        for augment in ("auto", None)
    }
    plain, augmented = sets[None], sets["auto"]
    images, labels = arrays(options)
    out = options.out / f"turn{turn}"
    result = {
        ARRAYS: lambda: fit(options, plain.shape, images, labels, batch_size=options.batch_size),
        DATA: lambda: fit(options, plain.shape, plain.train, shuffle=False),
        TRAIN: lambda: train(options, out / "plain", "none", "float32"),
        DATA_AUGMENTED: lambda: fit(options, plain.shape, augmented.train, shuffle=False),
        TRAIN_AUGMENTED: lambda: train(options, out / "augmented", "auto", "float32"),
    }
    if options.torch_python:
        name = f"{TRAIN_AUGMENTED}, bfloat16"
        result[name] = lambda: train(options, out / "bfloat16", "auto", "mixed_bfloat16")
    return result


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
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--stem", default="imagenet")
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    ensure_cache(options.work, options.preset)
    images, labels = arrays(options)
    seconds: dict[str, list[float]] = {}
    for turn in range(options.turns):
        times = {name: part() for name, part in parts(options, turn).items()}
        times |= torch_loops(options, images, labels)
        for name, value in times.items():
            seconds.setdefault(name, []).append(value)
        print(f"turn {turn + 1}, load {os.getloadavg()[0]:.1f}: {times}", flush=True)
    for name, values in seconds.items():
        print(f"{name}: {len(images) / statistics.median(values):.1f} images/s")
    peers = [(TRAIN_AUGMENTED, name) for name in seconds if name.startswith("torch")]
    for name, other in (*RATIOS, *peers):
        ratios = [b / a for a, b in zip(seconds[name], seconds[other], strict=True)]
        print(
            f"{name} is {statistics.median(ratios):.3f} times as fast as {other} "
            f"({min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
