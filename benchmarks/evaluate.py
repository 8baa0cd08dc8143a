"""Compare the speed of the evaluation with other packages, at equal point values.

    python benchmarks/evaluate.py [--sizes 1000 10000 100000 1000000] [--replicates 2000] [--report]

The peers are `roc_auc_score` of scikit-learn in a bootstrap loop, `confidenceinterval` (DeLong,
bootstrap) and `MLstatkit` (paired DeLong, bootstrap); the last two are left out if they are not
installed. Each is timed on as many replicates as a few seconds allow, and the time is scaled to all
of them; the table gives the number. All times are seconds of one processor on one thread, so other
work on the machine matters little. `--report` also times a complete report of 100,000 cases x 14
findings.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import time
from collections.abc import Callable
from typing import Any

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from medres.evaluate import evaluate
from medres.evaluate.analyses.model_comparison import paired_difference
from medres.evaluate.metrics.average_precision import average_precision
from medres.evaluate.metrics.roc import auc_covariance, auc_from_counts, placements
from medres.evaluate.scores.sample import Counts, Sample, rank_counts
from medres.evaluate.statistics.bootstrap import Statistic, resampled

SECONDS = 4.0  # for the bootstrap of one peer


def cases(n: int, seed: int = 0) -> Sample:
    """Return independent patients, a tenth of them with the finding; scores are probabilities."""
    rng = np.random.default_rng(seed)
    label = rng.random(n) < 0.1
    return Sample(
        label,
        1 / (1 + np.exp(2.7 - rng.normal(size=n) - label)),
        np.arange(n),
        np.zeros(n, dtype=np.int64),
    )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        result = work()
    return time.process_time() - start, result


def scaled(work: Callable[[int], Any], replicates: int) -> tuple[float, int]:
    """Return the seconds for all replicates, from as many as SECONDS allow (at least 5)."""
    one = timed(lambda: work(5))[0] / 5
    count = int(min(replicates, max(5, SECONDS / one)))
    return timed(lambda: work(count))[0] * replicates / count, count


def sklearn_bootstrap(sample: Sample, replicates: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(replicates):
        rows = rng.integers(0, sample.label.size, sample.label.size)
        roc_auc_score(sample.label[rows], sample.score[rows])


def all_figures(counts: Counts) -> dict[str, Statistic]:
    """Return AUC, sensitivity, specificity and net benefit at one threshold, average precision and
    Brier score, from counts.
    """
    place = int(np.searchsorted(-counts.threshold, -0.1, "right")) - 1
    p = counts.threshold
    weight, miss, hit = 0.1 / 0.9, p**2, (1 - p) ** 2

    def brier(c: Counts) -> float:
        total = float(np.diff(c.tp, prepend=0) @ hit + np.diff(c.fp, prepend=0) @ miss)
        return total / (c.n_positive + c.n_negative)

    return {
        "auc": auc_from_counts,
        "sensitivity": lambda c: c.tp[place] / c.n_positive,
        "specificity": lambda c: 1 - c.fp[place] / c.n_negative,
        "net_benefit": lambda c: (
            (c.tp[place] - weight * c.fp[place]) / (c.n_positive + c.n_negative)
        ),
        "average_precision": average_precision,
        "brier": brier,
    }


def check(sample: Sample, counts: Counts) -> None:
    """Check equality with scikit-learn to 1e-12; stop the run if it fails."""
    figures = {name: float(statistic(counts)) for name, statistic in all_figures(counts).items()}
    expected = {
        "auc": roc_auc_score(sample.label, sample.score),
        "average_precision": average_precision_score(sample.label, sample.score),
        "brier": brier_score_loss(sample.label, sample.score),
        "sensitivity": float((sample.score[sample.label] >= 0.1).mean()),
    }
    for name, value in expected.items():
        if abs(figures[name] - value) > 1e-12:
            raise SystemExit(
                f"{name} is {figures[name]} here and {value} in scikit-learn at n = "
                f"{sample.label.size}"
            )


def row(n: int, replicates: int) -> dict[str, Any]:
    sample, other = cases(n), cases(n, seed=1)
    counts = rank_counts(sample.label, sample.score)
    check(sample, counts)
    pair = Sample(sample.label, sample.score + 0.1 * other.score, sample.patient, sample.fold)
    out: dict[str, Any] = {"n": n, "replicates": replicates}
    out["DeLong"] = min(timed(lambda: auc_covariance([placements(sample)]))[0] for _ in range(3))
    out["paired DeLong"] = min(
        timed(lambda: paired_difference(sample, pair, 0.95))[0] for _ in range(3)
    )
    out["bootstrap of the AUC"] = timed(
        lambda: resampled(sample, {"auc": auc_from_counts}, replicates)
    )[0]
    out["bootstrap of 6 figures"] = timed(
        lambda: resampled(sample, all_figures(counts), replicates)
    )[0]
    seconds, out["scikit-learn timed on"] = scaled(
        lambda r: sklearn_bootstrap(sample, r), replicates
    )
    out |= {
        "scikit-learn bootstrap": seconds,
        "ratio to scikit-learn": seconds / out["bootstrap of the AUC"],
    }
    return out | _peers(sample, pair, replicates, out)


def _peers(sample: Sample, pair: Sample, replicates: int, ours: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    label = sample.label.astype(int)
    if importlib.util.find_spec("confidenceinterval"):
        from confidenceinterval import roc_auc_score as with_interval

        seconds, told = timed(lambda: with_interval(label, sample.score))
        out["confidenceinterval AUC off by"] = abs(told[0] - roc_auc_score(label, sample.score))
        method = "bootstrap_percentile"
        boot, count = scaled(
            lambda r: with_interval(label, sample.score, method=method, n_resamples=r), replicates
        )
        out |= {"confidenceinterval DeLong": seconds, "ratio of DeLong": seconds / ours["DeLong"]}
        out |= {"confidenceinterval bootstrap": boot, "confidenceinterval timed on": count}
        out["ratio to confidenceinterval"] = boot / ours["bootstrap of the AUC"]
    if importlib.util.find_spec("MLstatkit"):
        from MLstatkit import Bootstrapping, Delong_test

        seconds, told = timed(lambda: Delong_test(label, sample.score, pair.score))
        if abs(told[1] - (paired_difference(sample, pair, 0.95)[1] or 0.0)) > 1e-6:
            raise SystemExit("MLstatkit gives a different p-value")
        boot, count = scaled(
            lambda r: Bootstrapping(label, sample.score, "roc_auc", n_bootstraps=r), replicates
        )
        out |= {
            "MLstatkit paired DeLong": seconds,
            "ratio of paired DeLong": seconds / ours["paired DeLong"],
        }
        out |= {"MLstatkit bootstrap": boot, "MLstatkit timed on": count}
        out["ratio to MLstatkit"] = boot / ours["bootstrap of the AUC"]
    return out


def report_seconds(n: int = 100_000, findings: int = 14) -> float:
    rng = np.random.default_rng(1)
    columns: dict[str, Any] = {"image": np.arange(n), "patient": np.arange(n) // 2}
    for k in range(findings):
        label = rng.random(n) < 0.05 + 0.02 * k
        columns |= {
            f"label:f{k}": label.astype(int),
            f"score:f{k}": 1 / (1 + np.exp(2 - rng.normal(size=n) - label)),
        }
    seconds, made = timed(lambda: evaluate(pd.DataFrame(columns)))
    drawing, page = timed(made.to_html)
    print(
        f"report of {n:,} x {findings}: {seconds:.1f} s, page {drawing:.1f} s, "
        f"{len(page) / 1e6:.2f} MB"
    )
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    for n in given.sizes:
        one = row(n, given.replicates if n <= 100_000 else given.replicates // 10)
        print(
            "; ".join(
                f"{k} {v:,.4g}" if isinstance(v, float) else f"{k} {v:,}" for k, v in one.items()
            ),
            flush=True,
        )
    if given.report:
        report_seconds()


if __name__ == "__main__":
    main()
