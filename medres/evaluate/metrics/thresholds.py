"""Operating points from tuning scores. Pure numpy; `score >= threshold` is positive.

A criterion is written NAME or NAME:VALUE:

    youden                 greatest sensitivity + specificity (Youden 1950)
    sensitivity:0.95       the highest threshold whose sensitivity is at least that
    specificity:0.90       the lowest threshold whose specificity is at least that
    sensitivity_low:0.90   the same for the lower limit of its 95 % interval, which counts patients
    specificity_low:0.90
    cost:5                 fewest false positives + 5 x false negatives, at the tuning split's
                           prevalence
    net_benefit:0.2        greatest net benefit at a threshold probability of 0.2 (Vickers & Elkin
                           2006)

The threshold lies midway between two neighbouring scores, so that a last digit that differs
elsewhere changes no decision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medres.errors import EvaluationError
from medres.evaluate.metrics.operating_point import Threshold, youden_point
from medres.evaluate.scores.sample import Counts, Sample, rank_counts
from medres.evaluate.scores.table import Table
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.statistics.intervals import proportion_estimate

LEVEL = 0.95
_RANGES = {
    "sensitivity": (0.0, 1.0),
    "specificity": (0.0, 1.0),
    "sensitivity_low": (0.0, 1.0),
    "specificity_low": (0.0, 1.0),
    "cost": (0.0, float("inf")),
    "net_benefit": (0.0, 1.0),
}


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
    if not low < value < high and not (
        value == high == 1.0 and kind in ("sensitivity", "specificity")
    ):
        known = ", ".join(["youden", *(f"{k}:VALUE" for k in _RANGES)])
        raise EvaluationError(
            f"{name}: {text!r} is no criterion: write one of {known}; shares lie between 0 and 1, "
            f"costs above 0"
        )
    return Criterion(kind, value)


def threshold(sample: Sample, wanted: Criterion) -> float | None:
    """The threshold of a sample with both classes; None where no threshold reaches what is
    wanted.
    """
    counts = rank_counts(sample.label, sample.score)
    best = _best(sample, counts, wanted)
    return None if best is None else midway(counts, best)


def midway(counts: Counts, index: int) -> float:
    """Half-way from the index-th score (from the highest; -1: above all, calling no one) to the
    next lower one.

    Beyond the lowest score it lies half-way to 0, and beyond the highest half-way to 1.
    """
    upper = 1.0 if index < 0 else float(counts.threshold[index])
    if index + 1 == len(counts.threshold):
        return upper / 2.0
    lower = float(counts.threshold[index + 1])
    found = (upper + lower) / 2.0
    return found if found > lower else float(np.nextafter(lower, np.inf))


def _best(sample: Sample, counts: Counts, wanted: Criterion) -> int | None:
    """Index of the lowest score that is called positive; -1 for no one; None where nothing will
    do.
    """
    tp, fp = (
        np.append(0, counts.tp),
        np.append(0, counts.fp),
    )  # entry i + 1: index i; entry 0: no one
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
    return next(
        (i - 1 for i in order if _lower_limit(sample, counts, i - 1, side) >= wanted.value), None
    )


def _lower_limit(sample: Sample, counts: Counts, index: int, of_sensitivity: bool) -> float:
    """Lower limit of the sensitivity (or specificity) of calling positive what scores at least the
    index-th score.
    """
    called = (
        np.zeros(len(sample.label), dtype=bool)
        if index < 0
        else sample.score >= counts.threshold[index]
    )
    chosen = sample.label if of_sensitivity else ~sample.label
    hit = called[chosen] if of_sensitivity else ~called[chosen]
    found = proportion_estimate(hit, sample.patient[chosen], LEVEL).ci_low
    return 0.0 if found is None else found


FROZEN_NAME = "default"


def choose_points(
    units: AnalysisUnits,
    tune: AnalysisUnits | None,
    tune_sha256: str | None,
    thresholds: Any,
    criteria: Mapping[str, str] | None = None,
) -> dict[str, list[Threshold]]:
    """Points by finding. `thresholds`: a number, {finding: {name: x}}, or frozen dicts from an
    artefact; of those, the ones that were chosen at another unit than that of this analysis would
    be no frozen ones here and are left out.
    `criteria`: name -> criterion, found on `tune` beside Youden's.

    Raises EvaluationError for a finding that the table does not have, a threshold that is not a
    number, a criterion that is none or that no threshold of the tuning table reaches, and criteria
    without such a table.
    """
    if criteria and tune is None:
        raise EvaluationError(
            "an operating point by a criterion is found on a tune table: give one, or a threshold"
        )
    points: dict[str, list[Threshold]] = {name: [] for name in units.names}
    for finding, point in [] if thresholds is None else _given(thresholds, units.names, units.unit):
        if finding not in points:
            raise EvaluationError(
                f"a threshold names the finding {finding!r}; the table has {', '.join(units.names)}"
            )
        points[finding].append(point)
    for name in units.names:
        if tune is not None:
            source = {
                "split": "tune",
                "sha256": tune_sha256,
                "n_patients": tune.sample(name).n_patients,
            }
            points[name][:0] = _frozen(tune.sample(name), name, criteria or {}, source)
        if not points[name]:
            sample = units.sample(name)
            source = {"split": "the rows evaluated here", "n_patients": sample.n_patients}
            found = youden_point(sample, "exploratory", "youden", source)
            points[name] = [found] if found else []
        points[name].sort(key=lambda p: p.origin != "frozen")
    return points


def check_tune(tune: Table, table: Table) -> list[str]:
    """The tuning table must hold the same findings and none of the images that are evaluated.
    Returns the levels at which this could be checked (image, patient).
    """
    if tune.names != table.names or tune.task != table.task:
        raise EvaluationError("the tune table has other findings than the scores table")
    checked = [
        level for level in ("image", "patient") if level in tune.columns and level in table.columns
    ]
    for level in checked:
        shared = len(set(tune.columns[level]) & set(table.columns[level]))
        if shared:
            raise EvaluationError(
                f"{shared} {level}s stand in both the tune and the scores table: a threshold "
                f"chosen on them is not "
                "frozen; split by patient, or leave --tune out"
            )
    return checked


def _frozen(
    sample: Sample, finding: str, criteria: Mapping[str, str], source: dict[str, Any]
) -> list[Threshold]:
    """Youden's point under the name "default", unless a criterion has that name, and those of the
    criteria.
    """
    wanted = {name: criterion(text, name) for name, text in criteria.items()}
    if sample.n_positive == 0 or sample.n_negative == 0:
        return []
    youden = youden_point(sample, "frozen", FROZEN_NAME, source)
    points = [youden] if youden and FROZEN_NAME not in wanted else []
    for name, one in wanted.items():
        found = threshold(sample, one)
        if found is None:
            raise EvaluationError(
                f"{finding}: no threshold on the tune table reaches {name}={criteria[name]} "
                f"({sample.n_positive} positive, {sample.n_negative} negative): ask for less"
            )
        points.append(Threshold(name, found, "frozen", {"criterion": criteria[name], **source}))
    return points


def _given(thresholds: Any, names: tuple[str, ...], unit: str) -> list[tuple[str, Threshold]]:
    if isinstance(thresholds, Mapping):
        return [
            (finding, Threshold(str(name), _number(value), "declared"))
            for finding, named in thresholds.items()
            for name, value in (
                named.items() if isinstance(named, Mapping) else {f"{named:g}": named}.items()
            )
        ]
    if isinstance(thresholds, int | float) and not isinstance(thresholds, bool):
        return [
            (name, Threshold(f"{thresholds:g}", _number(thresholds), "declared")) for name in names
        ]
    if isinstance(thresholds, Sequence) and not isinstance(thresholds, str):
        return [pair for one in thresholds for pair in _one(one, names, unit)]
    raise EvaluationError("thresholds must be a number, {finding: {name: x}} or a list of them")


def _one(one: Any, names: tuple[str, ...], unit: str) -> list[tuple[str, Threshold]]:
    if not (isinstance(one, Mapping) and {"finding", "threshold"} <= set(one)):
        return _given(one, names, unit)
    if one.get("unit", unit) != unit:
        return []
    source = {
        key: one[key]
        for key in ("criterion", "split", "n_patients", "sha256")
        if one.get(key) is not None
    }
    return [
        (
            one["finding"],
            Threshold(
                str(one.get("name", FROZEN_NAME)), _number(one["threshold"]), "frozen", source
            ),
        )
    ]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EvaluationError("a threshold must be a finite number")
    return float(value)
