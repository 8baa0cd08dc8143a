"""Thresholds: what a criterion means, which threshold meets it, and the thresholds of a report.

A score equal to or above the threshold is positive. A criterion is written NAME or NAME:VALUE:

    youden                 greatest sensitivity + specificity (Youden 1950)
    sensitivity:0.95       the highest threshold whose sensitivity is at least that
    specificity:0.90       the lowest threshold whose specificity is at least that
    sensitivity_low:0.90   the same for the lower limit of its 95 % interval, with patients as
    specificity_low:0.90   clusters
    cost:5                 fewest false positives + 5 x false negatives, at the prevalence of the
                           tuning split
    net_benefit:0.2        greatest net benefit at a threshold probability of 0.2 (Vickers & Elkin
                           2006)

A threshold found by a criterion lies midway between two neighboring scores, so that a last digit
that differs elsewhere changes no decision. Scores may be any numbers, infinite ones included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from medres.errors import EvaluationError
from medres.evaluate.results import Origin, ThresholdSource
from medres.evaluate.scores.ids import shared_ids, uncertain
from medres.evaluate.scores.sample import Counts, Int64Array, Sample
from medres.evaluate.scores.table import Table
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.statistics.intervals import proportion_estimate

LEVEL = 0.95
ABOVE_EVERY_SCORE = math.nan  # no score is equal to or above it
FROZEN_NAME = "default"
FEW_PATIENTS = 20  # a threshold found on fewer of the class that fixes it is warned about
_RANGES = {
    "sensitivity": (0.0, 1.0),
    "specificity": (0.0, 1.0),
    "sensitivity_low": (0.0, 1.0),
    "specificity_low": (0.0, 1.0),
    "cost": (0.0, math.inf),
    "net_benefit": (0.0, 1.0),
}
_MAY_BE_ONE = ("sensitivity", "specificity")


@dataclass(frozen=True)
class Criterion:
    """A name of the table above and its value (0 for youden)."""

    name: str
    value: float = 0.0


@dataclass(frozen=True)
class Threshold:
    """A named threshold of a finding. Only one from a model file or a tuning table is frozen;
    `source` says which. n_class_patients: see `class_patients`, None where it is unknown.
    """

    name: str
    value: float
    origin: Origin
    source: ThresholdSource = field(default_factory=ThresholdSource)
    n_class_patients: int | None = None

    @property
    def unasked(self) -> bool:
        """Whether it is Youden's point under the name that it has when nobody asked for it."""
        return self.name == FROZEN_NAME and self.source.get("criterion") == "youden"

    @property
    def why(self) -> str | None:
        """Why the value is not a finite number; None if it is."""
        if math.isnan(self.value):
            return "above every score"
        if math.isinf(self.value):
            return "below every score" if self.value < 0 else "only infinite scores reach it"
        return None


def criterion(text: str, name: str = "operating point") -> Criterion:
    """Read NAME or NAME:VALUE. Raises EvaluationError that lists the criteria.

    >>> criterion("sensitivity:0.95")
    Criterion(name='sensitivity', value=0.95)
    """
    kind, _, number = str(text).partition(":")
    if kind == "youden" and not number:
        return Criterion("youden")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    low, high = _RANGES.get(kind, (1.0, 0.0))
    if low < value < high or (value == 1.0 and kind in _MAY_BE_ONE):
        return Criterion(kind, value)
    criteria = ", ".join(["youden", *(f"{kind}:VALUE" for kind in _RANGES)])
    raise EvaluationError(
        f"{name}: {text!r} is not a criterion; write one of {criteria}. A rate lies between 0 and "
        "1, a cost above 0",
        code="criterion",
    )


def threshold(sample: Sample, rule: Criterion) -> float | None:
    """The threshold that meets a criterion in a sample with both classes; None if none does.

    >>> scores = np.array([0.9, 0.6, 0.4, 0.1])
    >>> no_clusters, one_fold = np.arange(4), np.zeros(4, dtype=np.int64)
    >>> sample = Sample(np.array([True, True, False, False]), scores, no_clusters, one_fold)
    >>> threshold(sample, criterion("youden"))
    0.5
    """
    counts = sample.counts
    best = _best(sample, counts, rule)
    return None if best is None else midway(counts, best)


def class_patients(sample: Sample, rule: Criterion) -> int:
    """The number of patients of the class that fixes a threshold: of the positive class for a
    sensitivity, of the negative class for a specificity, else of the smaller class.
    """
    positive, negative = sample.patients_with(True), sample.patients_with(False)
    if rule.name.startswith("sensitivity"):
        return positive
    return negative if rule.name.startswith("specificity") else min(positive, negative)


