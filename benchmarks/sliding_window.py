"""Sliding windows over a CT of 512 x 512 x 300: time and greatest memory beside MONAI's
sliding_window_inference, each in a process of its own, with the same windows and the same net.

    python benchmarks/sliding_window.py [--torch-python PYTHON] [--repeats 3]
        [--classes 3] [--patch 96] [--overlap 0.5] [--sizes 512,512,300]

The net costs almost nothing (each class is the image times a constant), so that the time is that of
cutting, weighting, summing and taking the largest class. The repeats alternate. Memory is the
greatest resident memory of the process minus that before the image was made; the image itself, the
label map and whatever the libraries need are in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

FACTORS = (1.0, -1.0, 0.5, 0.25, -0.5, 2.0, -2.0, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", help="a Python with torch and MONAI")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--classes", type=int, default=3, choices=range(2, len(FACTORS) + 1))
    parser.add_argument("--patch", type=int, default=96)
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--sizes", default="512,512,300")
    parser.add_argument("--only", choices=SIDES)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(_measured(SIDES[options.only], options)))
        return
    pythons = {"medres": sys.executable}
    if options.torch_python:
        pythons |= {"monai": options.torch_python, "monai_buffered": options.torch_python}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    for _ in range(options.repeats):
        for name, python in pythons.items():
            command = [python, *sys.argv, "--only", name]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            runs[name].append(json.loads(run.stdout.splitlines()[-1]))
    print("| | seconds | greatest memory, MB | label sum |\n|---|---|---|---|")
    for name, its in runs.items():
        seconds, memory = (statistics.median(run[key] for run in its) for key in ("s", "mb"))
        print(f"| {name} | {seconds:.1f} | {memory:,.0f} | {its[0]['sum']} |")


def _measured(label: Callable[..., np.ndarray], options: argparse.Namespace) -> dict[str, float]:
    sizes = tuple(map(int, options.sizes.split(",")))
    before = label(None, options)  # imports, threads
    image = np.random.default_rng(0).standard_normal(sizes, np.float32)
    start = time.perf_counter()
    result = label(image, options)
    seconds = time.perf_counter() - start
    return {"s": seconds, "mb": _resident() - float(before), "sum": int(result.sum(dtype=np.int64))}


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _by_medres(image: np.ndarray | None, options: argparse.Namespace) -> np.ndarray:
    from medres.inference.sliding_windows import sliding_window

    if image is None:
        return np.array(_resident())
    factors = np.array(FACTORS[: options.classes], np.float32)
    patch = (options.patch,) * image.ndim
    return sliding_window(lambda x: x * factors, image, patch, options.overlap)


def _by_monai(image: np.ndarray | None, options: argparse.Namespace, **more: int) -> np.ndarray:
    import torch
    from monai.inferers import sliding_window_inference

    if image is None:
        return np.array(_resident())
    factors = torch.tensor(FACTORS[: options.classes]).reshape(1, -1, *[1] * image.ndim)
    with torch.inference_mode():
        scores = sliding_window_inference(
            torch.from_numpy(image)[None, None],
            (options.patch,) * image.ndim,
            1,
            lambda x: x * factors,
            overlap=options.overlap,
            mode="gaussian",
            **more,
        )
        return scores.argmax(dim=1)[0].to(torch.uint8).numpy()


def _by_buffered_monai(image: np.ndarray | None, options: argparse.Namespace) -> np.ndarray:
    return _by_monai(image, options, buffer_steps=1, buffer_dim=0)


SIDES = {"medres": _by_medres, "monai": _by_monai, "monai_buffered": _by_buffered_monai}

if __name__ == "__main__":
    main()
