"""Simulate the coverage of the intervals, by number of patients with and without the finding, AUC,
and correlation within patients.

    python benchmarks/coverage.py [--replicates 10000] [--csv coverage.csv] [--quick]

A cell draws patients, each with `images` images of one label, or (mixed) with labels assigned at
random. A score is shift x label + sqrt(icc) u + sqrt(1 - icc) e with standard normal u (patient)
and e (image), so the true AUC is Phi(shift / sqrt(2)). The threshold lies halfway, and the
probability is the true one. Newcombe's interval is gated: every cell in which it covers less than
93 % or more than 99 % is listed at the end with the reason, and the exit code is 1 if one covers
less. The other intervals are only printed. Intervals that depend on the prevalence allow for its
sampling error, which is zero here, so they cover more than their nominal level. All replicates of a
cell are computed at once (`batched.py`), and the first ones must equal the results of the package.
Figures other than the AUC have 2,000 replicates, and those of calibration 100.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from batched import (
    Batch,
    auc_intervals,
    average_precisions,
    briers,
    likelihood_ratios,
    net_benefits,
    patient_weighted,
    predictive,
    proportions,
)
from scipy import integrate, stats

from medres.evaluate.metrics.auc import auc_estimates
from medres.evaluate.metrics.average_precision import average_precision_estimate
from medres.evaluate.metrics.calibration import brier_estimate, calibration_estimates
from medres.evaluate.metrics.decision_curve import net_benefit
from medres.evaluate.metrics.operating_point import OperatingPointContext, rates
from medres.evaluate.metrics.predictive_values import predictive_values
from medres.evaluate.scores.sample import Sample

LEVEL = 0.95
GATE = (0.93, 0.99)
CHECKED = 3
OTHERS = 2000  # minimum replicates of figures other than the AUC
SLOW = 100  # replicates of the figures that the package fits one by one
ELSEWHERE = 0.1  # the stated prevalence
CALIBRATION = {"slope": 1.0, "intercept": 0.0, "in_the_large": 0.0, "oe_ratio": 1.0}
CHUNK = 200_000  # units at once, so that they fit in the processor cache
KINDS = (
    "auc",
    "auc_newcombe",
    "auc_logit",
    "auc_wald",
    "auc_patient_weighted",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "accuracy",
    "lr_positive",
    "lr_negative",
    "ppv_at",
    "npv_at",
    "average_precision",
    "brier",
    "net_benefit",
    "slope",
    "intercept",
    "in_the_large",
    "oe_ratio",
)


@dataclass(frozen=True)
class Cell:
    positive: int
    negative: int
    auc: float
    images: int
    icc: float
    mixed: bool

    @property
    def shift(self) -> float:
        return float(np.sqrt(2.0) * stats.norm.ppf(self.auc))

    @property
    def share(self) -> float:
        return self.positive / (self.positive + self.negative)

    def probability(self, score: Any) -> Any:
        return 1.0 / (
            1.0 + (1.0 / self.share - 1.0) * np.exp(self.shift**2 / 2.0 - self.shift * score)
        )


def cells(quick: bool) -> list[Cell]:
    sizes = [(15, 15), (10, 90), (50, 50), (150, 150)]
    if not quick:
        sizes += [(10, 10), (10, 490), (50, 450), (150, 450)]
    aucs = (0.8, 0.95) if quick else (0.8, 0.9, 0.95, 0.99)
    clusters = [(1, 0.0, False), (3, 0.7, False), (3, 0.7, True)]
    if not quick:
        clusters += [(3, 0.3, False), (3, 0.3, True)]
    return [Cell(m, n, auc, *cluster) for (m, n), auc, cluster in product(sizes, aucs, clusters)]


def batches(cell: Cell, replicates: int, seed: int) -> Iterator[Batch]:
    patients = cell.positive + cell.negative
    units, rng = patients * cell.images, np.random.default_rng(seed)
    at_once = max(1, CHUNK // units)
    for start in range(0, replicates, at_once):
        r = min(at_once, replicates - start)
        label = np.tile(np.repeat(np.arange(patients) < cell.positive, cell.images), (r, 1))
        if cell.mixed:
            rng.permuted(label, axis=1, out=label)
        shared = np.repeat(rng.standard_normal((r, patients)), cell.images, axis=1)
        own = rng.standard_normal((r, units))
        yield Batch(
            label,
            cell.shift * label + np.sqrt(cell.icc) * shared + np.sqrt(1.0 - cell.icc) * own,
            cell.images,
        )


def truths(cell: Cell) -> dict[str, float]:
    rate, share, normal = float(stats.norm.cdf(cell.shift / 2.0)), cell.share, stats.norm
    hit, alarm = share * rate, (1.0 - share) * (1.0 - rate)

    def precision(s: float) -> float:
        positive, negative = share * normal.sf(s - cell.shift), (1.0 - share) * normal.sf(s)
        return normal.pdf(s - cell.shift) * positive / max(positive + negative, 1e-300)

    def squared(s: float) -> float:
        p, density = (
            cell.probability(s),
            (share * normal.pdf(s - cell.shift), (1.0 - share) * normal.pdf(s)),
        )
        return density[0] * (1.0 - p) ** 2 + density[1] * p**2

    ends = {"a": -9.0, "b": cell.shift + 9.0, "limit": 200}
    return (
        dict.fromkeys((k for k in KINDS if k.startswith("auc")), cell.auc)
        | {
            "sensitivity": rate,
            "specificity": rate,
            "accuracy": rate,
            "ppv": hit / (hit + alarm),
            "npv": rate * (1.0 - share) / (rate * (1.0 - share) + (1.0 - rate) * share),
            "lr_positive": rate / (1.0 - rate),
            "lr_negative": (1.0 - rate) / rate,
            "average_precision": float(integrate.quad(precision, **ends)[0]),
            "brier": float(integrate.quad(squared, **ends)[0]),
            "net_benefit": hit - alarm * share / (1.0 - share),
            "ppv_at": ELSEWHERE * rate / (ELSEWHERE * rate + (1.0 - ELSEWHERE) * (1.0 - rate)),
            "npv_at": (1.0 - ELSEWHERE)
            * rate
            / ((1.0 - ELSEWHERE) * rate + ELSEWHERE * (1.0 - rate)),
        }
        | CALIBRATION
    )


def other_intervals(cell: Cell, batch: Batch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    called, everyone = batch.score >= cell.shift / 2.0, np.ones_like(batch.label)
    weighted = {"auc_patient_weighted": patient_weighted(batch)} if cell.images > 1 else {}
    return weighted | {
        "sensitivity": proportions(batch, called, batch.label),
        "specificity": proportions(batch, ~called, ~batch.label),
        "ppv": proportions(batch, batch.label, called),
        "npv": proportions(batch, ~batch.label, ~called),
        "accuracy": proportions(batch, called == batch.label, everyone),
        "lr_positive": likelihood_ratios(batch, called),
        "lr_negative": likelihood_ratios(batch, ~called),
        "ppv_at": predictive(batch, called, batch.label, ELSEWHERE / (1.0 - ELSEWHERE)),
        "npv_at": predictive(batch, ~called, ~batch.label, (1.0 - ELSEWHERE) / ELSEWHERE),
        "average_precision": average_precisions(batch),
        "brier": briers(batch, cell.probability(batch.score)),
        "net_benefit": net_benefits(batch, called, cell.share / (1.0 - cell.share)),
    }


def sample_of(batch: Batch, i: int, score: np.ndarray) -> Sample:
    n = batch.label.shape[1]
    return Sample(
        batch.label[i], score[i], np.arange(n) // batch.images, np.zeros(n, dtype=np.int64)
    )


def check(cell: Cell, batch: Batch, found: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Compute the first replicates with the functions of the package; stop the run if the limits
    differ.
    """
    for i in range(min(CHECKED, len(batch.label))):
        sample, probable = (
            sample_of(batch, i, batch.score),
            sample_of(batch, i, cell.probability(batch.score)),
        )
        called = sample.score >= cell.shift / 2.0
        own = vars(auc_estimates(sample, LEVEL)) | vars(
            rates(sample, called, OperatingPointContext(LEVEL))
        )
        own["ppv_at"], own["npv_at"] = predictive_values(
            called, sample.label, sample.patient, ELSEWHERE, LEVEL
        )
        own["average_precision"] = average_precision_estimate(sample, LEVEL)
        own["brier"] = brier_estimate(probable, LEVEL)
        own["net_benefit"] = net_benefit(
            sample, called, cell.share / (1.0 - cell.share), None, LEVEL
        )
        for kind, (low, high) in found.items():
            expected = [np.nan if v is None else v for v in (own[kind].ci_low, own[kind].ci_high)]
            if not np.allclose([low[i], high[i]], expected, rtol=1e-7, atol=1e-9, equal_nan=True):
                raise SystemExit(
                    f"{kind} at {cell}: {low[i]}, {high[i]} here, {expected} in the package"
                )


