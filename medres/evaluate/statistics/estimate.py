"""One number with its interval, its counts and its method: the E object of report.json."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """An estimate, or None with `why`. Fields without meaning stay None and are left out of the
    JSON.

    `sided` is "two" or "one"; `n` counts units of analysis; `n_clusters` patients; `n_effective` is
    n / `design_effect`.
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
    replicates: int | None = None
    replicates_undefined: int | None = None
    why: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"Estimate.{field.name} is {value}; use None with `why`")
        if (
            self.estimate is None or self.ci_low is None or self.ci_high is None
        ) and self.why is None:
            raise ValueError("an Estimate without a number or an interval needs `why`")

    def to_dict(self) -> dict[str, Any]:
        """The E object: estimate and limits always present, the rest where it has a meaning."""
        always = ("estimate", "ci_low", "ci_high")
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: plain(value)
            for name, value in values.items()
            if value is not None or name in always
        }


def undefined(why: str, **known: Any) -> Estimate:
    """An Estimate without a number, and the reason."""
    return Estimate(None, why=why, **known)


def plain(value: Any) -> Any:
    """A Python int, float, str, bool or None; whole floats of counts stay as they are."""
    return value.item() if hasattr(value, "item") else value
