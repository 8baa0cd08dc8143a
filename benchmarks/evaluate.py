"""Speed of the evaluation against a scikit-learn bootstrap, with equal point values.

    python benchmarks/evaluate.py [--sizes 1000 10000 100000] [--replicates 2000] [--report]

Needs scikit-learn. `--report` also times a whole report of 100,000 cases x 14 findings. Where scikit-learn's bootstrap
would take long, it is timed on 20 replicates and scaled; the table says so.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from medres.evaluate import evaluate
from medres.evaluate.bootstrap import resampled
from medres.evaluate.precision_recall import average_precision
from medres.evaluate.roc import Sample, auc_covariance, auc_from_counts, placements, rank_counts


def cases(n: int, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    label = rng.random(n) < 0.1
    return Sample(label, rng.normal(size=n) + label, np.arange(n), np.zeros(n, dtype=np.int64))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def sklearn_bootstrap(sample: Sample, replicates: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(replicates):
        rows = rng.integers(0, sample.label.size, sample.label.size)
        roc_auc_score(sample.label[rows], sample.score[rows])


def row(n: int, replicates: int) -> dict[str, Any]:
    sample = cases(n)
    counts = rank_counts(sample.label, sample.score)
    auc_gap = abs(auc_from_counts(counts) - roc_auc_score(sample.label, sample.score))
    ap_gap = abs(average_precision(counts) - average_precision_score(sample.label, sample.score))
    if max(auc_gap, ap_gap) > 1e-12:
        raise SystemExit(f"point values differ from scikit-learn's by {max(auc_gap, ap_gap)} at n = {n}")
    delong, _ = timed(lambda: auc_covariance([placements(sample)]))
    ours, _ = timed(lambda: resampled(sample, {"auc": auc_from_counts}, replicates))
    slow = replicates if n <= 10_000 else 20
    theirs, _ = timed(lambda: sklearn_bootstrap(sample, slow))
    theirs *= replicates / slow
    return {
        "n": n, "DeLong (s)": round(delong, 4), f"ours x{replicates} (s)": round(ours, 2),
        f"scikit-learn x{replicates} (s)": round(theirs, 1), "scaled from": slow,
        "bootstrap ratio": round(theirs / ours, 1), "DeLong ratio": round(theirs / delong),
    }  # fmt: skip


def report_seconds(n: int = 100_000, findings: int = 14) -> float:
    rng = np.random.default_rng(1)
    columns: dict[str, Any] = {"image": np.arange(n), "patient": np.arange(n) // 2}
    for k in range(findings):
        label = rng.random(n) < 0.05 + 0.02 * k
        columns |= {f"label:f{k}": label.astype(int), f"score:f{k}": 1 / (1 + np.exp(2 - rng.normal(size=n) - label))}
    seconds, made = timed(lambda: evaluate(pd.DataFrame(columns)))
    drawing, page = timed(made.to_html)
    print(f"report of {n:,} x {findings}: {seconds:.1f} s, page {drawing:.1f} s, {len(page) / 1e6:.2f} MB")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    rows = [row(n, given.replicates if n <= 100_000 else given.replicates // 10) for n in given.sizes]
    for one in rows:
        print(one)
    if given.report:
        report_seconds()


if __name__ == "__main__":
    main()
