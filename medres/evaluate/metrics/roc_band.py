"""A simultaneous confidence band of the ROC curve."""

from __future__ import annotations

import math

from medres.evaluate.results import RocBand
from medres.evaluate.scores.sample import Sample

METHOD = "simultaneous band (Dvoretzky-Kiefer-Wolfowitz inequality, Massart 1990)"


def roc_band(sample: Sample, level: float) -> RocBand | None:
    """Half-widths of a band that holds the whole true ROC curve with at least `level` probability:
    each class gets half of the error (Campbell 1994 uses the same rectangles). The number of
    (effective) patients of a class takes the place of n. None if a class is missing.
    """
    if sample.n_positive == 0 or sample.n_negative == 0:
        return None
    error = (1.0 - level) / 2.0
    sensitivity, specificity = (
        math.sqrt(math.log(2.0 / error) / (2.0 * sample.effective_patients(label)))
        for label in (True, False)
    )
    return RocBand(level, min(1.0, sensitivity), min(1.0, specificity), METHOD)


def band_edge(xs: list[float], ys: list[float], band: RocBand) -> tuple[list[float], list[float]]:
    """The polygon between the curve moved up and to the left, and down and to the right."""
    upper = [(0.0, min(1.0, band.sensitivity))] + [
        (max(0.0, x - band.specificity), min(1.0, y + band.sensitivity))
        for x, y in zip(xs, ys, strict=True)
    ]
    lower = [
        (min(1.0, x + band.specificity), max(0.0, y - band.sensitivity))
        for x, y in zip(xs, ys, strict=True)
    ] + [(1.0, max(0.0, 1.0 - band.sensitivity))]
    edge = [*upper, (1.0, 1.0), *reversed(lower), (min(1.0, band.specificity), 0.0), (0.0, 0.0)]
    return [x for x, _ in edge], [y for _, y in edge]
