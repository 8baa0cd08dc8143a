"""What a person may choose for a report, checked once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medres.errors import EvaluationError
from medres.evaluate.metrics.partial_auc import RANGES, Range

SAMPLINGS = ("cohort", "case_control")


@dataclass(frozen=True)
class ReportOptions:
    """level: of all confidence intervals. margin: of non-inferiority, in AUC. prevalence: stated,
    by finding, for PPV, NPV and net benefit. design: what the design file says. subgroups: names of
    columns. exact: Clopper-Pearson intervals of rates instead of Wilson's, unless a
    patient has several units. partial_auc: (axis, low, high) of the partial areas.
    """

    level: float = 0.95
    margin: float | None = None
    prevalence: dict[str, float] = field(default_factory=dict)
    design: dict[str, Any] = field(default_factory=dict)
    subgroups: tuple[str, ...] = ()
    exact: bool = False
    partial_auc: tuple[Range, ...] = RANGES

    @property
    def case_control(self) -> bool:
        """Whether cases and controls were sampled separately, so that the prevalence in the sample
        has no meaning."""
        return self.design["sampling"] == "case_control"

    @property
    def ordinal(self) -> bool:
        """Whether the design says that the classes are ordered."""
        return self.design.get("ordinal") is True


def make_options(
    names: tuple[str, ...],
    *,
    level: float,
    margin: float | None,
    prevalence: Any,
    design: Any,
    subgroups: Any,
    exact: bool,
    partial_auc: Any = None,
) -> ReportOptions:
    """Raises EvaluationError for a value out of range or a finding that the table does not have."""
    check_level_and_margin(level, margin, figure="AUC")
    answers = read_design(design)
    stated = _prevalences(prevalence, names)
    if "prevalence" in answers:
        stated = _prevalences(answers["prevalence"], names) | stated
    columns = (subgroups,) if isinstance(subgroups, str) else tuple(subgroups)
    return ReportOptions(level, margin, stated, answers, columns, exact, _ranges(partial_auc))


def check_level_and_margin(level: float, margin: float | None, *, figure: str) -> None:
    """Raise EvaluationError (out_of_range) unless the confidence level and the margin of
    non-inferiority can be used. figure: what the margin is a loss of, for the message.
    """
    if not 0.5 <= level < 1.0:
        raise EvaluationError(
            f"level is {level}; give a confidence level such as 0.95 (from 0.5 to below 1)",
            code="out_of_range",
        )
    if margin is not None and not 0.0 < margin < 0.5:
        raise EvaluationError(
            f"margin is {margin}; give the greatest loss of {figure} that you accept, such as 0.05 "
            "(between 0 and 0.5)",
            code="out_of_range",
        )


def read_design(design: Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    """The design of the evaluation, from a mapping, a YAML or a JSON file. `sampling` is cohort
    unless the design says case_control.

    >>> read_design({"setting": "one clinic"})
    {'setting': 'one clinic', 'sampling': 'cohort'}
    """
    if design is None:
        answers: Any = {}
    elif isinstance(design, Mapping):
        answers = dict(design)
    else:
        answers = _read_file(Path(design))
    if not isinstance(answers, dict):
        raise EvaluationError(
            "the design must be a mapping such as 'sampling: cohort'", code="design"
        )
    answers.setdefault("sampling", "cohort")
    if answers["sampling"] not in SAMPLINGS:
        raise EvaluationError(
            f"design: sampling must be {' or '.join(SAMPLINGS)}, not {answers['sampling']!r}",
            code="design",
        )
    return answers


def _read_file(path: Path) -> Any:
    if not path.is_file():
        raise EvaluationError(f"the design file {path.name!r} does not exist", code="no_file")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        try:
            return json.loads(text)
        except ValueError:
            raise EvaluationError(
                f"the design file {path.name!r} is not valid JSON", code="design"
            ) from None
    try:
        import yaml
    except ModuleNotFoundError:
        raise EvaluationError(
            "a design in YAML needs PyYAML (pip install pyyaml); or give the design as JSON",
            code="no_pyyaml",
        ) from None
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError:
        raise EvaluationError(
            f"the design file {path.name!r} is not valid YAML", code="design"
        ) from None


def _ranges(given: Any) -> tuple[Range, ...]:
    """(axis, low, high), from texts such as "specificity:0.9:1"; the default without any.

    >>> _ranges("specificity:0.9:1")
    (('specificity', 0.9, 1.0),)
    """
    if not given:
        return RANGES
    ranges = []
    for text in [given] if isinstance(given, str) else given:
        axis, *limits = str(text).split(":")
        try:
            low, high = (float(limit) for limit in limits)
        except ValueError:
            low, high = 1.0, 0.0
        if axis not in ("specificity", "sensitivity") or not 0.0 <= low < high <= 1.0:
            raise EvaluationError(
                f"partial_auc: {text!r} is not a range; write specificity:LOW:HIGH or "
                "sensitivity:LOW:HIGH with 0 <= LOW < HIGH <= 1, such as specificity:0.9:1",
                code="partial_auc_range",
            )
        ranges.append((axis, low, high))
    return tuple(ranges)


def _prevalences(given: Any, names: tuple[str, ...]) -> dict[str, float]:
    if given is None:
        return {}
    if isinstance(given, list):
        return {name: value for item in given for name, value in _prevalences(item, names).items()}
    pairs = dict(given) if isinstance(given, Mapping) else dict.fromkeys(names, given)
    for name, value in pairs.items():
        if name not in names:
            raise EvaluationError(
                f"a prevalence names the finding {name!r}; the table has {', '.join(names)}",
                code="unknown_finding",
            )
        if not isinstance(value, int | float) or not 0.0 < value < 1.0:
            raise EvaluationError(
                f"the prevalence of {name!r} must be above 0 and below 1", code="out_of_range"
            )
    return {name: float(value) for name, value in pairs.items()}
