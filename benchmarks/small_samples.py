"""Simulate what has few patients: the coverage of intervals from the bootstrap, and the size of the
tests of several AUCs.

    python benchmarks/small_samples.py [--replicates 1000] [--bootstraps 400]

One image per patient, normal scores. Intervals: partial AUC (McClish) over specificity and over
sensitivity .8 to 1, sensitivity at specificity .9 and the reverse, and sensitivity and specificity
at Youden's point less the optimism, each against the true value (for Youden's point: of the
threshold that was chosen, and of the best one). `before` is the percentile interval. Tests: the
share of equal models (three, with correlated scores) that the global test rejects at 5 %, by F and
by chi-square; and of equal subgroups, by permutation and by Wald's test, with unequal case mix, and
with other scores (shifted, or on another scale) in the last level.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
from scipy import integrate, stats

from medres.evaluate.analyses import level_test
from medres.evaluate.analyses.paired_rates import global_test
from medres.evaluate.metrics import optimism, partial_auc
from medres.evaluate.metrics.partial_auc import standardised
from medres.evaluate.metrics.thresholds import youden_index
from medres.evaluate.scores.sample import Sample, rank_counts
from medres.evaluate.statistics.estimate import Estimate

LEVEL = 0.95
INTERVALS = [(10, 90, 0.8), (10, 90, 0.9), (15, 45, 0.8), (15, 45, 0.9), (15, 45, 0.97),
             (45, 15, 0.9), (90, 10, 0.8), (50, 50, 0.9)]  # fmt: skip
GLOBAL = [(m, n, auc) for m, n in ((5, 95), (10, 90), (15, 15), (50, 50)) for auc in (0.75, 0.9)]
# patients with and without the finding in each level; AUC; shift and scale of the last level
SUBGROUPS = [
    (((20, 20), (20, 20)), 0.8, 0.0, 1.0),
    (((12, 88), (60, 40)), 0.8, 0.0, 1.0),
    (((12, 88), (60, 40)), 0.95, 0.0, 1.0),
    (((12, 88), (60, 40)), 0.8, 1.0, 1.0),
    (((12, 48), (40, 20)), 0.85, 1.0, 2.0),
    (((12, 30), (30, 12), (20, 60)), 0.85, 0.0, 1.0),
]


def shift_of(auc: float) -> float:
    return float(np.sqrt(2.0) * stats.norm.ppf(auc))


def drawn(rng: np.random.Generator, m: int, n: int, auc: float) -> Sample:
    label = np.arange(m + n) < m
    score = rng.standard_normal(m + n) + shift_of(auc) * label
    return Sample(label, score, np.arange(m + n), np.zeros(m + n, dtype=np.int64))


def truths(sample: Sample, auc: float) -> dict[str, float]:
    shift, normal = shift_of(auc), stats.norm
    area = integrate.quad(lambda f: normal.cdf(shift + normal.ppf(f)), 0.0, 0.2)[0]
    counts = rank_counts(sample.label, sample.score)
    chosen = counts.threshold[youden_index(counts)]
    half = standardised(area, 0.8, 1.0)  # of either axis: the scores are symmetric
    at_fixed = float(normal.cdf(shift - normal.ppf(0.9)))
    return {
        "pAUC specificity": half,
        "pAUC sensitivity": half,
        "sensitivity at .9": at_fixed,
        "specificity at .9": at_fixed,
        "Youden sensitivity, chosen": float(normal.sf(chosen - shift)),
        "Youden specificity, chosen": float(normal.cdf(chosen)),
        "Youden sensitivity, best": float(normal.cdf(shift / 2.0)),
        "Youden specificity, best": float(normal.cdf(shift / 2.0)),
    }


def estimates(sample: Sample, bootstraps: int) -> dict[str, Estimate]:
    areas, fixed = partial_auc.partial_auc_report(sample, LEVEL, bootstraps)
    youden = optimism.optimism_corrected(sample, LEVEL, bootstraps)
    found = {
        "pAUC specificity": areas[0].standardised,
        "pAUC sensitivity": areas[1].standardised,
        "sensitivity at .9": fixed[0].sensitivity,
        "specificity at .9": fixed[1].specificity,
    }
    for target in ("chosen", "best"):
        found[f"Youden sensitivity, {target}"] = youden.sensitivity
        found[f"Youden specificity, {target}"] = youden.specificity
    return {name: e for name, e in found.items() if e is not None}


def percentile_estimates(sample: Sample, bootstraps: int) -> dict[str, Estimate]:
    """As large samples have them, and as small ones had before."""
    enough = partial_auc.ENOUGH_FOR_PERCENTILES
    try:
        partial_auc.ENOUGH_FOR_PERCENTILES = optimism.ENOUGH_FOR_PERCENTILES = 0
        return estimates(sample, bootstraps)
    finally:
        partial_auc.ENOUGH_FOR_PERCENTILES = optimism.ENOUGH_FOR_PERCENTILES = enough


def intervals(replicates: int, bootstraps: int) -> None:
    print("n+ | n- | AUC | figure | covers % | before | width | before | none %")
    for seed, (m, n, auc) in enumerate(INTERVALS):
        rng = np.random.default_rng(seed)
        held, width, tried = defaultdict(float), defaultdict(float), defaultdict(int)
        for _ in range(replicates):
            sample = drawn(rng, m, n, auc)
            true = truths(sample, auc)
            for kind in (estimates, percentile_estimates):
                for name, e in kind(sample, bootstraps).items():
                    if e.ci_low is not None and e.ci_high is not None:
                        key = name, kind is estimates
                        tried[key] += 1
                        held[key] += e.ci_low <= true[name] <= e.ci_high
                        width[key] += e.ci_high - e.ci_low
        for name in true:
            now, before = (name, True), (name, False)
            cover = [100 * held[key] / max(tried[key], 1) for key in (now, before)]
            wide = [width[key] / max(tried[key], 1) for key in (now, before)]
            none = 100 * (1 - tried[now] / replicates)
            print(
                f"{m} | {n} | {auc} | {name} | {cover[0]:.1f} | {cover[1]:.1f} | {wide[0]:.2f} | "
                f"{wide[1]:.2f} | {none:.1f}",
                flush=True,
            )


def global_sizes(replicates: int) -> None:
    print("n+ | n- | AUC | models | F rejects % | chi-square rejects % | no test %")
    for seed, (m, n, auc) in enumerate(GLOBAL):
        rng = np.random.default_rng(seed)
        by_f = by_chi_square = none = 0
        for _ in range(replicates):
            first = drawn(rng, m, n, auc)
            shared, zeros = rng.standard_normal(m + n), np.zeros(m + n, dtype=np.int64)
            samples = [
                Sample(
                    first.label,
                    np.sqrt(0.5) * (shared + rng.standard_normal(m + n))
                    + shift_of(auc) * first.label,
                    first.patient,
                    zeros,
                )
                for _ in range(3)
            ]
            test = global_test(samples)
            none += test.p_value is None
            by_f += test.p_value is not None and test.p_value < 0.05
            by_chi_square += test.p_chi_square is not None and test.p_chi_square < 0.05
        shares = " | ".join(f"{100 * x / replicates:.1f}" for x in (by_f, by_chi_square, none))
        print(f"{m} | {n} | {auc} | 3 | {shares}", flush=True)


def subgroup_sizes(replicates: int) -> None:
    print(
        "patients | AUC | shift | scale | permutation rejects % | Wald rejects % | no Wald test %"
    )
    for seed, (sizes, auc, shift, scale) in enumerate(SUBGROUPS):
        rng = np.random.default_rng(seed)
        permuted = wald = none = 0
        for number in range(replicates):
            parts = [drawn(rng, m, n, auc) for m, n in sizes]
            code = np.repeat(np.arange(len(parts)), [part.label.size for part in parts])
            score = np.concatenate([part.score for part in parts])
            score = np.where(code == len(parts) - 1, scale * score + shift, score)
            label = np.concatenate([part.label for part in parts])
            zeros = np.zeros(code.size, dtype=np.int64)
            sample = Sample(label, score, np.arange(code.size), zeros)
            permuted += level_test.permutation_p(sample, code, seed=number) <= 0.05
            by_level = [sample.take(code == i) for i in range(len(parts))]
            p_value = level_test.interaction(by_level, code.size)
            none += p_value is None
            wald += p_value is not None and p_value < 0.05
        shares = " | ".join(f"{100 * x / replicates:.1f}" for x in (permuted, wald, none))
        print(f"{sizes} | {auc} | {shift} | {scale} | {shares}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--bootstraps", type=int, default=400)
    given = parser.parse_args()
    level_test.DRAWS = level_test.MIN_DRAWS = 399
    global_sizes(4 * given.replicates)
    subgroup_sizes(2 * given.replicates)
    intervals(given.replicates, given.bootstraps)


if __name__ == "__main__":
    main()
