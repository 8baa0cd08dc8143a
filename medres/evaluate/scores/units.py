"""From images to units of analysis: scores and labels are pooled; the patient is the cluster."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_pipelines.labels.task import TaskName
from medres.errors import EvaluationError
from medres.evaluate.scores.io import release_memory
from medres.evaluate.scores.sample import Float64Array, Int64Array, Sample
from medres.evaluate.scores.table import LEVELS, UNIT_PLURAL, Table

POOLS = ("max", "mean", "noisy_or")
MIXED = "(mixed)"


@dataclass(frozen=True)
class AnalysisUnits:
    """A table with one row per unit of analysis.

    label, score: as in Table. refused (n,) bool: units without a score. patient (n,) int64: codes
    from 0 over the whole table (of the unit if no patient is known). fold (n,) int64: codes.
    columns: ids and subgroup columns, "(mixed)" if images of a unit
    differ. pooled: whether units have more than one image.
    """

    task: TaskName
    unit: str
    names: tuple[str, ...]
    label: dict[str, Float64Array]
    score: dict[str, Float64Array]
    refused: np.ndarray
    patient: Int64Array
    has_patient: bool
    fold: Int64Array
    columns: pd.DataFrame
    n_images: int
    pooled: bool

    @property
    def key(self) -> pd.Series:
        """(n,) the ids of the units as text; their row numbers if the table has none."""
        if self.unit in self.columns.columns:
            return self.columns[self.unit].astype("str")
        return pd.Series(np.arange(self.n_units)).astype("str")

    @property
    def n_units(self) -> int:
        return int(self.patient.size)

    @property
    def n_patients(self) -> int | None:
        return int(self.patient.max(initial=-1)) + 1 if self.has_patient else None

    def usable(self, name: str) -> np.ndarray:
        """(n,) units with a label of 0 or 1 and a score."""
        return ~self.refused & self.assessed(name)

    def assessed(self, name: str) -> np.ndarray:
        """(n,) units with a label of 0 or 1."""
        return np.isin(self.label[name], (0.0, 1.0))

    def sample(self, name: str) -> Sample:
        use = self.usable(name)
        return Sample(
            self.label[name][use] == 1.0, self.score[name][use], self.patient[use], self.fold[use]
        )


def to_units(table: Table, unit: str | None, pool: str, pool_label: str | None) -> AnalysisUnits:
    """Pool a table to `unit` (default: image). Raises EvaluationError if labels or patients differ
    inside a unit.

    pool: how scores are pooled: max, mean or noisy_or (1 - product of 1 - p).
    pool_label: None (labels must agree) or "any" (one positive image makes the unit positive).
    """
    unit = "image" if unit is None else unit
    if unit not in LEVELS:
        raise EvaluationError(
            f"unit is {unit!r}; it can be {', '.join(LEVELS)}", code="unknown_option"
        )
    if pool not in POOLS:
        raise EvaluationError(
            f"pool is {pool!r}; it can be {', '.join(POOLS)}", code="unknown_option"
        )
    if pool_label not in (None, "any"):
        raise EvaluationError(
            f"pool_label is {pool_label!r}; it can be 'any' or left out", code="unknown_option"
        )
    columns = table.columns
    if unit == "image":
        code: np.ndarray = np.arange(table.n_rows)
    elif unit not in columns.columns:
        raise EvaluationError(
            f"the unit of analysis is {unit!r}, but the scores table has no column {unit!r}",
            code="missing_column",
        )
    else:
        key = [unit, *(c for c in ("seed",) if c in columns.columns)]
        code = columns.groupby(key, sort=True).ngroup().to_numpy()
    if unit == "image" or code.size == code.max(initial=-1) + 1:
        order = slice(None) if unit == "image" else np.argsort(code)
        return _units(
            table,
            unit,
            order,
            np.arange(code.size),
            table.label,
            table.score,
            table.status != "scored",
            False,
        )
    refused = np.bincount(code, table.status == "scored") == 0
    label = {n: _pool_label(table.label[n], code, pool_label, unit, n) for n in table.names}
    score = {n: _pool_score(table.score[n], code, pool, n) for n in table.names}
    first = np.unique(code, return_index=True)[1]
    return _units(table, unit, first, code, label, score, refused, True)


def _units(
    table: Table,
    unit: str,
    first: np.ndarray | slice,
    code: np.ndarray,
    label: dict[str, Float64Array],
    score: dict[str, Float64Array],
    refused: np.ndarray,
    pooled: bool,
) -> AnalysisUnits:
    columns = table.columns
    if not pooled:
        label, score = (
            {n: v[first] for n, v in label.items()},
            {n: v[first] for n, v in score.items()},
        )
        refused = refused[first]
    rows = columns.iloc[first].reset_index(drop=True)
    if pooled:
        varying = [c for c in columns.columns if c != unit]
        rows = rows.assign(**{c: _constant(columns[c], rows[c], code) for c in varying})
    has_patient = "patient" in columns.columns
    if has_patient and pooled and (rows["patient"] == MIXED).any():
        raise EvaluationError(
            f"{int((rows['patient'] == MIXED).sum())} of {len(rows)} {UNIT_PLURAL[unit]} contain "
            f"images of several patients: correct the column {unit!r} or 'patient'",
            code="mixed_patients",
        )
    if has_patient:
        patient = pd.factorize(rows["patient"], sort=True)[0]
    elif unit in rows.columns:
        patient = pd.factorize(rows[unit], sort=True)[0]
    else:
        patient = pd.factorize(np.arange(len(rows)).astype(str), sort=True)[0]
    splits = [c for c in ("seed", "fold") if c in columns.columns]
    fold = (
        rows.groupby(splits, sort=True).ngroup().to_numpy()
        if splits
        else np.zeros(len(rows), dtype=np.int64)
    )
    release_memory()
    return AnalysisUnits(
        table.task, unit, table.names, label, score, refused, patient.astype(np.int64), has_patient,
        fold.astype(np.int64), rows, table.n_rows, pooled,
    )  # fmt: skip


def _constant(column: pd.Series, first: pd.Series, code: np.ndarray) -> pd.Series:
    text, start = column.astype(str).to_numpy(), first.astype(str).to_numpy()
    differs = np.bincount(code, text != start[code]) > 0
    return first.astype("object").where(~differs, MIXED)


def _pool_label(
    label: Float64Array, code: np.ndarray, rule: str | None, unit: str, name: str
) -> Float64Array:
    """The label that all assessed rows of a unit share. With "any": 1 if a row is 1, else -1 if a
    row is -1, else NaN if a row is not assessed, else 0.
    """
    groups = int(code.max()) + 1
    has = {v: np.bincount(code, label == v, minlength=groups) > 0 for v in (0.0, 1.0, -1.0)}
    has_gap = np.bincount(code, np.isnan(label), minlength=groups) > 0
    if rule == "any":
        return np.select([has[1.0], has[-1.0], has_gap], [1.0, -1.0, np.nan], 0.0)
    differ = has[0.0].astype(int) + has[1.0] + has[-1.0] > 1
    if differ.any():
        both = bool((has[0.0] & has[1.0])[differ].all())
        labels = "both positive and negative images" if both else "images with different labels"
        raise EvaluationError(
            f"{int(differ.sum())} of {groups} {UNIT_PLURAL[unit]} have {labels} for {name}: add "
            f"--pool-label any if one positive image makes the {unit} positive, or choose a finer "
            "--unit",
            code="mixed_labels",
        )
    return np.select([has[1.0], has[0.0], has[-1.0]], [1.0, 0.0, -1.0], np.nan)


def _pool_score(score: Float64Array, code: np.ndarray, pool: str, name: str) -> Float64Array:
    """Max, mean or 1 - product(1 - p) over the scored rows of a unit; NaN if it has none."""
    groups, scored = int(code.max()) + 1, ~np.isnan(score)
    count = np.bincount(code, scored, minlength=groups)
    if pool == "max":
        out = np.full(groups, -np.inf)
        np.maximum.at(out, code[scored], score[scored])
    elif pool == "mean":
        out = np.bincount(code[scored], score[scored], minlength=groups) / np.maximum(count, 1)
    else:
        if (score[scored] < 0).any() or (score[scored] > 1).any():
            raise EvaluationError(
                f"pool noisy_or needs probabilities, but scores of {name!r} are outside 0..1: use "
                "max or mean",
                code="not_probabilities",
            )
        out = np.ones(groups)
        np.multiply.at(out, code[scored], 1.0 - score[scored])
        out = 1.0 - out
    return np.where(count > 0, out, np.nan)
