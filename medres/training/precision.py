"""How the machine computes: dtype policy and XLA, chosen once and written into the run's configuration."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def compute(precision: str) -> dict[str, Any]:
    """{"precision", "jit"} for this machine. XLA serves GPUs; on CPUs TensorFlow's own kernels were faster (ResNet-18, 28 px)."""
    jit = bool(tf.config.list_physical_devices("GPU"))
    return {"precision": "float32" if precision == "auto" else precision, "jit": jit}
