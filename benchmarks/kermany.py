"""Train ResNet-18 from scratch on Kermany's chest radiographs (pneumonia or not): the official
split by child, and the test AUC with its interval.

    python benchmarks/kermany.py DATA/cxr-pneumonia OUT [--seeds 1] [--epochs 12]
        [--preset xray-128]

The 5,840 JPEG images are first wrapped as DICOM (derived, lossy, without spacing; they are not
native radiographs). The tuning split is drawn from train, by child. A repeated call resumes each
seed where an earlier call stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kermany_labels import write
from seeds import command, train_seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--preset", default="xray-128")
    options = parser.parse_args()
    dicom, work = options.out / "dicom", options.out / "work"
    options.out.mkdir(parents=True, exist_ok=True)
    if not dicom.exists():
        write(options.data, options.out / "labels.csv")
        command(
            "wrap",
            options.data,
            "--labels",
            options.out / "labels.csv",
            "--body-part",
            "CHEST",
            "--out",
            dicom,
        )
    if not work.exists():
        command("ingest", dicom, "--labels", dicom / "labels.csv", "--out", work)
    settings = ["--model", "resnet18", "--preset", options.preset, "--epochs", options.epochs]
    train_seeds(work, options.out, options.seeds, settings, unit="image")


if __name__ == "__main__":
    main()
