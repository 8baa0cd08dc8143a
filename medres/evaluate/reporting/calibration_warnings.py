"""What the calibration of a finding means in plain words, where it is clearly off."""

from __future__ import annotations

from collections.abc import Iterator

from medres.evaluate.results import Calibration, NoCalibration
from medres.evaluate.statistics.estimate import Estimate

NEGLIGIBLE = 0.05  # a ratio or slope this close to 1 is not worth a warning, however certain


def calibration_warnings(calibration: Calibration | NoCalibration) -> Iterator[tuple[str, str]]:
    """(code, text) where the interval of the ratio of observed to expected cases, or of the slope,
    excludes 1."""
    ratio, slope = calibration.oe_ratio, calibration.slope
    if ratio.estimate is not None and _excludes_one(ratio):
        too = "high" if ratio.estimate < 1.0 else "low"
        yield (
            "miscalibrated",
            f"The predicted probabilities are too {too} on average: for every 100 cases that they "
            f"predict, {100 * ratio.estimate:.0f} have the finding (observed/expected "
            f"{_with_limits(ratio)}). Do not read a score as a risk before it is recalibrated.",
        )
    if slope.estimate is not None and _excludes_one(slope):
        yield (
            "calibration_slope",
            f"{_slope_words(slope.estimate)} (calibration slope "
            + (f"{_with_limits(slope)}; 1 is ideal)."),
        )


def _slope_words(slope: float) -> str:
    if slope <= 0.0:
        return "Higher predicted probabilities do not go with more cases"
    if slope < 1.0:
        return (
            "The predicted probabilities are too extreme: the high ones are too high and the low "
            "ones too low"
        )
    return (
        "The predicted probabilities are not extreme enough: the high ones are too low and the low "
        "ones too high"
    )


def _excludes_one(estimate: Estimate) -> bool:
    if estimate.bounds is None or abs((estimate.estimate or 0.0) - 1.0) < NEGLIGIBLE:
        return False
    low, high = estimate.bounds
    return not low <= 1.0 <= high


def _with_limits(estimate: Estimate) -> str:
    low, high = estimate.bounds or (0.0, 0.0)
    level = 100 * (estimate.level or 0.0)
    return f"{estimate.estimate:.2f}, {level:g}% CI {low:.2f} to {high:.2f}"
