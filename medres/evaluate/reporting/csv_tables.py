"""The CSV tables of a report: the numbers of report.json, one row a figure, for spreadsheets and
statistics packages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ESTIMATE_KEYS = (
    "estimate",
    "ci_low",
    "ci_high",
    "level",
    "sided",
    "method",
    "n",
    "numerator",
    "denominator",
    "n_clusters",
    "why",
)
OWN_TABLE = (
    "operating_points",
    "subgroups",
    "decision_curve",
    "curves",
    "readers",
    "other_unit",
)  # have tables of their own

Row = dict[str, Any]


def tables(numbers: dict[str, Any]) -> dict[str, list[Row]]:
    """Rows by table: figures, operating_points, curves, decision_curves, subgroups, comparisons,
    readers, confusion.
    """
    out: dict[str, list[Row]] = {"figures": list(_overall(numbers))}
    for name, finding in numbers["findings"].items():
        figures = {k: v for k, v in finding.items() if k not in OWN_TABLE}
        out["figures"] += [
            {"finding": name, "figure": k} | _estimate(e) for k, e in _estimates(figures)
        ]
        _extend(out, "operating_points", _points(name, finding))
        _extend(out, "curves", _curve(name, finding))
        _extend(out, "decision_curves", _decision_curve(name, finding["decision_curve"]))
        _extend(out, "subgroups", _subgroups(name, finding))
        _extend(out, "readers", _readers(name, finding))
    _extend(out, "comparisons", _comparisons(numbers))
    if "multiclass" in numbers:
        many = numbers["multiclass"]
        out["confusion"] = [
            {"truth": truth} | dict(zip(many["classes"], row, strict=True))
            for truth, row in zip(many["classes"], many["confusion"], strict=True)
        ]
    return {name: rows for name, rows in out.items() if rows}


def _extend(out: dict[str, list[Row]], name: str, rows: Iterator[Row]) -> None:
    out.setdefault(name, []).extend(rows)


def _is_estimate(value: Any) -> bool:
    return isinstance(value, dict) and "ci_low" in value


def _estimate(value: dict[str, Any], prefix: str = "") -> Row:
    return {prefix + key: value.get(key) for key in ESTIMATE_KEYS}


def _estimates(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every estimate below `value` with its path: "auc", "calibration.slope",
    "partial_auc.0.raw".
    """
    if _is_estimate(value):
        yield path, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _estimates(one, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for i, one in enumerate(value):
            yield from _estimates(one, f"{path}.{i}")


def _overall(numbers: dict[str, Any]) -> Iterator[Row]:
    for key in ("macro", "multiclass"):
        part = {k: v for k, v in numbers.get(key, {}).items() if k != "per_class"}
        for path, e in _estimates(part, key):
            yield {"finding": "", "figure": path} | _estimate(e)
    for row in numbers.get("multiclass", {}).get("per_class", []):
        for path, e in _estimates(row, "multiclass.per_class"):
            yield {"finding": row["class"], "figure": path} | _estimate(e)


def _points(name: str, finding: dict[str, Any]) -> Iterator[Row]:
    points: list[tuple[Row, Row]] = [({}, p) for p in finding["operating_points"]]
    if "other_unit" in finding:
        unit = {"unit": finding["other_unit"]["unit"]}
        points += [(unit, p) for p in finding["other_unit"]["operating_points"]]
    for unit, point in points:
        head = (
            {"finding": name}
            | {k: point[k] for k in ("name", "threshold", "origin", "tp", "fp", "fn", "tn")}
            | unit
        )
        for path, e in _estimates({k: v for k, v in point.items() if k != "predictive_at"}):
            yield head | {"figure": path} | _estimate(e)
        for at in point["predictive_at"]:
            for key in ("ppv", "npv"):
                yield (
                    head
                    | {"figure": f"{key} at prevalence {at['prevalence']:g}"}
                    | _estimate(at[key])
                )


def _curve(name: str, finding: dict[str, Any]) -> Iterator[Row]:
    counts = finding.get("curves", {}).get("counts", {"threshold": [], "tp": [], "fp": []})
    for threshold, tp, fp in zip(counts["threshold"], counts["tp"], counts["fp"], strict=True):
        yield {"finding": name, "threshold": threshold, "tp": tp, "fp": fp}


def _decision_curve(name: str, curve: dict[str, Any]) -> Iterator[Row]:
    for i, threshold in enumerate(curve["threshold"] or []):
        yield (
            {"finding": name, "prevalence": curve["prevalence"], "threshold": threshold}
            | _estimate(curve["model"][i])
            | {
                "all": curve["all"][i]["estimate"],
                "interventions_avoided": curve["interventions_avoided"][i],
            }
        )


def _subgroups(name: str, finding: dict[str, Any]) -> Iterator[Row]:
    for row in finding["subgroups"]:
        known = {k: v for k, v in row.items() if not isinstance(v, dict | list)}
        rates = {}
        for point in row.get("operating_points", [])[:1]:
            rates = _estimate(point["sensitivity"], "sensitivity_") | _estimate(
                point["specificity"], "specificity_"
            )
        yield {"finding": name} | known | _estimate(row.get("auc", {}), "auc_") | rates


def _readers(name: str, finding: dict[str, Any]) -> Iterator[Row]:
    for one in finding.get("readers", []):
        known = {"finding": name} | {k: one[k] for k in ("reader", "arm", "n")}
        yield (
            known
            | _estimate(one["sensitivity"], "sensitivity_")
            | _estimate(one["specificity"], "specificity_")
        )


def _comparisons(numbers: dict[str, Any]) -> Iterator[Row]:
    for row in numbers["comparisons"]:
        out = {k: v for k, v in row.items() if not isinstance(v, dict)}
        for key in ("auc_difference", "sensitivity_difference", "specificity_difference"):
            if key in row:
                out |= _estimate(row[key], f"{key}_")
        yield out
