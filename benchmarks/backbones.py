"""Measure images per second and peak memory of ResNet-50: this package, keras.applications and
torchvision, on the same batch.

    python -m venv TORCH && TORCH/bin/pip install torch torchvision numpy
    python benchmarks/backbones.py --torch-python TORCH/bin/python [--batch 16] [--size 224]
        [--rounds 5] [--only train,float32]

The first command makes a separate environment for torch.

A training step is SGD on the cross-entropy of ten classes. An inference step is one forward pass.
Both run in float32 and in bfloat16 (Keras: mixed_bfloat16; torch: autocast in training, bfloat16
weights for inference). The networks:

    medres               version 1.5, like torchvision; training by
                         `fused_training_copy`, inference by `fold_batch_norm`
    medres, version 1    the same for version 1 with convolution biases, like keras.applications
                         (6 % fewer multiply-adds)
    medres, as built     version 1.5, the model itself, of built-in layers with the batch
                         normalization of Keras
    keras.applications   ResNet50
    torch                resnet50 of torchvision, channels first
    torch, channels last the same in the other memory layout
    torch, frozen        inference only: channels last, traced and frozen, with its batch
                         normalization folded by torch

Each network of a case runs in its own process. The processes take turns, step by step, so that a
busy moment of the machine affects all of them; the first step of each is not counted. The results
are the images per second of the median and of the fastest step, and the images per second of
processor time (all threads; the step that took least), which a busy machine disturbs less. Peak
memory is the largest resident set of the process, including its libraries. Rows are written to
standard output as CSV, and ratios to standard error: of the fastest steps, and of processor time.
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

KERAS = ("medres", "medres, version 1", "medres, as built", "keras.applications")
TORCH = ("torch", "torch, channels last", "torch, frozen")
CASES = list(itertools.product(("train", "infer"), ("float32", "bfloat16")))
COLUMNS = [
    "network",
    "step",
    "dtype",
    "batch",
    "size",
    "threads",
    "median",
    "fastest",
    "per_cpu_second",
    "peak_mib",
    "version",
]
Step = Callable[[], object]


def batch_of(count: int, size: int) -> tuple[Any, Any]:
    import numpy as np

    random = np.random.default_rng(0)
    return random.random((count, size, size, 3), "float32"), random.integers(0, 10, count)


def keras_step(name: str, step: str, dtype: str, images: Any, labels: Any) -> tuple[Step, str]:
    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy("mixed_bfloat16" if dtype == "bfloat16" else dtype)
    keras.utils.set_random_seed(0)
    model = keras_model(name, step, images.shape[1:])
    pixels, classes = tf.constant(images), tf.constant(labels)
    version = f"keras {keras.version()}, tensorflow {tf.__version__}"
    if step == "infer":
        forward = tf.function(lambda: model(pixels, training=False))
        return lambda: forward().numpy(), version
    model.compile(
        keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return lambda: model.train_on_batch(pixels, classes), version


def keras_model(name: str, step: str, shape: tuple[int, ...]) -> Any:
    """Return a ResNet-50 with ten logits."""
    import keras

    if name == "keras.applications":
        return keras.applications.ResNet50(
            weights=None, input_shape=shape, classes=10, classifier_activation=None
        )
    from medres.backbones import fold_batch_norm, fused_training_copy
    from medres.models.classification import classifier

    first = {"version": "1", "conv_bias": True} if name == "medres, version 1" else {}
    model = classifier(50, shape, 10, **first)
    return (
        model
        if name == "medres, as built"
        else (fused_training_copy if step == "train" else fold_batch_norm)(model)
    )


def torch_step(name: str, step: str, dtype: str, images: Any, labels: Any) -> tuple[Step, str]:
    import torch
    import torchvision

    torch.manual_seed(0)
    layout = torch.contiguous_format if name == "torch" else torch.channels_last
    model = torchvision.models.resnet50(num_classes=10).to(memory_format=layout)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(memory_format=layout)
    version = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    half = dtype == "bfloat16"
    if step == "infer":
        model, pixels = (
            (model.eval().bfloat16(), pixels.bfloat16()) if half else (model.eval(), pixels)
        )
        if name == "torch, frozen":
            model = torch.jit.optimize_for_inference(
                torch.jit.freeze(torch.jit.trace(model, pixels))
            )

        def forward() -> object:
            with torch.inference_mode():
                return model(pixels).float().numpy()

        return forward, version
    classes, optimiser = torch.from_numpy(labels), torch.optim.SGD(model.train().parameters(), 0.01)

    def train() -> object:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = torch.nn.functional.cross_entropy(model(pixels), classes)
        loss.backward()
        optimiser.step()
        return loss.item()

    return train, version


def work(name: str, step: str, dtype: str, batch: int, size: int) -> None:
    """Run in its own process: one step per input line, with its seconds and processor seconds on an
    output line; at the end the peak memory.
    """
    run, version = (torch_step if name in TORCH else keras_step)(
        name, step, dtype, *batch_of(batch, size)
    )
    run()
    print("@ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter(), time.process_time()
        run()
        ended = time.perf_counter(), time.process_time()
        print(
            "@" + json.dumps([end - start for start, end in zip(began, ended, strict=True)]),
            flush=True,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )
    print("@" + json.dumps({"peak_mib": round(peak), "version": version}), flush=True)


class Worker:
    """One network of a case, in its own process."""

    def __init__(
        self, python: str, name: str, case: tuple[str, str], given: argparse.Namespace
    ) -> None:
        self.name, self.times = name, []
        environment = {
            **os.environ,
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONWARNINGS": "ignore",
        }
        arguments = [
            "--work",
            "/".join((name, *case)),
            "--batch",
            str(given.batch),
            "--size",
            str(given.size),
        ]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(
            [python, __file__, *arguments], **pipes, text=True, env=environment
        )  # type: ignore[call-overload]

    def answer(self) -> str:
        for line in self.process.stdout:
            if line.startswith("@"):
                return line[1:].strip()
        raise SystemExit(f"{self.name} ended with status {self.process.wait()}")

    def turn(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.times.append(json.loads(self.answer()))

    def end(self, case: tuple[str, str], given: argparse.Namespace) -> dict[str, object]:
        self.process.stdin.close()
        last = json.loads(self.answer())
        self.process.wait()
        wall, processor = zip(*self.times, strict=True)
        rates = [
            round(given.batch / seconds, 2) for seconds in (median(wall), min(wall), min(processor))
        ]
        values = (
            self.name,
            *case,
            given.batch,
            given.size,
            os.cpu_count(),
            *rates,
            last["peak_mib"],
            last["version"],
        )
        return dict(zip(COLUMNS, values, strict=True))


def measure(case: tuple[str, str], given: argparse.Namespace) -> list[dict[str, object]]:
    peers = [
        name
        for name in TORCH
        if given.torch_python and (case[0] == "infer" or name != "torch, frozen")
    ]
    workers = [Worker(sys.executable, name, case, given) for name in KERAS]
    workers += [Worker(given.torch_python, name, case, given) for name in peers]
    for worker in workers:
        worker.answer()  # it is ready
    for _ in range(given.rounds):
        for worker in workers:
            worker.turn()
    return [worker.end(case, given) for worker in workers]


def ratios(rows: list[dict[str, Any]], column: str) -> str:
    """Return the ratio of each peer to the medres network of the same version."""
    rate = {row["network"]: row[column] for row in rows}
    found = {
        "the model as built": rate["medres"] / rate["medres, as built"],
        "keras.applications": rate["medres, version 1"] / rate["keras.applications"],
    }
    torch = [value for name, value in rate.items() if name in TORCH]
    if torch:
        found["torch's best"] = rate["medres"] / max(torch)
    text = ", ".join(f"{value:.2f} x {name}" for name, value in found.items())
    return f"{rows[0]['step']} {rows[0]['dtype']}, {column}: medres is {text}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("batch", 16), ("size", 224), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--torch-python", help="Python of an environment with torch and torchvision"
    )
    parser.add_argument("--only", help="one case, such as train,bfloat16")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(*given.work.split("/"), given.batch, given.size)
        return
    writer = csv.DictWriter(sys.stdout, COLUMNS)
    writer.writeheader()
    for case in CASES if not given.only else [tuple(given.only.split(","))]:
        rows = measure(case, given)
        writer.writerows(rows)
        sys.stdout.flush()
        print(
            *(ratios(rows, column) for column in ("fastest", "per_cpu_second")),
            sep="\n",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    main()
