"""Scalars for TensorBoard, written with TensorFlow only. `tensorboard --logdir RUN/logs` shows them
where the package tensorboard is installed.

An event file is a TFRecord of Event messages, of which the first has the version
(tensorflow/core/util/event.proto).
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import tensorflow as tf


class TensorBoardLogger:
    """One event file in `folder`; a resumed run writes another file beside it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("events.out.tfevents.*")))
        self._writer = tf.io.TFRecordWriter(
            str(folder / f"events.out.tfevents.{int(time.time())}.{number}.medres")
        )
        self._write(tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2"))

    def epoch(self, row: dict[str, Any]) -> None:
        """Write the metrics of one row of the history at its epoch."""
        values = [
            tf.compat.v1.Summary.Value(tag=f"{_group(name)}/{name}", simple_value=float(value))
            for name, value in row.items()
            if name != "epoch" and value is not None and math.isfinite(value)
        ]
        summary = tf.compat.v1.Summary(value=values)
        self._write(
            tf.compat.v1.Event(wall_time=time.time(), step=int(row["epoch"]), summary=summary)
        )

    def close(self) -> None:
        self._writer.close()

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()


def _group(name: str) -> str:
    """The section of a metric on TensorBoard's page."""
    if name.startswith("tune"):
        return "tune"
    return "gradients" if name.startswith("grad") else "training"
