"""Which operating points each finding gets: frozen first, then declared; exploratory only where there is neither."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from medres.errors import EvaluationError
from medres.evaluate.criteria import criterion, threshold
from medres.evaluate.roc import Sample
from medres.evaluate.scores import Table
from medres.evaluate.thresholds import Point, youden_point
from medres.evaluate.units import Units

FROZEN_NAME = "default"


def choose_points(
    units: Units,
    tune: Units | None,
    tune_sha256: str | None,
    thresholds: Any,
    criteria: Mapping[str, str] | None = None,
) -> dict[str, list[Point]]:
    """Points by finding. `thresholds`: a number, {finding: {name: x}}, or frozen dicts from an artefact; of those, the
    ones that were chosen at another unit than that of this analysis would be no frozen ones here and are left out.
    `criteria`: name -> criterion, found on `tune` beside Youden's.

    Raises EvaluationError for a finding that the table does not have, a threshold that is not a number, a criterion that is none or
    that no threshold of the tuning table reaches, and criteria without such a table.
    """
    if criteria and tune is None:
        raise EvaluationError("an operating point by a criterion is found on a tune table: give one, or a threshold")
    points: dict[str, list[Point]] = {name: [] for name in units.names}
    for finding, point in [] if thresholds is None else _given(thresholds, units.names, units.unit):
        if finding not in points:
            raise EvaluationError(f"a threshold names the finding {finding!r}; the table has {', '.join(units.names)}")
        points[finding].append(point)
    for name in units.names:
        if tune is not None:
            source = {"split": "tune", "sha256": tune_sha256, "n_patients": tune.sample(name).n_patients}
            points[name][:0] = _frozen(tune.sample(name), name, criteria or {}, source)
        if not points[name]:
            sample = units.sample(name)
            source = {"split": "the rows evaluated here", "n_patients": sample.n_patients}
            found = youden_point(sample, "exploratory", "youden", source)
            points[name] = [found] if found else []
        points[name].sort(key=lambda p: p.origin != "frozen")
    return points


def check_tune(tune: Table, table: Table) -> list[str]:
    """The tuning table must hold the same findings and none of the images that are evaluated. Returns the levels at which
    this could be checked (image, patient)."""
    if tune.names != table.names or tune.task != table.task:
        raise EvaluationError("the tune table has other findings than the scores table")
    checked = [level for level in ("image", "patient") if level in tune.columns and level in table.columns]
    for level in checked:
        shared = len(set(tune.columns[level]) & set(table.columns[level]))
        if shared:
            raise EvaluationError(
                f"{shared} {level}s stand in both the tune and the scores table: a threshold chosen on them is not "
                "frozen; split by patient, or leave --tune out"
            )
    return checked


def _frozen(sample: Sample, finding: str, criteria: Mapping[str, str], source: dict[str, Any]) -> list[Point]:
    """Youden's point under the name "default", unless a criterion has that name, and those of the criteria."""
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
        points.append(Point(name, found, "frozen", {"criterion": criteria[name], **source}))
    return points


def _given(thresholds: Any, names: tuple[str, ...], unit: str) -> list[tuple[str, Point]]:
    if isinstance(thresholds, Mapping):
        return [
            (finding, Point(str(name), _number(value), "declared"))
            for finding, named in thresholds.items()
            for name, value in (named.items() if isinstance(named, Mapping) else {f"{named:g}": named}.items())
        ]
    if isinstance(thresholds, int | float) and not isinstance(thresholds, bool):
        return [(name, Point(f"{thresholds:g}", _number(thresholds), "declared")) for name in names]
    if isinstance(thresholds, Sequence) and not isinstance(thresholds, str):
        return [pair for one in thresholds for pair in _one(one, names, unit)]
    raise EvaluationError("thresholds must be a number, {finding: {name: x}} or a list of them")


def _one(one: Any, names: tuple[str, ...], unit: str) -> list[tuple[str, Point]]:
    if not (isinstance(one, Mapping) and {"finding", "threshold"} <= set(one)):
        return _given(one, names, unit)
    if one.get("unit", unit) != unit:
        return []
    source = {key: one[key] for key in ("criterion", "split", "n_patients", "sha256") if one.get(key) is not None}
    return [(one["finding"], Point(str(one.get("name", FROZEN_NAME)), _number(one["threshold"]), "frozen", source))]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EvaluationError("a threshold must be a finite number")
    return float(value)
