"""Several seeds of one training, each in a process of its own, and what the test split says of
them. Used by the scripts beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from medres.evaluate import evaluate
from medres.evaluate.statistics.intervals import wilson
from medres.inference.scoring import score_split

Z = 1.959964


def command(*arguments: object) -> None:
    """Run `medres` with these arguments, and stop where it fails."""
    subprocess.run([sys.executable, "-m", "medres", *map(str, arguments)], check=True)


def train_seeds(work: Path, out: Path, seeds: int, arguments: list[object], *, unit: str) -> None:
    """Train seeds 0, 1, ... and print a row a seed: test AUC with its interval (patients as
    clusters), accuracy at 0.5 with Wilson's.

    A run that an earlier call finished or began is taken up. Epoch, calibration and thresholds come
    from train and tune alone. With several seeds the last row holds the mean, the standard
    deviation between the seeds, and the sampling error of one seed's AUC.
    """
    rows, errors = [], []
    for seed in range(seeds):
        run = out / f"seed-{seed}"
        command("train", work, *arguments, "--seed", seed, "--out", run)
        scores, _ = score_split(run / "model.keras", work, "test")
        report = json.loads(evaluate(scores, unit=unit).to_json())
        auc = next(iter(report["findings"].values()))["auc"]
        right = int(((scores["score"] >= 0.5) == (scores["label"] == 1)).sum())
        low, high = wilson(right, len(scores), Z)
        rows.append((auc["estimate"], right / len(scores)))
        errors.append((auc["ci_high"] - auc["ci_low"]) / (2 * Z))
        print(
            f"seed {seed}: AUC {auc['estimate']:.4f} ({auc['ci_low']:.4f} to "
            f"{auc['ci_high']:.4f}), accuracy "
            f"{right / len(scores):.4f} ({low:.4f} to {high:.4f})",
            flush=True,
        )
    if seeds == 1:
        print(
            f"one seed: sampling error of the AUC {errors[0]:.4f}; the spread between seeds is "
            f"not known",
            flush=True,
        )
        return
    mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)
    print(
        f"{seeds} seeds: AUC {mean[0]:.4f} (SD between seeds {spread[0]:.4f}, sampling error "
        f"{np.mean(errors):.4f}), "
        f"accuracy {mean[1]:.4f} (SD {spread[1]:.4f})",
        flush=True,
    )
