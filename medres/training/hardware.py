"""How the machine computes: dtype policy, XLA, and the batch that fits. Chosen once and written
into the run's configuration.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from medres.errors import TrainingError
from medres.training.config.recipe import Recipe

BF16 = "mixed_bfloat16"
GAIN = 1.15  # bfloat16 must be this much faster to be worth its three digits
LONG = 2000  # batches of a run from which on the test pays
TRIES = 3

Step = Callable[[], object]


def devices() -> list[str]:
    """The devices that share each batch: all GPUs of this machine, or its CPU."""
    return [
        gpu.name.removeprefix("/physical_device:") for gpu in tf.config.list_physical_devices("GPU")
    ] or ["CPU:0"]


def strategy(names: list[str]) -> tf.distribute.Strategy:
    """MirroredStrategy over several devices; TensorFlow's default for one."""
    return tf.distribute.MirroredStrategy(names) if len(names) > 1 else tf.distribute.get_strategy()


def check_devices(count: int, before: dict[str, Any], chosen: Recipe) -> None:
    """Raise TrainingError where a run cannot go on, or begin, on so many devices."""
    if before.get("devices", count) != count:
        raise TrainingError(
            f"the run began on {before['devices']} devices and this machine has {count}: it would "
            f"end otherwise; train into a new folder"
        )
    if count > 1 and (chosen.batch_size % count or chosen.accumulate > 1):
        raise TrainingError(
            f"{count} devices share a batch: batch_size {chosen.batch_size} must divide by "
            f"{count}, and accumulate must be 1"
        )


def compute(
    precision: str, chosen: Recipe, steps: int, make: Callable[[str, Recipe], Step]
) -> dict[str, Any]:
    """{"precision", "why", "jit", "devices", "batch_size", "accumulate"} for a run of `steps`
    batches an epoch on this machine.

    make(policy, recipe): a function that trains one batch and waits for it. precision "auto":
    bfloat16 where the machine has it, the run is long, and three timed batches say that it is
    faster by 15 %. XLA serves GPUs; on CPUs TensorFlow's own kernels are faster. On a GPU whose
    memory the batch does not fit, it is halved and gradients are accumulated over twice as many.
    """
    gpu = bool(tf.config.list_physical_devices("GPU"))
    policy, why = precision, "as asked"
    if precision == "auto":
        policy, why = _fastest(chosen, steps * chosen.epochs, make)
    count = len(devices())
    if gpu and count == 1:
        chosen = largest_batch(chosen, lambda recipe: make(policy, recipe)())
    return {
        "precision": policy,
        "why": why,
        "jit": gpu and count == 1,
        "devices": count,
        "batch_size": chosen.batch_size,
        "accumulate": chosen.accumulate,
    }


def _fastest(chosen: Recipe, batches: int, make: Callable[[str, Recipe], Step]) -> tuple[str, str]:
    if not has_bfloat16():
        return "float32", "this machine does not compute in bfloat16"
    if batches < LONG:
        return "float32", f"{batches} batches: too short a run for the self-test"
    seconds = {policy: _seconds(make(policy, chosen)) for policy in ("float32", BF16)}
    gain = seconds["float32"] / seconds[BF16]
    return (
        BF16 if gain >= GAIN else "float32",
        f"self-test: a batch in bfloat16 is {gain:.2f} times as fast as in float32",
    )


def _seconds(step: Step) -> float:
    """The shortest of a few tries, after one that compiles."""
    step()
    found = []
    for _ in range(TRIES):
        begun = time.perf_counter()
        step()
        found.append(time.perf_counter() - begun)
    return min(found)


def has_bfloat16() -> bool:
    """GPUs from compute capability 8.0 on; CPUs with AVX512-BF16 or AMX-BF16."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return all(
            tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))[0] >= 8
            for gpu in gpus
        )
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def largest_batch(chosen: Recipe, train_one: Callable[[Recipe], object]) -> Recipe:
    """The recipe with the largest batch that trains, halved as often as memory runs out; the
    product with `accumulate` is kept.
    """
    while True:
        try:
            train_one(chosen)
            return chosen
        except tf.errors.ResourceExhaustedError:
            if chosen.batch_size == 1:
                raise TrainingError(
                    "one image does not fit the device's memory: choose a smaller preset or a "
                    "smaller model"
                ) from None
            half = chosen.batch_size // 2
            chosen = chosen.model_copy(
                update={
                    "batch_size": half,
                    "accumulate": chosen.accumulate * chosen.batch_size // half,
                }
            )
