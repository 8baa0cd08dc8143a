"""Write the labels CSV of the Kermany chest radiographs (CC BY 4.0): path, patient, split,
pneumonia.

    python benchmarks/kermany_labels.py FOLDER labels.csv
    medres wrap FOLDER WRAPPED --labels labels.csv
    medres ingest WRAPPED --labels WRAPPED/labels.csv --out WORK

FOLDER holds train/ and test/, each with NORMAL/ and PNEUMONIA/. A child is (number, bacteria or
virus) for the files personN_..., and (number, NORMAL2 or not) for the others; the number alone does
not identify a child. The split is the official one; the tuning split is drawn from train, by
patient, at ingest.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

_PNEUMONIA = re.compile(r"person(\d+)_(bacteria|virus)_")
_NORMAL = re.compile(r"(NORMAL2-)?IM-(\d+)-")


def patient_key(name: str) -> str:
    """Return the child of a file name. Raises ValueError if the name follows neither pattern."""
    if found := _PNEUMONIA.match(name):
        return f"{found[2]}-{found[1]}"
    if found := _NORMAL.match(name):
        return f"{'normal2' if found[1] else 'normal'}-{found[2]}"
    raise ValueError(f"file name with an unknown pattern: {name}")


def rows(folder: Path) -> list[dict[str, object]]:
    """Return one row per image, sorted by path."""
    return [
        {
            "path": path.relative_to(folder).as_posix(),
            "patient": patient_key(path.name),
            "split": path.parts[-3],
            "pneumonia": int(path.parts[-2] == "PNEUMONIA"),
        }
        for path in sorted(folder.glob("*/*/*.jpeg"))
    ]


def write(folder: Path, out: Path) -> None:
    """Write the table and print its counts. Stops if the folder holds no such images."""
    table = rows(folder)
    if not table:
        sys.exit(f"{folder} holds no train/CLASS/*.jpeg or test/CLASS/*.jpeg")
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    for split in ("train", "test"):
        part = [row for row in table if row["split"] == split]
        positive = sum(int(str(row["pneumonia"])) for row in part)
        patients = len({row["patient"] for row in part})
        print(f"{split}: {len(part)} images, {positive} with pneumonia, {patients} patients")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/kermany_labels.py FOLDER labels.csv")
    write(Path(sys.argv[1]), Path(sys.argv[2]))
