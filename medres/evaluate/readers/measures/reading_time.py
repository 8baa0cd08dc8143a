"""Reading times by modality: the analysis of variance of the study on the logarithm of seconds.

A mean of logarithms is a geometric mean of seconds, and a difference is a ratio.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from medres.evaluate.readers.analysis import Analysis
from medres.evaluate.readers.options import StudyOptions, pairs_of
from medres.evaluate.readers.outcome import BlockTime, ModalityTime, ReadingTimes, TimeRatio
from medres.evaluate.readers.ratings import Cell, FloatArray, IntArray, Ratings, Readings
from medres.evaluate.readers.variances.covariances import figure_covariance, figure_values
from medres.evaluate.statistics.estimate import Estimate

MIN_PATIENTS = 2
NO_CELL = (
    "the times are not compared, because a reader has fewer than two patients with a time in a "
    "modality"
)


@dataclass(frozen=True)
class MeanFigure:
    """The mean of the ratings of a cell, whatever the truth."""

    name: str = "mean"
    u_statistic: bool = False

    def value(self, cell: Cell) -> float:
        """The mean."""
        return float(cell.rating.mean())

    def leave_one_out(self, cell: Cell) -> tuple[IntArray, FloatArray]:
        """The mean without each patient."""
        patients, number = np.unique(cell.patient, return_inverse=True)
        left = cell.rating.sum() - np.bincount(number, cell.rating)
        return patients, left / (cell.rating.size - np.bincount(number))


def reading_times(ratings: Ratings, options: StudyOptions) -> ReadingTimes | None:
    """None if the table has no time at all."""
    readings = ratings.readings
    if readings is None or np.isnan(readings.time).all():
        return None
    known = ~np.isnan(readings.time)
    n_known = int(known.sum())
    found = ReadingTimes(
        n_known, int(ratings.read.sum()) - n_known, [], [], _blocks(ratings, readings)
    )
    logs = replace(ratings, rating=np.log(readings.time), lesions=None, readings=None)
    if any(np.unique(cell.patient).size < MIN_PATIENTS for cell in logs.cells()):
        return replace(found, why=NO_CELL)
    figure = MeanFigure()
    result = Analysis(
        logs,
        figure_values(figure, logs),
        figure_covariance("jackknife", figure, logs),
        options.analysis,
        options.level,
        pairs_of(logs, options.pair),
        bounded=False,
    )
    modalities = [
        ModalityTime(mean.modality, _exponential(mean.estimate)) for mean in result.modality_means()
    ]
    ratios = [
        TimeRatio(None, item.a, item.b, _exponential(item.difference), item.p_value)
        for item in result.contrasts()
    ]
    ratios += [
        TimeRatio(item.reader, item.a, item.b, _exponential(item.difference), item.p_value)
        for item in result.reader_contrasts()
    ]
    return replace(found, modalities=modalities, ratios=ratios)


def confounded_blocks(ratings: Ratings) -> list[str]:
    """A note if every block was read in one modality only, so that their order is in the
    differences.
    """
    readings = ratings.readings
    if readings is None or len(readings.blocks) < 2 or len(ratings.modalities) < 2:
        return []
    used = [
        {i for i in range(len(ratings.modalities)) if (readings.block[i] == number).any()}
        for number in range(len(readings.blocks))
    ]
    if max(len(modalities) for modalities in used) > 1:
        return []
    return [
        "every block was read in one modality only, so differences between modalities hold "
        "the order of the blocks (learning, fatigue) too"
    ]


def _blocks(ratings: Ratings, readings: Readings) -> list[BlockTime]:
    found = []
    for number, block in enumerate(readings.blocks):
        for i, modality in enumerate(ratings.modalities):
            seconds = readings.time[i][readings.block[i] == number]
            seconds = seconds[~np.isnan(seconds)]
            if seconds.size:
                mean = float(np.exp(np.log(seconds).mean()))
                found.append(BlockTime(block, modality, int(seconds.size), mean))
    return found


def _exponential(logs: Estimate) -> Estimate:
    """The geometric mean, or ratio, of a mean or difference of logarithms."""

    def seconds(log: float | None) -> float | None:
        return None if log is None else float(np.exp(log))

    return replace(
        logs,
        estimate=seconds(logs.estimate),
        ci_low=seconds(logs.ci_low),
        ci_high=seconds(logs.ci_high),
        method=None if logs.method is None else f"{logs.method}; logarithm of seconds",
    )
