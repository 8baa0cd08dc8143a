"""Labels by subgroup, counted by patient: where the shares differ, a model can infer the label from
the subgroup, a confounder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from medres.evaluate.analyses.subgroups import holm

MIN_PATIENTS = 5  # of a level that counts for the difference
MAX_LEVELS = 12  # of a column, in the tables
MAX_P, MIN_DIFFERENCE = 0.01, 0.05  # of an association that is marked
_DRAWS = 9_999  # of the permutation test
_ROUNDING = 1e-9


@dataclass(frozen=True)
class ComparedLabel:
    """A label whose share is compared. positive, assessed: boolean, one value per image."""

    name: str
    positive: pd.Series
    assessed: pd.Series


@dataclass(frozen=True)
class Level:
    """One level of a column. patients: those with images there. shares: of those assessed, the
    share with each label; None where nobody was assessed.
    """

    name: str
    images: int
    patients: int
    shares: tuple[float | None, ...]


@dataclass(frozen=True)
class Association:
    """Between a column and a label, by patient. cramers_v: corrected for bias (Bergsma 2013).
    p_value: Fisher's exact test of a 2 x 2 table, else a permutation test of chi-square; where
    patients lie at several levels, a test with the patient as cluster. None where the table has one
    row or column. p_adjusted: Holm, over all that the page shows. test: its name. difference:
    largest minus smallest share among levels of MIN_PATIENTS patients or more.
    """

    label: str
    cramers_v: float | None
    p_value: float | None
    p_adjusted: float | None
    test: str
    difference: float

    @property
    def marked(self) -> bool:
        """Whether the column can tell the label."""
        adjusted = 1.0 if self.p_adjusted is None else self.p_adjusted
        return adjusted < MAX_P and self.difference > MIN_DIFFERENCE


@dataclass(frozen=True)
class Subgroup:
    """A column with two levels or more. more: levels that `levels` leaves out. in_several: patients
    with images at several levels.
    """

    column: str
    levels: tuple[Level, ...]
    more: int
    in_several: int
    associations: tuple[Association, ...]

    @property
    def marked(self) -> bool:
        return any(association.marked for association in self.associations)


def subgroup(
    column: str,
    values: pd.Series,
    patients: pd.Series,
    labels: Sequence[ComparedLabel],
    order: Sequence[str] = (),
) -> Subgroup | None:
    """The labels by the level of each image in `values`, by patient; None for a single level or for
    very many.

    A patient has a label at a level if one of their images there has it. Patients with images at
    several levels count at each of them; in V and in the test, with a weight of one in all.
    order: of the levels; default: the most frequent first.
    """
    count = values.value_counts()
    if len(count) < 2 or len(count) > 4 * MAX_LEVELS:
        return None
    names = [name for name in (order or count.index) if name in count.index]
    shares, associations = [], []
    for label in labels:
        rows = label.assessed
        frame = pd.DataFrame({"patient": patients, "level": values, "positive": label.positive})
        pairs = frame[rows].groupby(["patient", "level"])["positive"].any().reset_index()
        patient = pd.factorize(pairs["patient"])[0]
        level = pairs["level"].map(names.index).to_numpy(int)
        positive = pairs["positive"].to_numpy(bool)
        table = np.zeros((len(names), 2))
        np.add.at(table, (level, positive.astype(int)), 1)
        with np.errstate(invalid="ignore"):
            shares.append(table[:, 1] / table.sum(axis=1))
        associations.append(_association(label.name, patient, level, positive))
    levels_of_patient = values.groupby(patients).nunique()
    patients_of_level = patients.groupby(values).nunique()
    levels = tuple(
        Level(
            name,
            int(count[name]),
            int(patients_of_level[name]),
            tuple(None if np.isnan(share[n]) else float(share[n]) for share in shares),
        )
        for n, name in enumerate(names[:MAX_LEVELS])
    )
    several = int((levels_of_patient > 1).sum())
    return Subgroup(column, levels, max(0, len(names) - MAX_LEVELS), several, tuple(associations))


def adjusted(subgroups: Sequence[Subgroup]) -> list[Subgroup]:
    """The subgroups with Holm's p-values over all of their associations."""
    p_values = {
        f"{n} {a.label}": a.p_value
        for n, one in enumerate(subgroups)
        for a in one.associations
        if a.p_value is not None
    }
    adjusted_p = holm(p_values)
    return [
        replace(
            one,
            associations=tuple(
                replace(a, p_adjusted=adjusted_p.get(f"{n} {a.label}")) for a in one.associations
            ),
        )
        for n, one in enumerate(subgroups)
    ]


