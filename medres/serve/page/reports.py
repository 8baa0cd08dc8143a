"""What the report of `medres evaluate` said of a served model: a report.json beside the model file,
believed only where it names the SHA-256 of this model.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

MAX_BYTES = 64 << 20  # of a report.json
MAX_WARNINGS = 20
_MEASURES = {"auc": "AUC", "dice": "Dice", "ap50": "AP at IoU 0.5"}  # the first that is there leads
_AT_THRESHOLD = {"sensitivity": "sensitivity", "specificity": "specificity"}


class Figure(NamedTuple):
    """An estimate with its interval; estimate, low and high are None where there is none. level:
    of confidence. flag: why it needs care, '' if it does not.
    """

    name: str
    estimate: float | None
    low: float | None
    high: float | None
    level: float
    flag: str


class ModelReport(NamedTuple):
    """The part of a report that the page shows. figures: finding -> its figures, the leading one
    first. unit: of the analysis, such as image. split: '' if it is not stated.
    """

    title: str
    split: str
    unit: str
    n_units: int
    n_patients: int
    figures: dict[str, list[Figure]]
    warnings: list[str]


def report_places(model: Path) -> list[Path]:
    """Where the report of a model file is looked for, in this order."""
    folder = model.parent
    return [
        model.with_suffix(".report.json"),
        folder / "report.json",
        folder / "report" / "report.json",
        folder.parent / "report" / "report.json",
    ]


def report_of(sha256: str, models: Iterable[Path]) -> ModelReport | None:
    """The report of the model with this SHA-256, if it lies beside one of the model files."""
    for place in dict.fromkeys(place for model in models for place in report_places(model)):
        try:
            status = place.stat()
        except OSError:
            continue
        if status.st_size <= MAX_BYTES:
            named, report = _read(place, status.st_mtime_ns, status.st_size)
            if report is not None and named == sha256:
                return report
    return None


@functools.lru_cache(maxsize=64)
def _read(path: Path, changed: int, size: int) -> tuple[str, ModelReport | None]:
    """SHA-256 of its model, and the report; ("", None) for a file that is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        named = str(value["provenance"]["model_sha256"])
        return named, _report(value)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", None


def _report(value: Mapping[str, Any]) -> ModelReport:
    findings = {
        str(finding.get("title") or name): [*_figures(finding)]
        for name, finding in value["findings"].items()
    }
    counts: Mapping[str, Any] = value.get("n") or {}
    units = counts.get("units") or counts.get("images") or value.get("n_cases") or 0
    return ModelReport(
        title=str(value.get("title", "")),
        split=str(value["provenance"].get("split") or ""),
        unit=str(value.get("analysis_unit") or "case"),
        n_units=int(units),
        n_patients=int(counts.get("patients") or value.get("n_patients") or 0),
        figures=findings,
        warnings=[str(one["text"]) for one in value.get("warnings", ())][:MAX_WARNINGS],
    )


def _figures(finding: Mapping[str, Any]) -> Iterator[Figure]:
    for key, name in _MEASURES.items():
        if isinstance(finding.get(key), dict):
            yield _figure(name, finding[key])
            break
    points = finding.get("operating_points") or [{}]
    default: Mapping[str, Any] = next(
        (point for point in points if point.get("name") == "default"), {}
    )
    for key, name in _AT_THRESHOLD.items():
        if isinstance(default.get(key), dict):
            yield _figure(name, default[key])


def _figure(name: str, estimate: Mapping[str, Any]) -> Figure:
    def number(key: str) -> float | None:
        value = estimate.get(key)
        return None if value is None else float(value)

    return Figure(
        name,
        number("estimate"),
        number("ci_low"),
        number("ci_high"),
        float(estimate.get("level") or 0.95),
        str(estimate.get("flag") or ""),
    )
