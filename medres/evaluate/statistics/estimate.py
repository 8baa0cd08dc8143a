"""One number with its interval, its counts and its method: the E object of report.json."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """An estimate, or None with the reason in `why`. A field that has no meaning for the estimate
    stays None and is left out of the JSON.

    ci_low, ci_high: the interval; None with the reason in `why`. level: of confidence, 0..1.
    sided: "two" or "one". n: units of analysis. numerator, denominator: of a proportion or ratio.
    n_clusters: patients. effective_patients: Kish's number of them, if they have different numbers
    of units; of the smaller class for an AUC. n_effective: n / design_effect. replicates: of the
    bootstrap. flag: why the interval is to be read with care.

    >>> Estimate(0.8, 0.7, 0.9, level=0.95, sided="two").to_dict()
    {'estimate': 0.8, 'ci_low': 0.7, 'ci_high': 0.9, 'level': 0.95, 'sided': 'two'}
    """

    estimate: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    level: float | None = None
    sided: str | None = None
    method: str | None = None
    n: int | None = None
    numerator: float | None = None
    denominator: float | None = None
    n_clusters: int | None = None
    design_effect: float | None = None
    n_effective: float | None = None
    effective_patients: float | None = None
    replicates: int | None = None
    replicates_undefined: int | None = None
    why: str | None = None
    flag: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"Estimate.{field.name} is {value}; use None with `why`")
        if (
            self.estimate is None or self.ci_low is None or self.ci_high is None
        ) and self.why is None:
            raise ValueError("an Estimate without a number or an interval needs `why`")

    @property
    def bounds(self) -> tuple[float, float] | None:
        """(ci_low, ci_high), or None if there is no interval."""
        if self.ci_low is None or self.ci_high is None:
            return None
        return self.ci_low, self.ci_high

    def to_dict(self) -> dict[str, Any]:
        """The E object: estimate and limits always, the other keys if they have a value."""
        always = ("estimate", "ci_low", "ci_high")
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: plain(value)
            for name, value in values.items()
            if value is not None or name in always
        }


def undefined(
    why: str,
    *,
    n: int | None = None,
    numerator: float | None = None,
    denominator: float | None = None,
) -> Estimate:
    """An Estimate without a number, and the reason."""
    return Estimate(None, why=why, n=n, numerator=numerator, denominator=denominator)


def plain(value: Any) -> Any:
    """A Python int, float, str, bool or None; whole floats of counts stay as they are."""
    return value.item() if hasattr(value, "item") else value
