"""How the machine computes: dtype policy, XLA, and the largest batch that fits. Chosen once per run
and written into the run's configuration.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import tensorflow as tf

from medres.errors import TrainingError
from medres.training.config.recipe import Recipe

BF16 = "mixed_bfloat16"
MIN_SPEEDUP = 1.15  # of bfloat16 over float32, to be worth its three significant digits
MIN_BATCHES = 2000  # of a whole run, from which on the benchmark pays
REPEATS = 3

Step = Callable[[], object]
Log = Callable[[str], None]
Choice = tuple[str, str]  # a dtype policy, and why


class ComputeSettings(TypedDict):
    """`compute` in config.json. why: the reason for the dtype policy `precision`; jit: XLA."""

    precision: str
    why: str
    jit: bool
    devices: int
    batch_size: int
    accumulate: int


def devices() -> list[str]:
    """The devices that share each batch: all GPUs of this machine, otherwise its CPU."""
    return [
        gpu.name.removeprefix("/physical_device:") for gpu in tf.config.list_physical_devices("GPU")
    ] or ["CPU:0"]


def uses_xla(replicas: int) -> bool:
    """Whether steps are compiled: on a single GPU. A step of several devices is not, and on CPUs
    TensorFlow's own kernels are faster.
    """
    return bool(tf.config.list_physical_devices("GPU")) and replicas == 1


def strategy_for(names: list[str]) -> tf.distribute.Strategy:
    """MirroredStrategy for several devices, TensorFlow's default for one."""
    return tf.distribute.MirroredStrategy(names) if len(names) > 1 else tf.distribute.get_strategy()


def check_devices(count: int, previous: ComputeSettings | None, recipe: Recipe) -> None:
    """Raise TrainingError where a run cannot start, or resume, on this number of devices.

    previous: the compute settings of the run to resume, None for a new run.
    """
    if previous is not None and previous.get("devices", count) != count:
        raise TrainingError(
            f"the run started on {previous['devices']} devices and this machine has {count}, which "
            f"would change the result: train into a new folder",
            code="other_devices",
        )
    if recipe.batch_size % count:
        raise TrainingError(
            f"{count} devices share each batch: batch_size must be divisible by {count} (received "
            f"{recipe.batch_size})",
            code="indivisible_batch",
        )


def compute(
    precision: str,
    recipe: Recipe,
    steps: int,
    make_step: Callable[[str, Recipe], Step],
    log: Log | None = None,
    *,
    replicas: int | None = None,
    vote: Callable[[bool], bool] = bool,
    decide: Callable[[Choice], Any] = tuple,
) -> ComputeSettings:
    """The compute settings of a run with `steps` batches per epoch on this machine.

    precision: a dtype policy, or "auto": mixed_bfloat16 where the machine supports it, the run is
        long, and three timed batches are at least 15 % faster with it.
    make_step(policy, recipe): a function that trains one batch and waits for the result.
    log: receives a line with the result of a benchmark. replicas: devices that share a batch; None:
        those of this machine. vote: of several workers, whether it is true on all; decide: what the
        chief has chosen.

    XLA is used where `uses_xla` says so. Where a batch does not
    fit into the memory of the GPU, it is halved and the gradients of twice as many are accumulated.
    """
    replicas = len(devices()) if replicas is None else replicas
    policy, why = precision, "requested"
    if precision == "auto":
        supported = vote(has_bfloat16())
        policy, why = decide(_fastest(recipe, steps * recipe.epochs, make_step, log, supported))
    if uses_xla(replicas):
        recipe = largest_batch(recipe, lambda smaller: make_step(policy, smaller)())
    return {
        "precision": policy,
        "why": why,
        "jit": uses_xla(replicas),
        "devices": replicas,
        "batch_size": recipe.batch_size,
        "accumulate": recipe.accumulate,
    }


def _fastest(
    recipe: Recipe,
    batches: int,
    make_step: Callable[[str, Recipe], Step],
    log: Log | None,
    supported: bool,
) -> Choice:
    """The dtype policy and the reason for it. supported: bfloat16, by the machine."""
    if not supported:
        return "float32", "this machine does not support bfloat16, and float16 is never chosen"
    if batches < MIN_BATCHES:
        return "float32", "the run is too short to benchmark bfloat16"
    seconds = {policy: _seconds(make_step(policy, recipe)) for policy in ("float32", BF16)}
    speedup = seconds["float32"] / seconds[BF16]
    policy = BF16 if speedup >= MIN_SPEEDUP else "float32"
    why = f"benchmark: a batch in bfloat16 is {speedup:.2f} times as fast as in float32"
    if log is not None:
        log(f"{policy}: {why}")
    return policy, why


def _seconds(step: Step) -> float:
    """The shortest of a few repeats, after a first run that compiles the step."""
    step()
    durations = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        step()
        durations.append(time.perf_counter() - start)
    return min(durations)


def has_bfloat16() -> bool:
    """Whether the machine computes in bfloat16: GPUs from compute capability 8.0 on, CPUs with
    AVX512-BF16 or AMX-BF16.
    """
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


def largest_batch(recipe: Recipe, train_one: Callable[[Recipe], object]) -> Recipe:
    """The recipe with the largest batch that `train_one` can train: the batch is halved as long as
    memory runs out, and `accumulate` grows so that their product stays. Raises TrainingError (code
    out_of_memory) where one image does not fit.
    """
    while True:
        try:
            train_one(recipe)
            return recipe
        except tf.errors.ResourceExhaustedError:
            if recipe.batch_size == 1:
                raise TrainingError(
                    "a single image does not fit into the memory of the device: choose a smaller "
                    "preset or a smaller model",
                    code="out_of_memory",
                ) from None
            half = recipe.batch_size // 2
            accumulate = recipe.accumulate * recipe.batch_size // half
            recipe = recipe.model_copy(update={"batch_size": half, "accumulate": accumulate})
