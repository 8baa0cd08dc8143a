"""Images a second and peak memory of ResNet-50: this package's against keras.applications', on the same batch.

    python benchmarks/backbones.py [--batch 16] [--size 224] [--steps 5]

Each case runs in a process of its own: a training step (SGD, cross-entropy, 10 classes) and an inference step, in float32 and in
mixed_bfloat16, after one step that is not counted; the middle of the steps' times is given. Peak memory is the largest resident set
of the process, TensorFlow included. The rows are written to standard output as CSV. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

CASES = list(itertools.product(("medres", "keras.applications"), ("train", "infer"), ("float32", "mixed_bfloat16")))
COLUMNS = ["network", "step", "dtype", "batch", "size", "threads", "images_per_second", "peak_mib"]


def network(name: str, size: int) -> Any:
    """ResNet-50 with ten logits on RGB."""
    import keras

    if name == "medres":
        from medres.model import classifier

        return classifier(50, (size, size, 3), 10)
    return keras.applications.ResNet50(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )


def stepper(model: Any, step: str, batch: int, size: int) -> Callable[[], object]:
    import keras
    import numpy as np
    import tensorflow as tf

    random = np.random.default_rng(0)
    images = tf.constant(random.random((batch, size, size, 3), "float32"))
    labels = tf.constant(random.integers(0, 10, batch))
    if step == "infer":
        forward = tf.function(lambda: model(images, training=False))
        return lambda: forward().numpy()
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return lambda: model.train_on_batch(images, labels)


def measure(name: str, step: str, dtype: str, batch: int, size: int, steps: int) -> dict[str, object]:
    import keras

    keras.config.set_dtype_policy(dtype)
    keras.utils.set_random_seed(0)
    run = stepper(network(name, size), step, batch, size)
    run()
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    values = (name, step, dtype, batch, size, os.cpu_count(), round(batch / median(times), 2), round(peak))
    return dict(zip(COLUMNS, values, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("batch", 16), ("size", 224), ("steps", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(*given.case.split(","), given.batch, given.size, given.steps)))
        return
    writer = csv.DictWriter(sys.stdout, COLUMNS)
    writer.writeheader()
    sizes = ["--batch", str(given.batch), "--size", str(given.size), "--steps", str(given.steps)]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    for case in CASES:
        command = [sys.executable, __file__, "--case", ",".join(case), *sizes]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        writer.writerow(json.loads(done.stdout.splitlines()[-1]))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
