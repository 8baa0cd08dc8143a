"""Whether the AUC differs between the levels of a column: a studentised permutation test for few
patients, a Wald test for many, and the reason if there is neither.

The permutation moves the level from patient to patient, among patients with the same labels, so
every level keeps its numbers of patients with and without the finding. It exists at an AUC of 0 or
1, where a Wald test has no variance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medres.evaluate.metrics.roc import influence, placements
from medres.evaluate.scores.sample import Float64Array, Int64Array, Sample
from medres.evaluate.statistics.bootstrap import SEED

FEW_PATIENTS = 100  # of a class in any level: fewer are permuted, more have the Wald test
MAX_PERMUTED = 40_000  # units x levels; above it the Wald test
DRAWS, MIN_DRAWS = 2000, 400
WORK = 20_000_000  # units x levels x draws
CHUNK = 1_000_000  # units x draws at once
PERMUTATION = "studentized permutation of the levels among patients with the same labels"
WALD = "Wald test of the logit AUCs, patients as clusters"


@dataclass(frozen=True)
class LevelTest:
    """p_value: None with the reason in `why`."""

    p_value: float | None
    method: str | None = None
    why: str | None = None


def level_test(sample: Sample, level: NDArray[Any], compared: list[str]) -> LevelTest:
    """Test that the AUC is the same in all levels `compared`; level (n,) is that of each unit."""
    if len(compared) < 2:
        return LevelTest(None, why="fewer than two levels have ten patients of each class")
    code_of_unit = np.full(level.size, -1, dtype=np.int32)
    for i, name in enumerate(sorted(compared)):
        code_of_unit[level == name] = i
    use = code_of_unit >= 0
    code = code_of_unit[use]
    sample = sample if use.all() else sample.take(use)
    n_patients = int(sample.patient.max()) + 1
    patients, fitted = [], []
    for i in range(len(compared)):
        part = sample.take(code == i)
        patients += [part.patients_with(label) for label in (True, False)]
        fitted.append(_auc_and_influence(part, n_patients))
        del part  # before the next one is taken, since those of a large table are large
    perfect = any(auc in (0.0, 1.0) for auc, _ in fitted)
    few = min(patients) < FEW_PATIENTS and code.size * len(compared) <= MAX_PERMUTED
    movable = not _varies(sample.patient, code) and not np.ptp(sample.fold)
    if movable and (few or perfect):
        return LevelTest(permutation_p(sample, code), PERMUTATION)
    if perfect:
        where = "cross-validation folds" if np.ptp(sample.fold) else "levels"
        return LevelTest(
            None,
            why="an AUC is exactly 0 or 1, which leaves no variance for a Wald test, and patients "
            f"occur in several {where}, so that levels cannot be permuted",
        )
    p_value = _wald_p(fitted)
    if p_value is None:
        return LevelTest(None, why="the estimated variance of the difference is zero")
    return LevelTest(p_value, WALD)


def interaction(parts: list[Sample], n_patients: int) -> float | None:
    """Wald chi-square that the logit AUCs of the parts are equal, patients shared between parts
    allowed; None if undefined.
    """
    return _wald_p([_auc_and_influence(part, n_patients) for part in parts])


def _wald_p(fitted: list[tuple[float, Float64Array]]) -> float | None:
    """fitted: the AUC and its influence by patient (g,) for each part."""
    auc = np.array([value for value, _ in fitted])
    if auc.size < 2 or (auc <= 0.0).any() or (auc >= 1.0).any():
        return None
    slope = 1.0 / (auc * (1.0 - auc))
    products = np.array([[a @ b for _, b in fitted] for _, a in fitted])
    contrast = np.diff(np.eye(auc.size), axis=0)
    difference, covariance = (
        contrast @ np.log(auc / (1.0 - auc)),
        contrast @ (products * np.outer(slope, slope)) @ contrast.T,
    )
    if np.linalg.matrix_rank(covariance) < auc.size - 1:
        return None
    chi_square = float(difference @ np.linalg.solve(covariance, difference))
    return float(stats.chi2.sf(chi_square, auc.size - 1))


def _auc_and_influence(part: Sample, n_patients: int) -> tuple[float, Float64Array]:
    model = placements(part, n_patients)
    return model.auc, influence(model)


def permutation_p(sample: Sample, code: NDArray[np.signedinteger[Any]], seed: int = SEED) -> float:
    """The share of permutations, the observed one included, in which the AUCs differ at least as
    much. code (n,): the level of each unit, from 0; constant within a patient.
    """
    table = _Table(sample)
    _, first = np.unique(table.patient, return_index=True)
    observed = code[table.order][first]  # by patient
    strata = [np.flatnonzero(table.labels == kind) for kind in np.unique(table.labels)]
    levels = int(code.max()) + 1
    statistic = float(table.heterogeneity(observed[None], levels)[0])
    draws = min(DRAWS, max(MIN_DRAWS, WORK // (code.size * levels)))
    as_large = sum(
        int(np.count_nonzero(table.heterogeneity(batch, levels) >= statistic * (1.0 - 1e-9)))
        for batch in _permutations(observed, strata, draws, max(1, CHUNK // code.size), seed)
    )
    return (1 + as_large) / (1 + draws)


def _permutations(
    observed: Int64Array, strata: list[NDArray[np.intp]], draws: int, at_once: int, seed: int
) -> Iterator[Int64Array]:
    rng = np.random.default_rng(seed)
    for start in range(0, draws, at_once):
        batch = np.tile(observed, (min(at_once, draws - start), 1))
        for members in strata:
            batch[:, members] = rng.permuted(batch[:, members], axis=1)
        yield batch


class _Table:
    """Units sorted by patient, and the positions that sorting them by score gives, once for all
    permutations."""

    def __init__(self, sample: Sample) -> None:
        # the order of rows must not matter
        self.order = np.lexsort((sample.score, sample.label, sample.patient))
        self.label, score = sample.label[self.order], sample.score[self.order]
        patient = sample.patient[self.order]
        self.starts = np.flatnonzero(np.append(True, patient[1:] != patient[:-1]))
        self.patient = np.repeat(
            np.arange(self.starts.size), np.diff(np.append(self.starts, patient.size))
        )
        any_positive = np.maximum.reduceat(self.label, self.starts)
        any_negative = np.maximum.reduceat(~self.label, self.starts)
        self.labels = any_positive + 2 * any_negative.astype(np.int64)  # the stratum of a patient
        self.by_score = np.argsort(score, kind="stable")
        ranked = score[self.by_score]
        self.first = np.searchsorted(ranked, score, "left")  # units below each unit's score
        self.last = np.searchsorted(ranked, score, "right")

    def heterogeneity(self, level: Int64Array, levels: int) -> Float64Array:
        """(b,) of Cochran's Q of the AUCs of the levels, level (b, patients)."""
        unit = level[:, self.patient]
        fitted = [self._auc(unit == i) for i in range(levels)]
        auc, variance = (np.stack(columns, axis=1) for columns in zip(*fitted, strict=True))
        weight = 1.0 / variance
        mean = np.sum(weight * auc, axis=1, keepdims=True) / np.sum(weight, axis=1, keepdims=True)
        return np.asarray(np.sum(weight * (auc - mean) ** 2, axis=1))

    def _auc(self, member: NDArray[np.bool_]) -> tuple[Float64Array, Float64Array]:
        """(b,) AUCs of the members and their variances by Obuchowski 1997, with a floor for
        AUC 0 and 1: as if half a pair of patients were ranked wrongly.
        """
        a, b = (member & self.label).astype(np.float64), (member & ~self.label).astype(np.float64)
        n1, n0 = a.sum(axis=1, keepdims=True), b.sum(axis=1, keepdims=True)
        auc = np.sum(a * self._below(b), axis=1, keepdims=True) / (n1 * n0)
        positive = a * (self._below(b) / n0 - auc) / n1
        negative = b * (1.0 - self._below(a) / n1 - auc) / n0
        parts = [np.add.reduceat(v, self.starts, axis=1) for v in (positive, negative)]
        groups, every = (
            [np.count_nonzero(np.add.reduceat(v, self.starts, axis=1), axis=1) for v in of]
            for of in ((a, b), (a + b,))
        )
        variance = 2.0 * np.sum(parts[0] * parts[1], axis=1) * every[0] / (every[0] - 1.0)
        for part, g in zip(parts, groups, strict=True):
            variance += np.sum(part**2, axis=1) * g / (g - 1.0)
        pairs = np.multiply(*groups)
        wrong = 0.5 / (pairs + 1.0)
        floor = wrong * (1.0 - wrong) / np.minimum(*groups)
        return auc[:, 0], np.maximum(variance, floor)

    def _below(self, weight: Float64Array) -> Float64Array:
        """(b, n) the weight below each unit's score plus half the weight at it."""
        total = np.zeros((weight.shape[0], weight.shape[1] + 1))
        np.cumsum(weight[:, self.by_score], axis=1, out=total[:, 1:])
        return np.asarray((total[:, self.first] + total[:, self.last]) / 2.0)


def _varies(patient: Int64Array, code: NDArray[np.signedinteger[Any]]) -> bool:
    """Whether any patient has units of several levels."""
    levels, patients = int(code.max()) + 1, np.count_nonzero(np.bincount(patient))
    return bool(np.count_nonzero(np.bincount(patient * levels + code)) > patients)