def calibration(cell: Cell, batch: Batch, most: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return limits of the fitted figures in the first replicates, by the package."""
    out: dict[str, list[tuple[float, float]]] = {kind: [] for kind in CALIBRATION}
    for i in range(min(most, len(batch.label))):
        own = calibration_estimates(sample_of(batch, i, cell.probability(batch.score)), LEVEL)
        for kind, limits in out.items():
            e = getattr(own, kind)
            limits.append(
                (np.nan, np.nan) if e.ci_low is None or e.ci_high is None else (e.ci_low, e.ci_high)
            )
    return {
        kind: (np.array([a for a, _ in v]), np.array([b for _, b in v])) for kind, v in out.items()
    }


def coverage(
    cell: Cell, replicates: int, seed: int
) -> tuple[dict[str, float], dict[str, float], float]:
    """Return by kind the share of replicates whose interval contains the true value (among those
    with an interval), the share without an interval, and the variance of the AUC that Newcombe's
    method assumes divided by the one that the replicates show.
    """
    truth, auc, assumed = truths(cell), [], []
    held, missing, tried = (dict.fromkeys(KINDS, 0) for _ in range(3))
    for number, batch in enumerate(batches(cell, replicates, seed)):
        found = auc_intervals(batch)
        if tried["sensitivity"] < OTHERS:
            found |= other_intervals(cell, batch)
        if number == 0:
            check(cell, batch, found)
        if tried["slope"] < SLOW:
            found |= calibration(cell, batch, SLOW - tried["slope"])
        for kind, (low, high) in found.items():
            tried[kind] += low.size
            missing[kind] += int(np.isnan(low).sum())
            held[kind] += int(((low <= truth[kind]) & (truth[kind] <= high)).sum())
        auc.append(batch.auc.auc)
        assumed.append(batch.auc.assumed())
    ratio = float(np.mean(np.concatenate(assumed)) / np.var(np.concatenate(auc)))
    kinds = [k for k in KINDS if tried[k]]
    shares = {k: held[k] / max(tried[k] - missing[k], 1) for k in kinds}
    return shares, {k: missing[k] / tried[k] for k in kinds}, ratio


def reason(share: float, ratio: float) -> str:
    if share > GATE[1]:
        return (
            f"too wide: the variance that method 5 assumes is {ratio:.1f} times that of these "
            f"normal scores"
        )
    return "too narrow: the design effect is estimated from few patients"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicates", type=int, default=10_000)
    parser.add_argument("--csv", type=Path, help="also write the table to this file")
    parser.add_argument("--quick", action="store_true", help="run an eighth of the cells")
    given = parser.parse_args()
    rows, outside = [], []
    head = f"{'n+':>4} {'n-':>4} {'AUC':>5} {'images':>6} {'icc':>4} {'mixed':>5} "
    print(head + " ".join(f"{name.removeprefix('auc_')[:9]:>9}" for name in KINDS))
    for seed, cell in enumerate(cells(given.quick)):
        held, missing, ratio = coverage(cell, given.replicates, seed)
        rows.append(
            {
                "positive": cell.positive,
                "negative": cell.negative,
                "auc": cell.auc,
                "images": cell.images,
                "icc": cell.icc,
                "mixed": cell.mixed,
            }
            | {f"covers:{k}": v for k, v in held.items()}
            | {f"none:{k}": v for k, v in missing.items()}
        )
        texts = [
            f"{100 * held[k]:.1f}" + ("*" if missing[k] >= 0.0005 else "") if k in held else ""
            for k in KINDS
        ]
        line = (
            f"{cell.positive:>4} {cell.negative:>4} {cell.auc:>5} {cell.images:>6} "
            f"{cell.icc:>4} {cell.mixed!s:>5} "
        )
        print(line + " ".join(f"{text:>9}" for text in texts), flush=True)
        if not GATE[0] <= held["auc_newcombe"] <= GATE[1]:
            outside.append((cell, held["auc_newcombe"], ratio))
    print(
        "*: some replicates have no such interval (the package gives the reason); they are left "
        "out of the share."
    )
    if given.csv:
        with given.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
    for cell, share, ratio in outside:
        print(
            f"outside {GATE[0]:.0%}-{GATE[1]:.0%}: Newcombe {share:.2%} at {cell}: "
            f"{reason(share, ratio)}"
        )
    return 1 if any(share < GATE[0] for _, share, _ in outside) else 0


if __name__ == "__main__":
    sys.exit(main())
