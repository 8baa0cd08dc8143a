"""Which engine is fastest on this machine: a ResNet-18 at 112 x 112 pixels, one image at a time,
float32. Run as a program it prints JSON; `medres doctor` runs it in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.runtime.backend import require_tensorflow
from medres.errors import ExportError
from medres.runtimes.formats import Format, check_format, open_graph, write_graph
from medres.runtimes.served_graph import PROBABILITY

SIDE = 112
ROUNDS, CALLS = 5, 4
TOLERANCE = 1e-5  # an engine is exact if its probabilities differ by no more
_TIMEOUT_S = 300


class EngineSpeed(NamedTuple):
    """milliseconds: shortest time of one image, None if the engine cannot be used; then `missing`
    says why. difference: greatest difference of a probability from TensorFlow.
    """

    engine: str
    milliseconds: float | None
    difference: float | None
    missing: str = ""


def measure_engines() -> list[EngineSpeed]:
    """The speed of each engine, measured in alternation."""
    require_tensorflow()
    import keras

    from medres.models.classification import classifier

    keras.utils.set_random_seed(0)
    model = classifier("resnet18", (SIDE, SIDE, 1), 1, activation="sigmoid")
    images = np.random.default_rng(0).random((4, SIDE, SIDE, 1), np.float32)
    engines: dict[str, Callable[[np.ndarray], np.ndarray]] = {"tensorflow": _in_tensorflow(model)}
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="medres-") as folder:
        for name in ("onnx", "openvino"):
            try:
                engines[name] = _exported(model, name, Path(folder) / name)
            except ExportError as error:
                missing[name] = str(error)
        outputs = {
            name: np.concatenate([run(image[np.newaxis]) for image in images])
            for name, run in engines.items()
        }
        seconds = _alternating(engines, images[:1])
    return [
        EngineSpeed(
            name,
            round(1000 * seconds[name], 2),
            float(np.abs(outputs[name] - outputs["tensorflow"]).max()),
        )
        for name in engines
    ] + [EngineSpeed(name, None, None, why) for name, why in missing.items()]


def fastest_exact(speeds: list[EngineSpeed]) -> str | None:
    """The name of the fastest engine whose probabilities are those of TensorFlow to 1e-5."""
    exact = [
        (speed.milliseconds, speed.engine)
        for speed in speeds
        if speed.milliseconds is not None
        and speed.difference is not None
        and speed.difference <= TOLERANCE
    ]
    return min(exact)[1] if exact else None


def ask_engines() -> dict[str, Any]:
    """The measurement in a separate process: {"fastest": name, "engines": rows}, or {"error":
    why}.
    """
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, "-W", "ignore", "-m", "medres.runtimes.engine_speed"]
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"the engines were not measured within {_TIMEOUT_S} s"}
    if done.returncode != 0:
        last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"error": f"the engines cannot be measured: {last_line[:300]}"}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _in_tensorflow(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    tf = require_tensorflow()
    graph = tf.function(lambda image: model(image, training=False)).get_concrete_function(
        tf.TensorSpec((1, *model.input.shape[1:]), tf.float32)
    )
    return lambda images: graph(tf.constant(images)).numpy()


def _exported(model: Any, name: Format, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    check_format(name, writing=True)
    folder.mkdir()
    write_graph(model, [PROBABILITY], name, folder, "{}")
    run = open_graph(name, folder, batch=1)
    return lambda images: run(images)[PROBABILITY]


def _alternating(
    engines: dict[str, Callable[[np.ndarray], np.ndarray]], image: np.ndarray
) -> dict[str, float]:
    """Shortest seconds of one call, in rounds in which each engine has its turn: other work on the
    machine only makes calls longer.
    """
    times: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(ROUNDS + 1):
        for name, run in engines.items():
            for _ in range(CALLS):
                start = time.perf_counter()
                run(image)
                if number:  # the first round warms up
                    times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}


if __name__ == "__main__":
    measured = measure_engines()
    rows = [speed._asdict() for speed in measured]
    print("\n" + json.dumps({"fastest": fastest_exact(measured), "engines": rows}))
