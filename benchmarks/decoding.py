"""Milliseconds from raw maps to boxes: 10,000 candidates above the score threshold, in one image.
Processor time of one core is independent of the load of the machine.

    python benchmarks/decoding.py [--repeats 50]

Clusters: 1,000 objects with ten overlapping candidates each, as a detector gives them. Separate:
no two candidates overlap, so that as many stay as `most` allows. One pile: nearly all lie on one
object.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time

import numpy as np

from medres.detection import DecodingSettings, decode
from medres.detection.settings import positions

SIZE, STRIDE, CLASSES = (400, 400), 4, 3  # 100 x 100 positions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=50)
    repeats = parser.parse_args().repeats
    usual = DecodingSettings(SIZE, (STRIDE,))
    every = dataclasses.replace(usual, candidates=10_000)
    print("| candidates | into the suppression | boxes | wall, ms | one core, ms | most, ms |")
    print("|---|---|---|---|---|---|")
    maps = {"clusters": _clusters(), "separate": _separate(), "one pile": _pile()}
    for name, raw in maps.items():
        for settings in (usual, every, dataclasses.replace(every, most=300)):
            wall, core = [], []
            for _ in range(repeats):
                start = time.perf_counter(), time.process_time()
                found = decode(raw, settings)
                wall.append(1000 * (time.perf_counter() - start[0]))
                core.append(1000 * (time.process_time() - start[1]))
            print(
                f"| {name} | {settings.candidates:,} | {len(found)} | "
                f"{statistics.median(wall):.1f} | {statistics.median(core):.1f} | {max(core):.1f} |"
            )


def _maps() -> np.ndarray:
    """One class of each position is above the threshold, the others are not."""
    rng = np.random.default_rng(0)
    raw = np.full((10_000, 4 + 1 + CLASSES), -12.0, np.float32)
    raw[:, 4] = rng.normal(0, 1, 10_000)
    raw[np.arange(10_000), 5 + rng.integers(0, CLASSES, 10_000)] = rng.normal(0, 1, 10_000)
    return raw


def _clusters() -> np.ndarray:
    raw, rng = _maps(), np.random.default_rng(1)
    (centers,) = positions(SIZE, (STRIDE,))
    target = (np.floor(centers / 12.6) + 0.5) * 12.6  # about ten positions for each object
    raw[:, :2] = centers - target + 6 + rng.normal(0, 0.5, (10_000, 2))
    raw[:, 2:4] = target - centers + 6 + rng.normal(0, 0.5, (10_000, 2))
    return raw


def _separate() -> np.ndarray:
    raw = _maps()
    raw[:, :4] = 1.5
    return raw


def _pile() -> np.ndarray:
    """All candidates around one object: nothing fills the list, so all are compared."""
    raw = _maps()
    (centers,) = positions(SIZE, (STRIDE,))
    raw[:, :2], raw[:, 2:4] = np.abs(centers - 200) + 50, np.abs(centers - 200) + 50
    return raw


if __name__ == "__main__":
    main()
