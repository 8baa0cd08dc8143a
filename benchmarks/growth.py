"""Processor time and memory per item of each step, as the number of files grows.

    python benchmarks/growth.py [--sizes 1000 10000] [--out FOLDER] [--steps ingest inspect ...]

Each step runs in a new process on tiny PNG files (16 x 16, three for a patient). The time is that
of the processor, of the process and its workers, since a shared machine disturbs it less than the
clock. "bytes per further item" is what the peak of the process's memory grows by for each item
between two sizes. FOLDER gets growth.json, growth.svg (log-log) and growth.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

PRESET = "xray-32"


def files(work: Path, count: int) -> None:
    """Made once for each size."""
    rng = np.random.default_rng(0)
    folder = work / "in"
    folder.mkdir(parents=True)
    pixels = rng.integers(0, 256, (count, 16, 16)).astype(np.uint8)
    rows = ["path,finding,patient"]
    for n in range(count):
        Image.fromarray(pixels[n]).save(folder / f"{n:07}.png")
        rows.append(f"{n:07}.png,{n // 3 % 2},{n // 3}")
    (work / "labels.csv").write_text("\n".join(rows) + "\n")
    p = np.clip(rng.normal(0.4 + 0.2 * (np.arange(count) // 3 % 2), 0.2), 0.001, 0.999)
    scores = ["image,study,patient,split,label:finding,score:finding"]
    scores += [f"i{n},s{n},p{n // 3},test,{n // 3 % 2},{p[n]:.6f}" for n in range(count)]
    (work / "scores.csv").write_text("\n".join(scores) + "\n")


def ingest(work: Path) -> None:
    from data_pipelines.ingestion import ingest

    ingest(work / "in", work / "labels.csv", work / "work", units="display", progress=_silent)


def inspect(work: Path) -> None:
    from medres.inspection import inspect as inspected

    inspected(work / "work", work / "inspect.html")


def cache(work: Path) -> None:
    from data_pipelines.cache import ensure_cache

    ensure_cache(work / "work", PRESET, progress=_silent)


def train_start(work: Path) -> None:
    from medres.progress import ProgressReporter
    from medres.training.setup import set_up

    start = set_up(work / "work", "resnet10", None, {"preset": PRESET}, ProgressReporter())
    start.choose_compute(None)


def evaluate(work: Path) -> None:
    from medres.evaluate import evaluate as evaluated

    evaluated(work / "scores.csv").save(work / "report")


STEPS: dict[str, Callable[[Path], None]] = {
    "ingest": ingest,
    "inspect": inspect,
    "cache": cache,
    "train_start": train_start,
    "evaluate": evaluate,
}


def _silent(done: int, total: int) -> None:
    pass


def measure(step: str, work: Path) -> None:
    """Run one step in this process, and print what it cost as JSON."""
    start = time.perf_counter()
    STEPS[step](work)
    own, workers = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    seconds = sum(usage.ru_utime + usage.ru_stime for usage in (own, workers))
    wall = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "wall": wall, "peak": own.ru_maxrss * 1024}))


def table(results: dict[str, dict[int, dict[str, float]]]) -> str:
    """Markdown: milliseconds of the processor per item, and the growth of memory."""
    lines = ["| step | items | processor s | ms per item | peak MB | bytes per further item |"]
    lines.append("|---|---|---|---|---|---|")
    for step, by_size in results.items():
        before: tuple[int, float] | None = None
        for size, cost in by_size.items():
            added = 0.0 if before is None else (cost["peak"] - before[1]) / (size - before[0])
            growth = f"{added:,.0f}" if before else ""
            lines.append(
                f"| {step} | {size:,} | {cost['seconds']:.1f} | {cost['seconds'] / size * 1e3:.2f} "
                f"| {cost['peak'] / 1e6:.0f} | {growth} |"
            )
            before = size, cost["peak"]
    return "\n".join(lines) + "\n"


def plot(results: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """Seconds over items, both in powers of ten: a line of slope 1 is linear growth."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes = Figure(figsize=(7, 4.5), layout="constrained").subplots()
    for step, by_size in results.items():
        name = step.replace("_", " ")
        axes.plot(list(by_size), [cost["seconds"] for cost in by_size.values()], "o-", label=name)
    sizes = sorted({size for by_size in results.values() for size in by_size})
    first = max(by_size[sizes[0]]["seconds"] for by_size in results.values() if sizes[0] in by_size)
    linear = [first * size / sizes[0] for size in sizes]
    axes.plot(sizes, linear, ":", color="gray", label="linear growth")
    axes.set(xscale="log", yscale="log", xlabel="files", ylabel="processor time (s)")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(LogLocator(subs=[]))
    axes.yaxis.set_major_locator(LogLocator(subs=[1, 2, 5]))
    axes.yaxis.set_minor_locator(LogLocator(subs=[]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    axes.grid(alpha=0.3)
    axes.legend()
    axes.figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], Path(options.measure[1]))
        return
    out = options.out or Path(tempfile.mkdtemp(prefix="growth-"))
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[int, dict[str, float]]] = {step: {} for step in options.steps}
    for size in options.sizes:
        with tempfile.TemporaryDirectory(prefix="growth-") as folder:
            files(Path(folder) / "w", size)
            for step in options.steps:
                command = [sys.executable, __file__, "--measure", step, f"{folder}/w"]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                results[step][size] = json.loads(done.stdout.splitlines()[-1])
                (out / "growth.json").write_text(json.dumps(results, indent=1))
                (out / "growth.md").write_text(table(results))
    plot(results, out / "growth.svg")
    print(table(results), f"written to {out}", sep="\n")


if __name__ == "__main__":
    main()
