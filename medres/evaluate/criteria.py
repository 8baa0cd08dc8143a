"""Operating points from tuning scores. Pure numpy; `score >= threshold` is positive.

A criterion is written NAME or NAME:VALUE:

    youden                 greatest sensitivity + specificity (Youden 1950)
    sensitivity:0.95       the highest threshold whose sensitivity is at least that
    specificity:0.90       the lowest threshold whose specificity is at least that
    sensitivity_low:0.90   the same for the lower limit of its 95 % interval, which counts patients
    specificity_low:0.90
    cost:5                 fewest false positives + 5 x false negatives, at the tuning split's prevalence
    net_benefit:0.2        greatest net benefit at a threshold probability of 0.2 (Vickers & Elkin 2006)

The threshold lies midway between two neighbouring scores, so that a last digit that differs elsewhere changes no decision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medres.errors import EvaluationError
from medres.evaluate.intervals import proportion
from medres.evaluate.roc import Counts, Sample, rank_counts

LEVEL = 0.95
_RANGES = {
    "sensitivity": (0.0, 1.0), "specificity": (0.0, 1.0), "sensitivity_low": (0.0, 1.0), "specificity_low": (0.0, 1.0),
    "cost": (0.0, float("inf")), "net_benefit": (0.0, 1.0),
}  # fmt: skip


@dataclass(frozen=True)
class Criterion:
    """A name of the table above and its value (0 for youden)."""

    name: str
    value: float = 0.0


def criterion(text: str, name: str = "operating point") -> Criterion:
    """Read NAME or NAME:VALUE. Raises EvaluationError that lists what there is."""
    kind, _, number = str(text).partition(":")
    if kind == "youden" and not number:
        return Criterion("youden")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    low, high = _RANGES.get(kind, (1.0, 0.0))
    if not low < value < high and not (value == high == 1.0 and kind in ("sensitivity", "specificity")):
        known = ", ".join(["youden", *(f"{k}:VALUE" for k in _RANGES)])
        raise EvaluationError(
            f"{name}: {text!r} is no criterion: write one of {known}; shares lie between 0 and 1, costs above 0"
        )
    return Criterion(kind, value)


def threshold(sample: Sample, wanted: Criterion) -> float | None:
    """The threshold of a sample with both classes; None where no threshold reaches what is wanted."""
    counts = rank_counts(sample.label, sample.score)
    best = _best(sample, counts, wanted)
    return None if best is None else midway(counts, best)


def midway(counts: Counts, index: int) -> float:
    """Half-way from the index-th score (from the highest; -1: above all, calling no one) to the next lower one.

    Beyond the lowest score it lies half-way to 0, and beyond the highest half-way to 1.
    """
    upper = 1.0 if index < 0 else float(counts.threshold[index])
    if index + 1 == len(counts.threshold):
        return upper / 2.0
    lower = float(counts.threshold[index + 1])
    found = (upper + lower) / 2.0
    return found if found > lower else float(np.nextafter(lower, np.inf))


def _best(sample: Sample, counts: Counts, wanted: Criterion) -> int | None:
    """Index of the lowest score that is called positive; -1 for no one; None where nothing will do."""
    tp, fp = np.append(0, counts.tp), np.append(0, counts.fp)  # entry i + 1: index i; entry 0: no one
    sensitivity, specificity = tp / counts.n_positive, 1.0 - fp / counts.n_negative
    if wanted.name == "youden":
        return int(np.argmax((sensitivity + specificity)[1:]))
    if wanted.name in ("cost", "net_benefit"):
        miss = wanted.value if wanted.name == "cost" else (1.0 - wanted.value) / wanted.value
        return int(np.argmin(fp + miss * (counts.n_positive - tp))) - 1
    if wanted.name == "sensitivity":
        return int(np.argmax(sensitivity >= wanted.value - 1e-12)) - 1
    if wanted.name == "specificity":
        return int(np.flatnonzero(specificity >= wanted.value - 1e-12)[-1]) - 1
    side = wanted.name == "sensitivity_low"
    order = range(len(tp)) if side else reversed(range(len(tp)))
    return next((i - 1 for i in order if _lower_limit(sample, counts, i - 1, side) >= wanted.value), None)


def _lower_limit(sample: Sample, counts: Counts, index: int, of_sensitivity: bool) -> float:
    """Lower limit of the sensitivity (or specificity) of calling positive what scores at least the index-th score."""
    called = np.zeros(len(sample.label), dtype=bool) if index < 0 else sample.score >= counts.threshold[index]
    chosen = sample.label if of_sensitivity else ~sample.label
    hit = called[chosen] if of_sensitivity else ~called[chosen]
    found = proportion(hit, sample.patient[chosen], LEVEL).ci_low
    return 0.0 if found is None else found
