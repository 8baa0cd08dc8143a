"""Train a detector of blood cells from random weights by the command line of medres, on the
published split of BCCD: average precision and FROC of three classes on the 72 test images.

    python benchmarks/bccd_detector.py DATA/bccd OUT [--epochs 30]

The published train, val and test are medres' train, tune and test: val chooses the epoch and the
thresholds, and no image of it is trained on. Images of 480 x 640 are prepared as 192 x 256. An
interrupted call resumes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

CLASSES = ("RBC", "WBC", "Platelets")
SPLITS = {"train": "train", "tune": "val", "test": "test"}
SETTINGS = """\
task: detection
preset: {kind: rgb, rows: 192, cols: 256}
model: resnet18
width: 24
channels: 64
head_depth: 1
levels: [2, 3, 4, 5]
precision: float32
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", default="30")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "splits.csv").write_text("\n".join(["path,split", *_splits(options.data)]) + "\n")
    (out / "settings.yaml").write_text(SETTINGS)
    if not (out / "work" / "ingest.json").is_file():
        classes = ",".join(f"{name}={name}" for name in CLASSES)
        boxes = ["--boxes", options.data / "Annotations", "--box-classes", classes]
        labels = ["--labels", out / "splits.csv", "--kind", "rgb"]
        _medres("ingest", options.data, *labels, *boxes, "--out", out / "work")
    settings = ["--config", out / "settings.yaml", "--epochs", options.epochs]
    _medres("train", out / "work", *settings, "--out", out / "run")
    model, report = out / "run" / "model.keras", out / "report"
    _medres("evaluate", model, out / "work", "--hit", "iou", "--out", report, "--overwrite")


def _splits(data: Path) -> list[str]:
    folder = data / "ImageSets" / "Main"
    return [
        f"JPEGImages/{name}.jpg,{split}"
        for split, published in SPLITS.items()
        for name in (folder / f"{published}.txt").read_text().split()
    ]


def _medres(*arguments: object) -> None:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "medres", *map(str, arguments)], check=True)
    print(f"medres {arguments[0]}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
