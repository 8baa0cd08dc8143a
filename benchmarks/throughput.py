"""Images a second of whole epochs: medres' training loop on its cache against plain Keras fit on the same arrays in memory.

    python benchmarks/throughput.py WORK OUT [--preset xray-64] [--model resnet18] [--width 64] [--batch-size 32] [--epochs 3]

Augmentation off, float32, the same net, optimiser, batches a step and number of steps. Both compile without XLA on a CPU and with it
on a GPU. The first epoch (tracing) is left out of both; the tuning pass of medres is not counted, as plain fit has none.
The two take turns, twice, so that a machine that grows busier hits both; the best epoch of each counts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import medres
from data_pipelines.cache import ensure_cache
from data_pipelines.dataset import datasets
from medres.progress import Progress


def plain_fit(options: argparse.Namespace, images: np.ndarray, labels: np.ndarray) -> list[float]:
    """Seconds an epoch of Model.fit on arrays, the first one left out."""
    keras.utils.set_random_seed(0)
    model = medres.classifier(options.model, images.shape[1:], 1, stem=options.stem, width=options.width)
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
    size = options.batch_size
    count = len(images) // size * size
    model.fit(images[:count], labels[:count], batch_size=size, epochs=options.epochs, verbose=0, callbacks=[clock])
    return ends[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--preset", default="xray-64")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--stem", default="small")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    ensure_cache(options.work, options.preset)
    train = datasets(options.work, options.preset, options.batch_size, 0)[0]
    batches = [(inputs["image"].numpy(), label.numpy()) for inputs, label, _ in train]
    images, labels = (np.concatenate([batch[i] for batch in batches]) for i in (0, 1))
    ours, plain = [], []
    for turn in range(2):
        plain += plain_fit(options, images, labels)
        run = medres.train(
            options.work, model=options.model, preset=options.preset, stem=options.stem, width=options.width,
            batch_size=options.batch_size, augment="none", precision="float32", epochs=options.epochs,
            out=options.out / f"run-{turn}", progress=Progress(),
        )  # fmt: skip
        ours += run.history["seconds"].tolist()[1:]
    count = len(batches) * options.batch_size
    print(
        f"plain fit {count / min(plain):.1f} images/s, medres {count / min(ours):.1f} images/s, ratio {min(plain) / min(ours):.3f}"
    )


if __name__ == "__main__":
    main()
