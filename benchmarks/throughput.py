"""Measure images per second over whole epochs: the training loop of medres on its cache, plain
Keras fit, and a PyTorch loop.

    python benchmarks/throughput.py WORK OUT [--torch-python PYTHON] [--preset xray-128]
        [--batch-size 32] [--epochs 3]

ResNet-18, width 64, AdamW, with the same images, batches per step and steps. Without augmentation:
medres in float32 against Model.fit on the same arrays in memory; both compile without XLA on a CPU
and with XLA on a GPU. With augmentation (chest preset): medres in float32 and in bfloat16 against
PyTorch in float32 and bfloat16, with transforms of the same kind from MONAI and from torchvision;
see throughput_peer.py. The first epoch (tracing) is left out everywhere. The evaluation of the
tuning split by medres is not counted, because the others have none. The parts take turns, twice, so
that other work on the machine affects all of them; the best epoch of each counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import medres
from data_pipelines.cache.store import ensure_cache
from data_pipelines.cache.tf_dataset import datasets
from medres.progress import ProgressReporter


def plain_fit(options: argparse.Namespace, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the seconds of the fastest epoch of Model.fit on arrays, without the first one."""
    keras.utils.set_random_seed(0)
    model = medres.classifier("resnet18", images.shape[1:], 1, stem="imagenet")
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
    model.fit(
        images,
        labels,
        batch_size=options.batch_size,
        epochs=options.epochs,
        verbose=0,
        callbacks=[clock],
    )
    return min(ends[1:])


def ours(options: argparse.Namespace, out: Path, augment: str, precision: str) -> float:
    """Return the seconds of the fastest epoch of medres.train, without the first one."""
    run = medres.train(
        options.work,
        model="resnet18",
        preset=options.preset,
        stem="imagenet",
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
    options = parser.parse_args()
    ensure_cache(options.work, options.preset)
    batches = list(datasets(options.work, options.preset, options.batch_size, 0)[0])
    images = np.concatenate([inputs["image"].numpy() for inputs, _, _ in batches])
    labels = np.concatenate([label.numpy() for _, label, _ in batches])
    plain, bare = "Keras fit, no augmentation, float32", "medres, no augmentation, float32"
    found: dict[str, list[float]] = {}
    for turn in range(2):
        times = {
            plain: plain_fit(options, images, labels),
            bare: ours(options, options.out / f"bare-{turn}", "none", "float32"),
            **{
                f"medres, chest preset, {name}": ours(
                    options, options.out / f"{name}-{turn}", "chest_xray", policy
                )
                for name, policy in (("float32", "float32"), ("bfloat16", "mixed_bfloat16"))
            },
            **torch_loops(options, images, labels),
        }
        for name, seconds in times.items():
            found.setdefault(name, []).append(seconds)
    best = {name: min(seconds) for name, seconds in found.items()}
    for name, seconds in best.items():
        print(f"{name}: {len(images) / seconds:.1f} images/s")
    print(f"medres is {best[plain] / best[bare]:.3f} times plain fit")
    for dtype in ("float32", "bfloat16"):
        mine = best[f"medres, chest preset, {dtype}"]
        for name in (name for name in best if name.startswith("torch") and name.endswith(dtype)):
            print(f"medres is {best[name] / mine:.2f} times {name}")


if __name__ == "__main__":
    main()
