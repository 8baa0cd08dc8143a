"""Cross-validate by patient on the ChestX-ray14 sample: the six findings with at least 20 positive
patients, with and without missing labels.

    python benchmarks/nih.py DATA/cxr-nih1000 OUT [--folds 5] [--seeds 1] [--epochs 20]
        [--missing 0.3]

The sample has 1,000 images of 64 px. Its own split shares patients between its parts, so it is not
used; the folds are whole patients. --missing hides that share of all labels at random, as a test of
the masked loss; a hidden label is not evaluated either. The script prints the AUC of each finding,
averaged within the folds, with its interval on patient clusters (first seed), then the mean over
findings by seed. A repeated call resumes an interrupted one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from seeds import command

from medres.evaluate import evaluate

LEAST = 20  # patients with a finding


def labels_of(data: Path, missing: float, seed: int) -> tuple[pd.DataFrame, list[str]]:
    """Return the labels CSV (split: always train) and the findings that enough patients have."""
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
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--missing", type=float, default=0.0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table, findings = labels_of(options.data, options.missing, 0)
    labels, work, folds = options.out / "labels.csv", options.out / "work", options.out / "folds"
    table.to_csv(labels, index=False)
    if not work.exists():
        chosen = [part for name in findings for part in ("--finding", name)]
        command(
            "ingest", options.data, "--labels", labels, *chosen, "--units", "display", "--out", work
        )
    settings = [
        "--preset",
        "xray-64",
        "--stem",
        "imagenet",
        "--recipe",
        "small",
        "--epochs",
        options.epochs,
    ]
    command(
        "train", work, *settings, "--folds", options.folds, "--seeds", options.seeds, "--out", folds
    )
    scores = pd.read_csv(folds / "scores.csv", dtype={"image": str, "patient": str, "study": str})
    first = scores[scores["seed"] == scores["seed"].min()].drop(columns="seed")
    report = json.loads(evaluate(first, unit="image").to_json())
    for name, found in report["findings"].items():
        auc, patients = found["auc"], table.loc[table[name] == 1, "patient"].nunique()
        print(
            f"{name}: AUC {auc['estimate']:.3f} ({auc['ci_low']:.3f} to {auc['ci_high']:.3f}), "
            f"{patients} patients have it"
        )


if __name__ == "__main__":
    main()
