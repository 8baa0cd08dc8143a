"""Simulate the coverage of the intervals, by number of patients with and without the finding, AUC,
and correlation within patients.

    python benchmarks/coverage.py [--replicates 10000] [--csv coverage.csv] [--quick]

A cell draws patients, each with `images` images of one label, or (mixed) with labels assigned at
random. In unequal cells one patient has `images` images and the others one (giant: of a class, or
of either), or the patient of rank r of a class has images / r (zipf). A score is shift x label +
sqrt(icc) u + sqrt(1 - icc) e with standard normal u (patient) and e (image), so the true AUC of two
patients is Phi(shift / sqrt(2)), and that of two images of one patient, where labels are mixed,
Phi(shift / sqrt(2 (1 - icc))); a cell's true value is their mean over the pairs, and stands in the
table. The threshold lies halfway, and the probability is the true one. Newcombe's interval is
gated: every cell in which it covers less than 93 % or more than 99 % is listed at the end with the
reason, and the exit code is 1 if one covers less. So is it if, in an unequal cell with at least 10
effective patients in each class, the lower Monte Carlo bound of the coverage is under 93 % for
either AUC or under 90 % for sensitivity or specificity. The other intervals are only printed.
Intervals that depend on the prevalence allow for its sampling error, which is zero here, so they
cover more than their nominal level. All replicates of a cell are computed at once (`batched.py`),
and the first ones must equal the results of the package. Figures other than the AUC have 4,000
replicates, and those of calibration 100.
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
    patient_weights,
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
from medres.evaluate.statistics.clusters import FEW_EFFECTIVE

LEVEL = 0.95
GATE = (0.93, 0.99)
UNEQUAL_GATES = {"auc": 0.93, "auc_patient_weighted": 0.93, "sensitivity": 0.9, "specificity": 0.9}
CHECKED = 3
OTHERS = 4000  # minimum replicates of figures other than the AUC
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
    shape: str = "equal"

    @property
    def sizes(self) -> np.ndarray:
        """Images per patient, those with the finding first."""
        out = np.ones(self.positive + self.negative, dtype=np.int64)
        if self.shape == "giant":
            out[0] = self.images
        elif self.shape == "giants":
            out[[0, self.positive]] = self.images
        elif self.shape == "zipf":
            rank = np.append(np.arange(self.positive), np.arange(self.negative)) + 1
            out = np.maximum(1, np.round(self.images / rank)).astype(np.int64)
        else:
            out *= self.images
        return out

    @property
    def clustered(self) -> bool:
        return self.images > 1

    def pooled(self, within: float) -> float:
        """The true AUC if this share of the pairs is of images of one patient."""
        inside = float(stats.norm.cdf(self.shift / np.sqrt(2.0 * (1.0 - self.icc))))
        return (1.0 - within) * self.auc + within * inside

    @property
    def shift(self) -> float:
        return float(np.sqrt(2.0) * stats.norm.ppf(self.auc))

    @property
    def share(self) -> float:
        """Of the images, those with the finding."""
        return float(self.sizes[: self.positive].sum() / self.sizes.sum())

    @property
    def within(self) -> float:
        """The share of the pairs of images that is of one patient, if labels are mixed."""
        sizes = self.sizes.astype(float)
        n = float(sizes.sum())
        return float((sizes * (sizes - 1)).sum() / (n * (n - 1))) if self.mixed else 0.0

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
    equal = [Cell(m, n, auc, *cluster) for (m, n), auc, cluster in product(sizes, aucs, clusters)]
    return equal + unequal_cells(quick)


def unequal_cells(quick: bool) -> list[Cell]:
    designs = [
        (30, 30, 10, False, "giant"),
        (10, 10, 40, False, "giant"),  # 1.5 effective patients
        (100, 400, 18, False, "giant"),
        (40, 40, 12, False, "giants"),
        (100, 100, 20, False, "zipf"),
        (25, 40, 12, True, "giant"),
        (30, 50, 20, True, "zipf"),
    ]
    if not quick:
        designs += [
            (15, 15, 4, False, "giant"),
            (15, 60, 5, False, "giants"),
            (40, 40, 10, False, "zipf"),
            (20, 20, 60, False, "zipf"),  # few effective patients
            (300, 300, 60, False, "zipf"),
            (25, 55, 6, True, "zipf"),
        ]
    aucs, iccs = ((0.8, 0.95), (0.7,)) if quick else ((0.8, 0.9, 0.95), (0.3, 0.7))
    return [
        Cell(m, n, auc, images, icc, mixed, shape)
        for (m, n, images, mixed, shape), auc, icc in product(designs, aucs, iccs)
    ]


def batches(cell: Cell, replicates: int, seed: int) -> Iterator[Batch]:
    patients = cell.positive + cell.negative
    sizes = cell.sizes
    units, rng = int(sizes.sum()), np.random.default_rng(seed)
    at_once = max(1, CHUNK // units)
    for start in range(0, replicates, at_once):
        r = min(at_once, replicates - start)
        label = np.tile(np.repeat(np.arange(patients) < cell.positive, sizes), (r, 1))
        if cell.mixed:
            rng.permuted(label, axis=1, out=label)
        shared = np.repeat(rng.standard_normal((r, patients)), sizes, axis=1)
        own = rng.standard_normal((r, units))
        yield Batch(
            label,
            cell.shift * label + np.sqrt(cell.icc) * shared + np.sqrt(1.0 - cell.icc) * own,
            cell.images if cell.shape == "equal" else 1,
            None if cell.shape == "equal" else sizes,
        )


def same_patient(cell: Cell) -> dict[str, float]:
    """Return by kind of AUC the share of the pairs that is of images of one patient."""
    if not cell.mixed:
        return {"auc": 0.0, "auc_patient_weighted": 0.0}
    shares = []
    for batch in batches(cell, 2000, 0):
        weight = patient_weights(batch)
        fits = [np.where(of, weight, 0.0) for of in (batch.label, ~batch.label)]
        a, b = (batch.by_patient(w / w.sum(axis=1, keepdims=True)) for w in fits)
        shares.append((a * b).sum(axis=1))
    return {
        "auc": cell.within,
        "auc_patient_weighted": float(np.mean(np.concatenate(shares))),
    }


def truths(cell: Cell) -> dict[str, float]:
    rate, share, normal = float(stats.norm.cdf(cell.shift / 2.0)), cell.share, stats.norm
    hit, alarm = share * rate, (1.0 - share) * (1.0 - rate)

    def above(s: float, mean: float) -> float:
        """The share of images that score higher than a positive one with the score s."""
        drawn, spread = cell.icc * (s - cell.shift), np.sqrt(1.0 - cell.icc**2)
        own = normal.sf((s - mean - drawn) / spread)
        return float((1.0 - cell.within) * normal.sf(s - mean) + cell.within * own)

    def precision(s: float) -> float:
        positive, negative = share * above(s, cell.shift), (1.0 - share) * above(s, 0.0)
        return normal.pdf(s - cell.shift) * positive / max(positive + negative, 1e-300)

    def squared(s: float) -> float:
        p, density = (
            cell.probability(s),
            (share * normal.pdf(s - cell.shift), (1.0 - share) * normal.pdf(s)),
        )
        return density[0] * (1.0 - p) ** 2 + density[1] * p**2

    within = same_patient(cell)
    aucs = {
        k: cell.pooled(within["auc_patient_weighted" if k == "auc_patient_weighted" else "auc"])
        for k in KINDS
        if k.startswith("auc")
    }
    ends = {"a": -9.0, "b": cell.shift + 9.0, "limit": 200}
    return (
        aucs
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
    weighted = {"auc_patient_weighted": patient_weighted(batch)} if cell.clustered else {}
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
        batch.label[i],
        score[i],
        np.repeat(np.arange(batch.by_patient(batch.label[:1]).shape[1]), batch.repeat),
        np.zeros(n, dtype=np.int64),
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
) -> tuple[dict[str, float], dict[str, float], float, float]:
    """Return by kind the share of replicates whose interval contains the true value (among those
    with an interval), the share without an interval, and the variance of the AUC that Newcombe's
    method assumes divided by the one that the replicates show, and Kish's effective number of
    patients of the smaller class.
    """
    truth, auc, assumed, kish = truths(cell), [], [], []
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
        kish.append(np.minimum(*batch.kish))
    ratio = float(np.mean(np.concatenate(assumed)) / np.var(np.concatenate(auc)))
    kinds = [k for k in KINDS if tried[k]]
    shares = {k: held[k] / max(tried[k] - missing[k], 1) for k in kinds}
    none = {k: missing[k] / tried[k] for k in kinds}
    return shares, none, ratio, float(np.mean(np.concatenate(kish)))


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
    rows, outside, failed = [], [], []
    head = f"{'n+':>4} {'n-':>4} {'AUC':>5} {'images':>6} {'icc':>4} {'mixed':>5} "
    head += f"{'shape':>6} {'kish':>5} {'true':>5} "
    print(head + " ".join(f"{name.removeprefix('auc_')[:9]:>9}" for name in KINDS))
    for seed, cell in enumerate(cells(given.quick)):
        held, missing, ratio, kish = coverage(cell, given.replicates, seed)
        true = truths(cell)["auc"]
        rows.append(
            {
                "positive": cell.positive,
                "negative": cell.negative,
                "auc": cell.auc,
                "images": cell.images,
                "icc": cell.icc,
                "mixed": cell.mixed,
                "shape": cell.shape,
                "effective_patients": kish,
                "true_auc": true,
            }
            | {f"covers:{k}": v for k, v in held.items()}
            | {f"none:{k}": v for k, v in missing.items()}
        )
        texts = [
            "none"
            if missing.get(k) == 1.0
            else f"{100 * held[k]:.1f}" + ("*" if missing[k] >= 0.0005 else "")
            if k in held
            else ""
            for k in KINDS
        ]
        line = (
            f"{cell.positive:>4} {cell.negative:>4} {cell.auc:>5} {cell.images:>6} "
            f"{cell.icc:>4} {cell.mixed!s:>5} {cell.shape:>6} {kish:>5.1f} {true:>5.3f} "
        )
        print(line + " ".join(f"{text:>9}" for text in texts), flush=True)
        if not GATE[0] <= held["auc_newcombe"] <= GATE[1]:
            outside.append((cell, held["auc_newcombe"], ratio))
        if cell.shape != "equal" and kish >= FEW_EFFECTIVE:
            failed += unequal_failures(cell, held, missing, given.replicates)
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
    for text in failed:
        print(text)
    low = [cell for cell, share, _ in outside if share < GATE[0] and cell.shape == "equal"]
    return 1 if failed or low else 0


def unequal_failures(
    cell: Cell, held: dict[str, float], missing: dict[str, float], replicates: int
) -> list[str]:
    """Return what covers too little in an unequal cell, by its lower Monte Carlo bound (95 %)."""
    out = []
    for kind, gate in UNEQUAL_GATES.items():
        tried = replicates if kind.startswith("auc") and kind != "auc_patient_weighted" else OTHERS
        draws = max(1.0, min(tried, replicates) * (1.0 - missing[kind]))
        low = held[kind] - 1.645 * np.sqrt(held[kind] * (1.0 - held[kind]) / draws)
        if low < gate:
            out.append(f"{kind} covers {held[kind]:.2%} (at least {low:.2%}) at {cell}")
    return out


if __name__ == "__main__":
    sys.exit(main())
