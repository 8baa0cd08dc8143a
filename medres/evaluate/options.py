"""What a person may ask of a report, checked once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medres.errors import EvaluationError

SAMPLINGS = ("cohort", "case_control")


@dataclass(frozen=True)
class ReportOptions:
    """level of all intervals; prevalence per finding for PPV, NPV and net benefit; margin of
    non-inferiority;
    exact: Clopper-Pearson in place of Wilson where patients do not repeat.
    """

    level: float = 0.95
    margin: float | None = None
    prevalence: dict[str, float] = field(default_factory=dict)
    design: dict[str, Any] = field(default_factory=dict)
    subgroups: tuple[str, ...] = ()
    exact: bool = False

    @property
    def case_control(self) -> bool:
        return self.design["sampling"] == "case_control"


def make_options(
    names: tuple[str, ...],
    *,
    level: float,
    margin: float | None,
    prevalence: Any,
    design: Any,
    subgroups: Any,
    exact: bool,
) -> ReportOptions:
    """Raises EvaluationError for a value out of range or a finding that the table does not have."""
    if not 0.5 <= level < 1.0:
        raise EvaluationError(f"level is {level}; give a confidence level such as 0.95")
    if margin is not None and not 0.0 < margin < 0.5:
        raise EvaluationError(
            f"margin is {margin}; give the greatest loss of AUC you accept, such as 0.05"
        )
    plan = read_design(design)
    stated = _prevalences(prevalence, names)
    if "prevalence" in plan:
        stated = _prevalences(plan["prevalence"], names) | stated
    chosen = (subgroups,) if isinstance(subgroups, str) else tuple(subgroups)
    return ReportOptions(level, margin, stated, plan, chosen, exact)


def read_design(design: Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    """The study's design, from a mapping, a YAML or a JSON file. `sampling` is cohort unless it
    says case_control.
    """
    if design is None:
        plan: Any = {}
    elif isinstance(design, Mapping):
        plan = dict(design)
    else:
        plan = _read_file(Path(design))
    if not isinstance(plan, dict):
        raise EvaluationError("the design must be a mapping such as 'sampling: cohort'")
    plan.setdefault("sampling", "cohort")
    if plan["sampling"] not in SAMPLINGS:
        raise EvaluationError(f"design: sampling must be {' or '.join(SAMPLINGS)}")
    return plan


def _read_file(path: Path) -> Any:
    if not path.is_file():
        raise EvaluationError(f"the design file {path.name!r} does not exist")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        try:
            return json.loads(text)
        except ValueError:
            raise EvaluationError(f"the design file {path.name!r} is not JSON") from None
    try:
        import yaml
    except ModuleNotFoundError:
        raise EvaluationError(
            "a YAML design needs PyYAML (pip install pyyaml); or give the design as JSON"
        ) from None
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError:
        raise EvaluationError(f"the design file {path.name!r} is not YAML") from None


def _prevalences(given: Any, names: tuple[str, ...]) -> dict[str, float]:
    if given is None:
        return {}
    if isinstance(given, list):
        return {name: value for one in given for name, value in _prevalences(one, names).items()}
    pairs = dict(given) if isinstance(given, Mapping) else dict.fromkeys(names, given)
    for name, value in pairs.items():
        if name not in names:
            raise EvaluationError(
                f"prevalence names the finding {name!r}; the table has {', '.join(names)}"
            )
        if not isinstance(value, int | float) or not 0.0 < value < 1.0:
            raise EvaluationError(
                f"the prevalence of {name!r} must lie between 0 and 1, both excluded"
            )
    return {name: float(value) for name, value in pairs.items()}
