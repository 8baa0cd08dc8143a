"""Measure each engine of `medres.load` against plain Keras: ResNet-18 and -50 at 224 pixels.

    python benchmarks/engines.py [--seconds 2] [--side 224] [MODEL ...]

One run, in alternation: every way has its turn in each round, and its shortest time counts. The
ways are `model(x)`, `model.predict(x)`, the compiled graph that `Predictor` uses (engine
"tensorflow"), and the exports in ONNX Runtime and OpenVINO, in float32. Engines score each image
alone, as `Predictor` does; "batch" is the graph with all images at once. Prints one table per model
and batch, as in RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

Way = Callable[[np.ndarray], np.ndarray]


def ways(name: str, side: int, folder: Path) -> dict[str, Way]:
    import keras
    import tensorflow as tf

    from medres.models.classification import classifier
    from medres.runtimes.formats import open_graph, write_graph

    keras.utils.set_random_seed(0)
    model = classifier(name, (side, side, 1), 1, activation="sigmoid")
    model(np.zeros((1, side, side, 1), np.float32))
    graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(
        tf.TensorSpec((1, side, side, 1), tf.float32)
    )
    found: dict[str, Way] = {
        "model(x)": lambda x: np.asarray(model(x, training=False)),
        "model.predict": lambda x: model.predict(x, batch_size=len(x), verbose=0),
        "tensorflow": one_by_one(lambda x: graph(tf.constant(x)).numpy()),
    }
    for engine in ("onnx", "openvino"):
        (folder / engine).mkdir()
        write_graph(model, ["probability"], engine, folder / engine, "{}")
        single = open_graph(engine, folder / engine, batch=1)
        several = open_graph(engine, folder / engine)
        found[engine] = one_by_one(lambda x, run=single: run(x)["probability"])
        found[f"{engine}, batch"] = lambda x, run=several: run(x)["probability"]
    return found


def one_by_one(run: Way) -> Way:
    return lambda images: np.concatenate([run(images[n : n + 1]) for n in range(len(images))])


def measure(found: dict[str, Way], images: np.ndarray, seconds: float) -> dict[str, float]:
    """Shortest seconds of one call of each way, after two calls that warm up: other work on the
    machine only makes calls longer.
    """
    times: dict[str, list[float]] = {name: [] for name in found}
    for run in found.values():
        run(images)
        run(images)
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds * len(found) or len(times["model(x)"]) < 5:
        for name, run in found.items():
            start = time.perf_counter()
            run(images)
            times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("models", nargs="*", default=["resnet18", "resnet50"])
    p.add_argument("--side", type=int, default=224)
    p.add_argument("--seconds", type=float, default=2.0, help="per way and batch")
    given = p.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    warnings.simplefilter("ignore")
    versions = ", ".join(
        f"{name} {metadata.version(name)}"
        for name in ("keras", "tensorflow-cpu", "tensorflow", "onnxruntime", "openvino")
        if any(True for _ in metadata.distributions(name=name))
    )
    print(f"{platform.processor()}, {len(os.sched_getaffinity(0))} processors; {versions}")
    for model in given.models:
        with tempfile.TemporaryDirectory() as folder:
            found = ways(model, given.side, Path(folder))
            for batch in (1, 8):
                shape = (batch, given.side, given.side, 1)
                images = np.random.default_rng(0).random(shape, np.float32)
                reference = found["model(x)"](images)
                difference = max(
                    float(np.abs(run(images) - reference).max()) for run in found.values()
                )
                seconds = measure(found, images, given.seconds)
                tell(model, batch, seconds, difference)


def tell(model: str, batch: int, seconds: dict[str, float], difference: float) -> None:
    print(f"\n{model}, batch {batch}; greatest difference of a probability {difference:.1e}\n")
    print("| | ms per image | times model(x) | times model.predict |\n|---|---|---|---|")
    for name, value in seconds.items():
        ratios = [seconds[plain] / value for plain in ("model(x)", "model.predict")]
        print(f"| {name} | {1000 * value / batch:.1f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")


if __name__ == "__main__":
    main()