def midway(counts: Counts, index: int) -> float:
    """Midway from the index-th score (0: the highest; -1: above all scores, so that no unit is
    positive) to the next lower score.

    Beyond the ends, scores that all lie within 0..1 give the middle to 0 or 1; other scores give a
    number that is lower or higher by 1, or by the score itself where that is more. The result is
    infinite or ABOVE_EVERY_SCORE only where no finite number separates the scores.
    """
    scores = counts.threshold
    highest, lowest = float(scores[0]), float(scores[-1])
    probabilities = lowest >= 0.0 and highest <= 1.0
    if index < 0:
        if highest == math.inf:
            return ABOVE_EVERY_SCORE
        return _between(highest, 1.0 if probabilities else _higher(highest))
    if index + 1 == len(scores):
        return lowest / 2.0 if probabilities else -_higher(-lowest)
    return _between(float(scores[index + 1]), float(scores[index]))


def _between(lower: float, upper: float) -> float:
    """A number in (lower, upper], the middle where both are finite."""
    if math.isinf(lower):
        return 0.0 if math.isinf(upper) else -_higher(-upper)
    if math.isinf(upper):
        return _higher(lower)
    middle = (upper + lower) / 2.0
    if math.isinf(middle):
        middle = upper / 2.0 + lower / 2.0
    return middle if middle > lower else math.nextafter(lower, math.inf)


def _higher(score: float) -> float:
    return score + max(1.0, abs(score))


def youden_index(counts: Counts) -> int:
    """Index of the score with the greatest sensitivity + specificity; of equals the highest. Needs
    both classes.
    """
    return int(np.argmax(_youden_gain(counts)))


def _youden_gain(counts: Counts) -> Int64Array:
    """(n,) (sensitivity + specificity - 1) x positives x negatives: integers, so that ties are
    exact.
    """
    return np.asarray(counts.tp * counts.n_negative - counts.fp * counts.n_positive)


def youden_point(
    sample: Sample, origin: Origin, name: str, source: ThresholdSource
) -> Threshold | None:
    """Youden's point of a sample with both classes, else None. Its source counts the other scores
    that are equally good, if there are any.
    """
    if sample.n_positive == 0 or sample.n_negative == 0:
        return None
    counts = sample.counts
    gain = _youden_gain(counts)
    equal = int(np.count_nonzero(gain == gain.max())) - 1
    found = ThresholdSource(criterion="youden", **source)
    if equal:
        found["equal_points"] = equal
    return Threshold(name, midway(counts, youden_index(counts)), origin, found)


def choose_thresholds(
    units: AnalysisUnits,
    tune: AnalysisUnits | None,
    tune_sha256: str | None,
    declared: Any,
    criteria: Mapping[str, str] | None = None,
) -> dict[str, list[Threshold]]:
    """The thresholds of each finding: those that someone asked for, frozen ones first; last
    Youden's, which is always found.

    declared: a number, {finding: {name: x}}, a list of these, or frozen thresholds of a model file
        as dicts. Those that were chosen at another unit of analysis would not be frozen here and
        are left out.
    criteria: name -> criterion; such thresholds are found on `tune`, beside Youden's.

    Without any threshold, Youden's point of the evaluated units is given as exploratory. Raises
    EvaluationError for a finding that the table does not have, a threshold that is not a number, a
    text that is not a criterion, a criterion that no threshold of the tuning table meets, and
    criteria without such a table.
    """
    if criteria and tune is None:
        raise EvaluationError(
            "an operating point by a criterion needs a tuning table to find it on: add --tune, or "
            "declare a number with --threshold",
            code="no_tune_table",
        )
    chosen: dict[str, list[Threshold]] = {name: [] for name in units.names}
    pairs = [] if declared is None else _read(declared, units.names, units.unit)
    for finding, chosen_threshold in pairs:
        if finding not in chosen:
            raise EvaluationError(
                f"a threshold names the finding {finding!r}; the table has "
                f"{', '.join(units.names)}",
                code="unknown_finding",
            )
        chosen[finding].append(chosen_threshold)
    for name, thresholds in chosen.items():
        if tune is not None:
            thresholds[:0] = _frozen(tune.sample(name), name, criteria or {}, tune_sha256)
        if not thresholds:
            sample = units.sample(name)
            source = ThresholdSource(split="the evaluated data", n_patients=sample.n_patients)
            best = youden_point(sample, "exploratory", "youden", source)
            thresholds += [best] if best else []
        thresholds.sort(key=lambda t: (t.unasked, t.origin != "frozen"))
    return chosen


def check_tune(tune: Table, table: Table) -> tuple[list[str], dict[str, str]]:
    """The tuning table must hold the same findings and none of the evaluated images or patients.
    Returns the levels (image, patient) at which nothing is shared, and the levels at which this
    could not be said, with the reason. Raises EvaluationError.
    """
    if tune.names != table.names or tune.task != table.task:
        raise EvaluationError(
            f"the tune table has the findings {', '.join(tune.names)}, the scores table "
            f"{', '.join(table.names)}: give the same columns in both",
            code="findings_differ",
        )
    disjoint, unchecked = [], {}
    for level in ("image", "patient"):
        if level not in tune.columns or level not in table.columns:
            continue
        shared = shared_ids(tune.columns[level], table.columns[level])
        if shared.same:
            raise EvaluationError(
                f"{shared.same} {level}{'s are' if shared.same > 1 else ' is'} in both the tune "
                "and the scores table, so a threshold chosen there is not independent of these "
                "rows: split by patient, or leave out --tune",
                code="split_leak",
            )
        why = uncertain(shared, level, "the tune table", "the scores table")
        if why is None:
            disjoint.append(level)
        else:
            unchecked[level] = why
    return disjoint, unchecked


