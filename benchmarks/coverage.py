"""Simulated coverage of the intervals, by patients with and without the finding, AUC, and correlation inside patients.

    python benchmarks/coverage.py [--replicates 2000] [--csv coverage.csv] [--quick]

A cell draws patients, each with `images` images of one label, or (mixed) of labels dealt at random. A score is
shift x label + sqrt(icc) u + sqrt(1 - icc) e with standard normal u (patient) and e (image), so the true AUC is
Phi(shift / sqrt(2)). The Newcombe interval is gated: a cell where it covers under 93 % or over 99 % (beyond three
simulation errors) is listed, and the exit code is 1.
The others (Wald, logit, and Wilson for the sensitivity and specificity at a fixed threshold) are printed beside it.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from scipy import stats

from medres.evaluate.auc import auc_estimates
from medres.evaluate.estimates import Estimate
from medres.evaluate.intervals import proportion
from medres.evaluate.roc import Sample

LEVEL = 0.95
GATE = (0.93, 0.99)
INTERVALS = ("auc", "auc_newcombe", "auc_logit", "auc_wald", "sensitivity", "specificity")


@dataclass(frozen=True)
class Cell:
    positive: int
    negative: int
    auc: float
    images: int
    icc: float
    mixed: bool


def cells(quick: bool) -> list[Cell]:
    sizes = [(15, 15), (10, 90), (50, 50), (150, 150)]
    if not quick:
        sizes += [(10, 10), (10, 490), (50, 450), (150, 850)]
    aucs = (0.8, 0.95) if quick else (0.7, 0.8, 0.9, 0.95, 0.99)
    clusters = [(1, 0.0, False), (3, 0.7, False), (3, 0.7, True)]
    if not quick:
        clusters += [(3, 0.3, False), (3, 0.3, True)]
    return [Cell(m, n, auc, *cluster) for (m, n), auc, cluster in product(sizes, aucs, clusters)]


def draw(cell: Cell, rng: np.random.Generator) -> Sample:
    patients = cell.positive + cell.negative
    label = np.repeat(np.arange(patients) < cell.positive, cell.images)
    if cell.mixed:
        label = rng.permutation(label)
    patient = np.repeat(np.arange(patients), cell.images)
    shift = np.sqrt(2.0) * stats.norm.ppf(cell.auc)
    shared = np.repeat(rng.normal(size=patients), cell.images)
    score = shift * label + np.sqrt(cell.icc) * shared + np.sqrt(1.0 - cell.icc) * rng.normal(size=label.size)
    return Sample(label, score, patient, np.zeros(label.size, dtype=np.int64))


def coverage(cell: Cell, replicates: int, seed: int) -> dict[str, tuple[float, float]]:
    """Share of replicates whose interval holds the truth, and share without an interval, for each kind."""
    rng = np.random.default_rng(seed)
    shift = np.sqrt(2.0) * stats.norm.ppf(cell.auc)
    threshold = shift / 2.0
    rate = float(stats.norm.cdf(shift / 2.0))
    truth = dict.fromkeys(INTERVALS, cell.auc) | {"sensitivity": rate, "specificity": rate}
    held, missing = dict.fromkeys(INTERVALS, 0), dict.fromkeys(INTERVALS, 0)
    for _ in range(replicates):
        sample = draw(cell, rng)
        found: dict[str, Estimate] = auc_estimates(sample, LEVEL)
        called = sample.score >= threshold
        found["sensitivity"] = proportion(called[sample.label], sample.patient[sample.label], LEVEL)
        found["specificity"] = proportion(~called[~sample.label], sample.patient[~sample.label], LEVEL)
        for name in INTERVALS:
            e = found[name]
            if e.ci_low is None or e.ci_high is None:
                missing[name] += 1
            else:
                held[name] += e.ci_low <= truth[name] <= e.ci_high
    return {name: (held[name] / replicates, missing[name] / replicates) for name in INTERVALS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=10_000)
    parser.add_argument("--csv", type=Path, help="also write the table here")
    parser.add_argument("--quick", action="store_true", help="a seventh of the cells")
    given = parser.parse_args()
    rows, outside = [], []
    print(
        f"{'n+':>4} {'n-':>4} {'AUC':>5} {'images':>6} {'icc':>4} {'mixed':>5} "
        + " ".join(f"{name:>13}" for name in INTERVALS)
    )
    for seed, cell in enumerate(cells(given.quick)):
        result = coverage(cell, given.replicates, seed)
        rows.append(vars(cell) | {name: share for name, (share, _) in result.items()})
        texts = [f"{100 * share:6.1f}" + (f" ({100 * none:.0f}% -)" if none else "") for share, none in result.values()]
        head = f"{cell.positive:>4} {cell.negative:>4} {cell.auc:>5} {cell.images:>6} {cell.icc:>4} {cell.mixed!s:>5} "
        print(head + " ".join(f"{text:>13}" for text in texts), flush=True)
        share, slack = result["auc_newcombe"][0], 3.0 * np.sqrt(0.05 * 0.95 / given.replicates)
        if not GATE[0] - slack <= share <= GATE[1] + slack:
            outside.append((cell, share))
    if given.csv:
        with given.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    for cell, share in outside:
        print(f"outside {GATE[0]:.0%}-{GATE[1]:.0%}: Newcombe {share:.1%} at {cell}")
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
