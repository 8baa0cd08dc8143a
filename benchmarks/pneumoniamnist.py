"""Train ResNet-18 with the small-image stem on PneumoniaMNIST at 28 px: test AUC and accuracy
beside the published figures.

    python benchmarks/pneumoniamnist.py DATA/cxr-pneumonia-28/pneumoniamnist.npz OUT
        [--seeds 3] [--epochs 30] [--width 64]

The split is that of MedMNIST (4708 / 524 / 624), without the training images that also lie in tune
or test, and without copies. A repeated call resumes each seed where an earlier call stopped. The
accuracy is at a threshold of 0.5, as in the publications. The images have no patient IDs, so each
image counts as a patient. Published: MedMNIST v2 .944 / .854; at true size, three seeds (Doerrich
et al.) .950 / .831.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seeds import command, train_seeds

PUBLISHED = {"MedMNIST v2": (0.944, 0.854), "Doerrich et al.": (0.950, 0.831)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("npz", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    work = options.out / "work"
    if not work.exists():
        command(
            "ingest",
            options.npz,
            "--units",
            "display",
            "--leaks",
            "drop",
            "--limit",
            "seconds=600",
            "--out",
            work,
        )
    network = [
        "--model",
        "resnet18",
        "--preset",
        "xray-28",
        "--stem",
        "small",
        "--width",
        options.width,
    ]
    train_seeds(
        work, options.out, options.seeds, [*network, "--epochs", options.epochs], unit="image"
    )
    for name, (auc, accuracy) in PUBLISHED.items():
        print(f"published, {name}: AUC {auc:.3f}, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
