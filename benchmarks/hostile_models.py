"""What it costs to refuse each hostile model file of the tests: kind, code, seconds, MiB, and
whether TensorFlow was needed.

    python benchmarks/hostile_models.py MODEL.keras

MODEL.keras: a small model that medres trained on images of 32 px (the tests' own: resnet10 of
width 8). Linux only: the peak of memory is read from /proc.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from hostile import corpus

import medres
from medres.errors import ArtefactError


def peak_mebibytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main(model: Path) -> None:
    print("| kind | code | seconds | MiB | TensorFlow |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for kind, path, expected in list(corpus(model, Path(folder))):
            Path("/proc/self/clear_refs").write_text("5")
            start, code = time.perf_counter(), "opened"
            try:
                medres.load(path)
            except ArtefactError as error:
                code = error.code
            seconds = time.perf_counter() - start
            needed = "after" if "tensorflow" in sys.modules else "before"
            code += "" if code == expected else f" (expected {expected})"
            print(f"| {kind} | {code} | {seconds:.2f} | {peak_mebibytes():.0f} | {needed} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