def _association(
    label: str, patient: np.ndarray, level: np.ndarray, positive: np.ndarray
) -> Association:
    """patient, level: integers, positive: boolean, one of each per pair of patient and level."""
    if not positive.size:
        return Association(label, None, None, None, "", 0.0)
    size = int(level.max()) + 1
    weight = 1 / np.bincount(patient)[patient]
    counts = np.zeros((size, 2))
    np.add.at(counts, (level, positive.astype(int)), 1)
    large = counts.sum(axis=1) >= MIN_PATIENTS
    shares = counts[large, 1] / counts[large].sum(axis=1)
    difference = float(np.ptp(shares)) if len(shares) > 1 else 0.0
    table = np.zeros((size, 2))
    np.add.at(table, (level, positive.astype(int)), weight)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    if min(table.shape) < 2:
        return Association(label, None, None, None, "", difference)
    if (weight == 1).all():
        p_value: float | None = independence_p(table.astype(int))
        test = "Fisher" if table.shape == (2, 2) else "permutation"
    else:
        chosen = large[level]
        p_value = clustered_p(patient[chosen], level[chosen], positive[chosen])
        test = "clustered by patient"
    return Association(label, cramers_v(table), p_value, None, test, difference)


def clustered_p(patient: np.ndarray, level: np.ndarray, positive: np.ndarray) -> float | None:
    """The p-value of no association between level and label where patients lie at several levels.

    patient, level: integers, positive: boolean, one of each per pair of patient and level. Each
    patient gives one vector, the weighted covariance of level and label over their pairs;
    Hotelling's test asks whether its mean is zero. None where there is no variance or there are too
    few patients for the levels.
    """
    if not patient.size:
        return None
    weight = 1 / np.bincount(patient)[patient]
    levels = (level[:, None] == np.unique(level)[1:]).astype(float)
    x = levels - np.average(levels, axis=0, weights=weight)
    y = positive - np.average(positive, weights=weight)
    _, cluster = np.unique(patient, return_inverse=True)
    scores = np.zeros((cluster.max() + 1, x.shape[1]))
    np.add.at(scores, cluster, weight[:, None] * x * y[:, None])
    count, columns = scores.shape
    covariance = np.atleast_2d(np.cov(scores, rowvar=False)) if count > 1 else np.zeros((1, 1))
    if not columns or count <= columns or np.linalg.matrix_rank(covariance) < columns:
        return None
    mean = scores.mean(axis=0)
    t_squared = count * float(mean @ np.linalg.solve(covariance, mean))
    scale = (count - columns) / (columns * (count - 1))
    return float(stats.f.sf(scale * t_squared, columns, count - columns))


def cramers_v(table: np.ndarray) -> float:
    """Cramer's V of a table of counts without empty rows and columns, corrected for bias.

    Bergsma, J Korean Stat Soc 2013;42:323.

    >>> cramers_v(np.array([[10, 0], [0, 10]])), cramers_v(np.array([[5, 5], [5, 5]]))
    (1.0, 0.0)
    """
    n = table.sum()
    rows, cols = table.shape
    phi = max(0.0, _chi_square(table) / n - (rows - 1) * (cols - 1) / (n - 1))
    smaller = min(rows - (rows - 1) ** 2 / (n - 1), cols - (cols - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(min(1.0, phi / smaller))) if smaller > 0 else 0.0


def independence_p(table: np.ndarray) -> float:
    """The p-value of independence of rows and columns: Fisher's exact test of 2 x 2, else the place
    of chi-square among random tables with the same margins.

    >>> round(independence_p(np.array([[3, 0], [0, 3]])), 3)
    0.1
    """
    if table.shape == (2, 2):
        return float(stats.fisher_exact(table).pvalue)
    observed = _chi_square(table)
    tables = stats.random_table(table.sum(axis=1), table.sum(axis=0), seed=0).rvs(_DRAWS)
    extreme = int((_chi_square(tables) >= observed * (1 - _ROUNDING)).sum())
    return (1 + extreme) / (1 + _DRAWS)


def _chi_square(tables: np.ndarray) -> np.ndarray:
    """Pearson's statistic of counts (..., rows, columns)."""
    rows, cols = tables.sum(axis=-1, keepdims=True), tables.sum(axis=-2, keepdims=True)
    expected = rows * cols / tables.sum(axis=(-2, -1), keepdims=True)
    return np.asarray(((tables - expected) ** 2 / expected).sum(axis=(-2, -1)))
