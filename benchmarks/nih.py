"""ChestX-ray14 sample, six findings that reach 20 positive patients: grouped cross-validation, with and without missing labels.

    python benchmarks/nih.py DATA/cxr-nih1000 OUT [--folds 5] [--seeds 1] [--epochs 30] [--missing 0.3]

1,000 images of 64 px. The supplied split shares patients between its parts, so it is not used; the folds are whole patients.
--missing hides that share of all labels at random, which the masked loss has to bear; a hidden label is not measured either.
Prints the out-of-fold AUC, its sampling error and its spread between seeds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

LEAST = 20  # patients with a finding


def labels_of(data: Path, missing: float, seed: int) -> tuple[pd.DataFrame, list[str]]:
    """The labels CSV (split: train throughout), and the findings that enough patients have."""
    given = pd.read_csv(data / "labels.csv", dtype=str)
    values = given["finding_labels"].str.get_dummies("|").drop(columns="No Finding")
    patients = values.groupby(given["patient_id"]).max().sum()
    findings = [str(name) for name in values if patients[name] >= LEAST]
    hidden = np.random.default_rng(seed).random((len(given), len(findings))) < missing
    kept = given[["path", "age", "sex", "view"]].assign(patient=given["patient_id"], split="train")
    return kept.join(values[findings].astype(float).mask(hidden)), findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--missing", type=float, default=0.0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table, findings = labels_of(options.data, options.missing, 0)
    table.to_csv(options.out / "labels.csv", index=False)
    medres, work = [sys.executable, "-m", "medres"], options.out / "work"
    if not work.exists():
        chosen = [part for name in findings for part in ("--finding", name)]
        arguments = ["ingest", str(options.data), "--labels", str(options.out / "labels.csv"), *chosen]
        subprocess.run([*medres, *arguments, "--units", "display", "--out", str(work)], check=True)
    arguments = ["train", str(work), "--preset", "xray-64", "--recipe", "small", "--epochs", str(options.epochs)]
    arguments += ["--folds", str(options.folds), "--seeds", str(options.seeds), "--out", str(options.out / "folds")]
    raise SystemExit(subprocess.run([*medres, *arguments], check=False).returncode)


if __name__ == "__main__":
    main()