def _best(sample: Sample, counts: Counts, rule: Criterion) -> int | None:
    """Index of the lowest score that is classified as positive; -1 if none is; None if no
    threshold meets the criterion.
    """
    # entry i + 1 belongs to index i; entry 0: no unit is classified as positive
    tp, fp = np.append(0, counts.tp), np.append(0, counts.fp)
    sensitivity, specificity = tp / counts.n_positive, 1.0 - fp / counts.n_negative
    if rule.name == "youden":
        return youden_index(counts)
    if rule.name in ("cost", "net_benefit"):
        miss = rule.value if rule.name == "cost" else (1.0 - rule.value) / rule.value
        return int(np.argmin(fp + miss * (counts.n_positive - tp))) - 1
    if rule.name == "sensitivity":
        return int(np.argmax(sensitivity >= rule.value - 1e-12)) - 1
    if rule.name == "specificity":
        return int(np.flatnonzero(specificity >= rule.value - 1e-12)[-1]) - 1
    of_sensitivity = rule.name == "sensitivity_low"
    order = range(len(tp)) if of_sensitivity else reversed(range(len(tp)))
    limits = ((i - 1, _lower_limit(sample, counts, i - 1, of_sensitivity)) for i in order)
    return next((index for index, limit in limits if limit >= rule.value), None)


def _lower_limit(sample: Sample, counts: Counts, index: int, of_sensitivity: bool) -> float:
    """Lower limit of the sensitivity (or specificity) if every unit with at least the index-th
    score is classified as positive.
    """
    predicted = (
        np.zeros(len(sample.label), dtype=bool)
        if index < 0
        else sample.score >= counts.threshold[index]
    )
    of = sample.label if of_sensitivity else ~sample.label
    hit = predicted[of] if of_sensitivity else ~predicted[of]
    low = proportion_estimate(hit, sample.patient[of], LEVEL).ci_low
    return 0.0 if low is None else low


def _frozen(
    sample: Sample, finding: str, criteria: Mapping[str, str], sha256: str | None
) -> list[Threshold]:
    """Youden's point under the name "default", unless a criterion has that name, and the thresholds
    of the criteria.
    """
    parsed = {name: criterion(text, name) for name, text in criteria.items()}
    source = ThresholdSource(split="tune", sha256=sha256, n_patients=sample.n_patients)
    best = youden_point(sample, "frozen", FROZEN_NAME, source)
    if best is None:
        return []
    best = replace(best, n_class_patients=class_patients(sample, Criterion("youden")))
    thresholds = [] if FROZEN_NAME in parsed else [best]
    for name, rule in parsed.items():
        value = threshold(sample, rule)
        if value is None:
            raise EvaluationError(
                f"{finding}: no threshold on the tune table meets {name}={criteria[name]} "
                f"({sample.n_positive} positive, {sample.n_negative} negative): choose a less "
                "strict criterion, or give a larger tune table",
                code="criterion_unmet",
            )
        origin: ThresholdSource = {"criterion": criteria[name], **source}
        thresholds.append(Threshold(name, value, "frozen", origin, class_patients(sample, rule)))
    return thresholds


def _read(declared: Any, names: tuple[str, ...], unit: str) -> list[tuple[str, Threshold]]:
    """(finding, threshold) of every form that the argument `thresholds` may have."""
    if isinstance(declared, Mapping):
        return [
            (finding, Threshold(str(name), _number(value), "declared"))
            for finding, named in declared.items()
            for name, value in (
                named.items() if isinstance(named, Mapping) else {f"{named:g}": named}.items()
            )
        ]
    if isinstance(declared, int | float) and not isinstance(declared, bool):
        return [(name, Threshold(f"{declared:g}", _number(declared), "declared")) for name in names]
    if isinstance(declared, Sequence) and not isinstance(declared, str):
        return [
            pair
            for item in declared
            for pair in (_read_frozen(item, unit) if _is_frozen(item) else _read(item, names, unit))
        ]
    raise EvaluationError(
        "thresholds must be a number, {finding: {name: x}} or a list of them",
        code="not_a_threshold",
    )


def _is_frozen(item: Any) -> bool:
    return isinstance(item, Mapping) and {"finding", "threshold"} <= set(item)


def _read_frozen(item: Mapping[str, Any], unit: str) -> list[tuple[str, Threshold]]:
    if item.get("unit", unit) != unit:
        return []
    source = ThresholdSource()
    for key in ("criterion", "split", "n_patients", "sha256"):
        if item.get(key) is not None:
            source[key] = item[key]
    value, name = _number(item["threshold"]), str(item.get("name", FROZEN_NAME))
    patients = item.get("n_class_patients")
    return [(item["finding"], Threshold(name, value, "frozen", source, patients))]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EvaluationError("a threshold must be a finite number", code="not_a_threshold")
    return float(value)
