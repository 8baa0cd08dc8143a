"""Processor time per training image of the input pipelines of a distributed run: each of 1, 2, 4
and 8 pipelines delivers its share of one epoch, one after the other in this process.

    python benchmarks/pipelines.py [--images 8000] [--side 224] [--batch 64]

The first row ("1") is the pipeline of a single process, which reads the shards from end to end.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf

from data_pipelines.cache.plan import ROW_BYTES
from data_pipelines.cache.store import Cache
from data_pipelines.cache.tf_dataset import Targets, train_batches
from data_pipelines.preprocessing.spec import PreprocessSpec, spec_from

PER_SHARD = 500
REPEATS = 3


def made_up_cache(folder: Path, spec: PreprocessSpec, count: int) -> Cache:
    """A cache of random images in the train split."""
    rng = np.random.default_rng(0)
    files = []
    for start in range(0, count, PER_SHARD):
        files.append(f"train-{start // PER_SHARD:05d}.tfrecord")
        with tf.io.TFRecordWriter(str(folder / files[-1])) as writer:
            for row in range(start, min(count, start + PER_SHARD)):
                pixels = rng.integers(0, 255, spec.prepared_shape).astype(spec.dtype)
                writer.write(np.int32(row).tobytes()[:ROW_BYTES] + pixels.tobytes())
    images = pd.DataFrame({"image": [f"i{n}" for n in range(count)], "split": "train"})
    return Cache(folder, spec, images, images, {"train": files, "tune": [], "test": []}, {})


def microseconds(cache: Cache, targets: Targets, batch: int, pipelines: int) -> float:
    """Processor time per image, in microseconds, over all pipelines of one epoch."""
    images, start = 0, time.process_time()
    for pipeline in range(pipelines):
        context = tf.distribute.InputContext(pipelines, pipeline, pipelines)
        for inputs, _, _ in train_batches(cache, targets, batch, 0, context=context):
            images += len(inputs["image"])
    return (time.process_time() - start) / images * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    spec = spec_from(f"xray-{options.side}")
    labels = np.zeros((options.images, 1), np.float32)
    targets = Targets("binary", ("finding",), labels, np.ones_like(labels))
    with tempfile.TemporaryDirectory() as folder:
        cache = made_up_cache(Path(folder), spec, options.images)
        microseconds(cache, targets, options.batch, 1)  # the first use of each operation
        print("| pipelines | processor us per image | ratio |\n|---|---|---|")
        first = 0.0
        for pipelines in (1, 2, 4, 8):
            value = min(
                microseconds(cache, targets, options.batch, pipelines) for _ in range(REPEATS)
            )
            first = first or value
            print(f"| {pipelines} | {value:.0f} | {value / first:.2f} |")


if __name__ == "__main__":
    main()
