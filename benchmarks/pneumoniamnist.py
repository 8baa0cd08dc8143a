"""PneumoniaMNIST at 28 px, ResNet-18 with the small-image stem: test AUC and accuracy beside the published figures.

    python benchmarks/pneumoniamnist.py DATA/cxr-pneumonia-28/pneumoniamnist.npz OUT [--seeds 3] [--epochs 30] [--width 64]

MedMNIST's own split (4708 / 524 / 624). Each seed trains in a process of its own and goes on where an earlier call stopped; epoch,
calibration and threshold (0.5 for the accuracy, as published) come from train and tune alone. The images have no patient ids, so
each counts as a patient. Prints one row a seed with its interval, and the spread between seeds beside the sampling error.
Published: MedMNIST v2 .944 / .854; at true size, three seeds (Doerrich et al.) .950 / .831.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from medres.evaluate import evaluate
from medres.evaluate.intervals import wilson
from medres.scoring import score_split

PUBLISHED = {"MedMNIST v2": (0.944, 0.854), "Doerrich et al.": (0.950, 0.831)}


def command(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "medres", *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("npz", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another setting of medres train"
    )
    options = parser.parse_args()
    work = options.out / "work"
    if not work.exists():
        command("ingest", options.npz, "--units", "display", "--leaks", "drop", "--limit", "seconds=600", "--out", work)
    rows = []
    for seed in range(options.seeds):
        run = options.out / f"seed-{seed}"
        further = [part for text in options.set for part in ("--set", text)]
        command(
            "train", work, "--model", "resnet18", "--preset", "xray-28", "--stem", "small", "--width", options.width,
            "--epochs", options.epochs, "--seed", seed, "--out", run, *further,
        )  # fmt: skip
        scores, _ = score_split(run / "model.keras", work, "test")
        report = json.loads(evaluate(scores, unit="image").to_json())
        auc = next(iter(report["findings"].values()))["auc"]
        right = ((scores["score"] >= 0.5) == (scores["label"] == 1)).sum()
        low, high = wilson(int(right), len(scores), 1.959964)
        rows.append((auc["estimate"], right / len(scores)))
        print(
            f"seed {seed}: AUC {auc['estimate']:.4f} ({auc['ci_low']:.4f} to {auc['ci_high']:.4f}), accuracy "
            f"{right / len(scores):.4f} ({low:.4f} to {high:.4f})",
            flush=True,
        )
    mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1) if len(rows) > 1 else (float("nan"),) * 2
    print(f"mean over seeds: AUC {mean[0]:.4f} (SD {spread[0]:.4f}), accuracy {mean[1]:.4f} (SD {spread[1]:.4f})")
    for name, (auc, accuracy) in PUBLISHED.items():
        print(f"published, {name}: AUC {auc:.3f}, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
