"""Processor seconds and memory of a complete report of a large table: one finding, one subgroup.

    python benchmarks/large_table.py [--rows 1000000] [--images-per-patient 1]

The table is written to a temporary CSV file and evaluated by a process of its own, whose seconds
(of all threads, the start of Python included) and greatest memory are printed. The times vary with
what else the machine does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CHUNK = 500_000
CHILD = """
import resource, sys, time
from medres.evaluate import evaluate
report = evaluate(sys.argv[1], subgroups=["sex"])
report.save(sys.argv[2])
usage = resource.getrusage(resource.RUSAGE_SELF)
auc = report.report.findings["positive"].auc.estimate
print(f"{usage.ru_utime + usage.ru_stime:.1f} s, {usage.ru_maxrss / 1024:.0f} MB, AUC {auc:.4f}")
"""


def write_table(path: Path, rows: int, images_per_patient: int) -> None:
    """Write a tenth of positives, with probabilities as scores."""
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        file.write("image,patient,label,score,sex\n")
        for start in range(0, rows, CHUNK):
            number = np.arange(start, min(rows, start + CHUNK))
            label = (rng.random(number.size) < 0.1).astype(int)
            score = 1 / (1 + np.exp(2.7 - rng.normal(size=number.size) - label))
            patient = number // images_per_patient
            file.writelines(
                f"i{i:08d},p{p:08d},{y},{s!r},{'FM'[p % 2]}\n"
                for i, p, y, s in zip(
                    number.tolist(), patient.tolist(), label.tolist(), score.tolist(), strict=True
                )
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--images-per-patient", type=int, default=1)
    arguments = parser.parse_args()
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder, "scores.csv")
            write_table(table, rows, arguments.images_per_patient)
            command = [sys.executable, "-c", CHILD, str(table), str(Path(folder, "report"))]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"{rows:,} rows: {result.stdout.strip()}")


if __name__ == "__main__":
    main()
