"""Detect contrast agent in CT, by patient: the image model and a baseline that sees metadata only.

    python benchmarks/ct_contrast.py DATA/ct-contrast OUT [--folds 5] [--epochs 30]

The data are 100 slices of 54 patients (TCGA-LUAD through TCIA, CC BY 3.0). This is only a check of
the pipeline: manufacturer and body part differ between the classes, so a model can be right for the
wrong reason. The baseline shows how far metadata alone go. Cross-validation is by patient: one fold
tests, the next one tunes, the others train. The script writes OUT/image.csv and OUT/metadata.csv
(out-of-fold scores with their fold) and the report that compares them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import medres
from data_pipelines import ingest
from data_pipelines.splits.stratified import group_folds
from medres.evaluate.__main__ import main as evaluate

FINDING = "contrast"


def labels_of(data: Path) -> pd.DataFrame:
    overview = pd.read_csv(data / "overview.csv")
    return pd.DataFrame({"path": overview["dicom_name"], FINDING: overview["Contrast"].astype(int)})


def fold_labels(table: pd.DataFrame, folds: np.ndarray, test: int, count: int) -> pd.DataFrame:
    """Return the labels CSV of one fold, with its split column."""
    split = np.where(folds == test, "test", np.where(folds == (test + 1) % count, "tune", "train"))
    return pd.DataFrame(
        {"path": table["path"], FINDING: table[f"label:{FINDING}"].astype(int), "split": split}
    )


def metadata_scores(table: pd.DataFrame) -> np.ndarray:
    """Return probabilities for the test rows from manufacturer, body part and age, fitted on the
    other rows.
    """
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["manufacturer", "model", "body_part"]),
        (StandardScaler(), ["age"]),
    )
    model = make_pipeline(columns, LogisticRegression())
    table = table.assign(age=table["age"].fillna(table["age"].median()))
    test = table["split"] == "test"
    model.fit(table[~test], table.loc[~test, f"label:{FINDING}"])
    return model.predict_proba(table[test])[:, 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    labels = options.out / "labels.csv"
    labels_of(options.data).to_csv(labels, index=False)
    whole = ingest(options.data, labels, None, seed=options.seed)
    table = whole.table
    print(
        f"{len(table)} slices of {table['patient'].nunique()} patients; {whole.summary['reasons']}"
    )
    folds = group_folds(table, options.folds, options.seed)
    image, metadata = [], []
    for test in range(options.folds):
        folder = options.out / f"fold{test}"
        folder.mkdir()
        fold_labels(table, folds, test, options.folds).to_csv(folder / "labels.csv", index=False)
        manifest = ingest(options.data, folder / "labels.csv", folder / "work", seed=options.seed)
        run = medres.train(
            folder / "work",
            model="resnet18",
            preset="ct-128",
            width=32,
            windows=["mediastinum"],
            batch_size=16,
            epochs=options.epochs,
            seed=options.seed,
            out=folder / "run",
        )
        scores = medres.score(run.artefact, folder / "work", "test").table
        image.append(scores.assign(fold=test))
        rows = manifest.table[manifest.table["split"] == "test"]
        baseline = rows[["image", "patient"]].assign(
            label=rows[f"label:{FINDING}"], score=metadata_scores(manifest.table), fold=test
        )
        metadata.append(baseline)
    pd.concat(image).to_csv(options.out / "image.csv", index=False)
    pd.concat(metadata).to_csv(options.out / "metadata.csv", index=False)
    arguments = [
        "--scores",
        str(options.out / "image.csv"),
        "--compare",
        str(options.out / "metadata.csv"),
    ]
    raise SystemExit(evaluate([*arguments, "--out", str(options.out / "report")]))


if __name__ == "__main__":
    main()
