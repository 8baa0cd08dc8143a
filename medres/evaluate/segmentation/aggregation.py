"""From the figures of cases to those of a class: within the patient first, then over patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from medres.evaluate.analyses.worst_errors import hashed
from medres.evaluate.segmentation.case_scores import MM3_PER_ML, NAN, CaseScore, Rules
from medres.evaluate.segmentation.lesions import BINS, bin_names
from medres.evaluate.segmentation.outcome import (
    CaseKind,
    ClassResult,
    LesionBin,
    MaskComparison,
    Overlap,
    SizeStratum,
    SubgroupRow,
    WorstCase,
)
from medres.evaluate.segmentation.surface_elements import FloatArray
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import proportion_estimate
from medres.evaluate.statistics.patient_means import mean_over_patients

NO_SPACING = "the masks have no spacing: give it with --spacing"
EMPTY = "no case has the class in its reference"
TWO_AXES = "the masks have two dimensions: see area_difference_mm2"
MAX_WORST = 6
MAX_ALARMS = 3
#: a stratum by size needs so many cases
MIN_PER_STRATUM = 5
N_STRATA = 3
#: a share of missed patients that a sample should show, and the 95 % upper limit n times the share
#: where none of n was missed
MISSED_SHARE, RULE_OF_THREE = 0.05, 3.0

Getter = Callable[[CaseScore], float]


@dataclass(frozen=True, eq=False)
class ClassScores:
    """The scores of one class, and the name, the patient (a number) and the levels of the subgroup
    columns of each case."""

    scores: Sequence[CaseScore]
    names: Sequence[str]
    patient: NDArray[np.int64]
    levels: Sequence[tuple[str, ...]]

    def take(self, rows: NDArray[np.intp]) -> ClassScores:
        """Some of the cases."""
        at = rows.tolist()
        return ClassScores(
            [self.scores[i] for i in at],
            [self.names[i] for i in at],
            self.patient[rows],
            [self.levels[i] for i in at],
        )

    def values(self, get: Getter) -> FloatArray:
        """(n,) a figure of each case; NaN where it is not defined."""
        return np.array([get(score) for score in self.scores], np.float64)

    def flags(self, get: Callable[[CaseScore], bool]) -> NDArray[np.bool_]:
        """(n,) a property of each case."""
        return np.array([get(score) for score in self.scores], np.bool_)

    def mean(self, get: Getter, level: float, why: str = EMPTY) -> Estimate:
        """The mean of a figure, with its interval."""
        return mean_over_patients(self.values(get), self.patient, level, why=why)

    @property
    def in_reference(self) -> ClassScores:
        """The cases whose reference is not empty."""
        return self.take(np.flatnonzero(self.flags(lambda s: s.in_reference)))

    @property
    def has_spacing(self) -> bool:
        return all(score.has_spacing for score in self.scores)

    @property
    def n_axes(self) -> int:
        return self.scores[0].n_axes

    @property
    def unit(self) -> str:
        """Of sizes in the scores."""
        if not self.has_spacing:
            return "pixels" if self.n_axes == 2 else "voxels"
        return "mm2" if self.n_axes == 2 else "mm3"


def class_result(
    cases: ClassScores, title: str, value: int, columns: Sequence[str], rules: Rules, level: float
) -> ClassResult:
    """The figures of a class over all cases."""
    present = cases.in_reference
    missed, alarm = cases.flags(lambda s: s.missed), cases.flags(lambda s: s.false_alarm)
    absent = cases.flags(lambda s: not s.in_reference)
    lesions, n_split, n_merged = _lesions(cases, level)
    return ClassResult(
        title=title,
        value=value,
        figures=overlap(present, cases.n_axes, has_spacing=cases.has_spacing, level=level),
        tolerance_mm=rules.tolerance,
        convention=rules.convention.name,
        n_cases=len(cases.scores),
        n_patients=int(np.unique(cases.patient).size),
        n_empty_reference=int(absent.sum()),
        n_empty_both=int(cases.flags(lambda s: s.empty).sum()),
        n_missed=int(missed.sum()),
        n_false_alarm=int(alarm.sum()),
        missed_rate=_rate(missed[~absent], cases.patient[~absent], level, EMPTY),
        false_alarm_rate=_rate(
            alarm[absent], cases.patient[absent], level, "no case has an empty reference"
        ),
        false_alarm_ml=_alarm_volume(cases.take(np.flatnonzero(alarm)), level),
        hd95_or_diagonal_mm=_in_mm(present, lambda s: s.hd95_or_diagonal, cases.has_spacing, level),
        lesion_sensitivity=_sensitivity(present, level),
        lesion_false_positives_per_case=cases.mean(lambda s: len(s.false_lesion_size), level),
        n_lesions=sum(len(score.lesion_size) for score in cases.scores),
        n_lesions_split=n_split,
        n_lesions_merged=n_merged,
        hit_iou=rules.hit_iou,
        size_unit=cases.unit,
        lesion_bins=lesions,
        size_strata=_strata(present, level),
        subgroups=_subgroups(present, columns, level),
        worst_cases=worst_cases(cases),
    )


def overlap(present: ClassScores, n_axes: int, *, has_spacing: bool, level: float) -> Overlap:
    """Means over the cases whose reference is not empty."""
    no_distance = "no case has the class in both masks"
    difference = present.mean(lambda s: s.difference, level) if has_spacing else None
    volume, area = difference or undefined(NO_SPACING), None
    if n_axes == 2 and difference is not None:
        volume, area = undefined(TWO_AXES), difference
    pixels = (
        {}
        if has_spacing
        else {
            "hd95_px": present.mean(lambda s: s.hd95, level, no_distance),
            "assd_px": present.mean(lambda s: s.assd, level, no_distance),
        }
    )
    return Overlap(
        dice=_with_missed(present.mean(lambda s: s.dice, level), present),
        iou=_with_missed(present.mean(lambda s: s.iou, level), present),
        hd95_mm=_in_mm(present, lambda s: s.hd95, has_spacing, level, no_distance),
        nsd=_with_missed(_in_mm(present, lambda s: s.nsd, has_spacing, level), present),
        assd_mm=_in_mm(present, lambda s: s.assd, has_spacing, level, no_distance),
        volume_difference_ml=volume,
        area_difference_mm2=area,
        **pixels,
    )


def _with_missed(found: Estimate, present: ClassScores) -> Estimate:
    """With a flag where the interval of a mean that missed cases pull towards 0 may cover too
    little: there are so few patients that a share of MISSED_SHARE may not show in the sample.
    """
    missed = present.patient[present.flags(lambda s: s.missed)]
    n, patients = int(np.unique(missed).size), found.n_clusters or 0
    if found.bounds is None or patients * MISSED_SHARE >= RULE_OF_THREE:
        return found
    text = (
        f"cases of {n} of {patients} patients were missed, and with so few patients the interval "
        f"may cover too little"
        if n
        else f"no case of {patients} patients was missed; up to {RULE_OF_THREE / patients:.0%} of "
        f"all patients may be, and the mean then lies below the interval"
    )
    return replace(found, flag="; ".join(filter(None, (found.flag, text))))


#: figures that two models are compared by
COMPARED: dict[str, Getter] = {
    "dice": lambda s: s.dice,
    "iou": lambda s: s.iou,
    "nsd": lambda s: s.nsd,
    "hd95_mm": lambda s: s.hd95 if s.has_spacing else NAN,
    "assd_mm": lambda s: s.assd if s.has_spacing else NAN,
    "volume_difference_ml": lambda s: abs(s.difference) if s.n_axes == 3 else NAN,
}


def compare_models(
    title: str, a: ClassScores, b: ClassScores, names: tuple[str, str], level: float
) -> list[MaskComparison]:
    """Paired differences a - b of the figures of one class, over the cases whose reference is not
    empty. Volumes are compared by their absolute difference from the reference.
    """
    a, b = a.in_reference, b.in_reference
    rows = []
    for metric, get in COMPARED.items():
        difference = a.values(get) - b.values(get)
        estimate = mean_over_patients(
            difference, a.patient, level, why="no case has the figure for both models"
        )
        n_common = int(np.count_nonzero(~np.isnan(difference)))
        rows.append(MaskComparison(title, metric, *names, n_common, estimate))
    return rows


def worst_cases(cases: ClassScores) -> list[WorstCase]:
    """Missed cases by the size of the reference, then the lowest Dice, and the largest false
    alarms."""
    scores = list(zip(cases.names, cases.scores, strict=True))
    present = [(name, s) for name, s in scores if s.in_reference and s.dice < 1.0]
    alarms = [(name, s) for name, s in scores if s.false_alarm]
    present.sort(key=lambda item: (not item[1].missed, item[1].dice, -item[1].reference_size))
    alarms.sort(key=lambda item: -item[1].prediction_size)
    return [_worst(*item) for item in present[:MAX_WORST] + alarms[:MAX_ALARMS]]


def _worst(name: str, score: CaseScore) -> WorstCase:
    kind: CaseKind = "false alarm" if score.false_alarm else "overlap"
    if score.missed:
        kind = "missed"
    unit = MM3_PER_ML if score.has_spacing and score.n_axes == 3 else 1.0
    return WorstCase(
        case=hashed(name),
        kind=kind,
        dice=_known(score.dice),
        hd95=_known(score.hd95),
        reference_size=score.reference_size / unit,
        prediction_size=score.prediction_size / unit,
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _in_mm(
    present: ClassScores, get: Getter, has_spacing: bool, level: float, why: str = EMPTY
) -> Estimate:
    return present.mean(get, level, why) if has_spacing else undefined(NO_SPACING)


def _rate(hit: NDArray[np.bool_], patient: NDArray[np.int64], level: float, why: str) -> Estimate:
    if hit.size == 0:
        return undefined(why, n=0)
    return proportion_estimate(hit, patient, level)


def _alarm_volume(alarms: ClassScores, level: float) -> Estimate:
    if not alarms.scores:
        return undefined("no false alarm", n=0)
    if not alarms.has_spacing or alarms.n_axes == 2:
        return undefined(NO_SPACING if not alarms.has_spacing else TWO_AXES)
    return alarms.mean(lambda s: s.difference, level)


def _sensitivity(present: ClassScores, level: float) -> Estimate:
    """Lesions that were found, of all lesions; patients as clusters."""
    hits = [np.array(score.lesion_found, np.bool_) for score in present.scores]
    return _lesion_rate(hits, present.patient, level, "there is no lesion")


def _lesion_rate(
    hits: list[NDArray[np.bool_]], patient: NDArray[np.int64], level: float, why: str
) -> Estimate:
    sizes = [hit.size for hit in hits]
    if not sum(sizes):
        return undefined(why, n=0)
    return proportion_estimate(np.concatenate(hits), np.repeat(patient, sizes), level)


def _lesions(cases: ClassScores, level: float) -> tuple[list[LesionBin], int, int]:
    """By size; and the numbers of lesions that were split, and of components that merge some."""
    edges = BINS[cases.n_axes]
    sizes = [np.array(score.lesion_size) for score in cases.scores]
    found = [np.array(score.lesion_found, np.bool_) for score in cases.scores]
    false = np.concatenate([np.array(score.false_lesion_size) for score in cases.scores])
    rows = []
    for i, name in enumerate(bin_names(edges, cases.unit)):
        hits = [
            f[np.searchsorted(edges, s, "right") == i] for s, f in zip(sizes, found, strict=True)
        ]
        n_false = int(np.count_nonzero(np.searchsorted(edges, false, "right") == i))
        rate = _lesion_rate(hits, cases.patient, level, "no lesion of this size")
        n_lesions = sum(hit.size for hit in hits)
        n_found = int(sum(hit.sum() for hit in hits))
        per_case = n_false / len(cases.scores)
        rows.append(LesionBin(name, n_lesions, n_found, rate, n_false, per_case))
    n_split = sum(score.n_split for score in cases.scores)
    return rows, n_split, sum(score.n_merged for score in cases.scores)


def _strata(present: ClassScores, level: float) -> list[SizeStratum]:
    """A third of the cases in each; none for few cases."""
    sizes = present.values(lambda s: s.reference_size)
    if sizes.size < N_STRATA * MIN_PER_STRATUM:
        return []
    unit = MM3_PER_ML if present.unit == "mm3" else 1.0
    name = "ml" if present.unit == "mm3" else present.unit
    rows = []
    order = np.argsort(sizes, kind="stable")
    cuts = np.linspace(0, sizes.size, N_STRATA + 1).round().astype(int)
    for start, stop in pairwise(cuts.tolist()):
        part = present.take(order[start:stop])
        low, high = sizes[order[start]] / unit, sizes[order[stop - 1]] / unit
        rows.append(
            SizeStratum(
                f"{low:.3g} to {high:.3g} {name}",
                len(part.scores),
                int(np.unique(part.patient).size),
                part.mean(lambda s: s.dice, level),
                part.mean(lambda s: s.hd95, level, "no case has the class in both masks"),
            )
        )
    return rows


def _subgroups(present: ClassScores, columns: Sequence[str], level: float) -> list[SubgroupRow]:
    rows = []
    for i, column in enumerate(columns):
        of_case = np.array([levels[i] for levels in present.levels])
        for name in sorted(set(of_case.tolist())):
            part = present.take(np.flatnonzero(of_case == name))
            figures = overlap(part, part.n_axes, has_spacing=part.has_spacing, level=level)
            rows.append(
                SubgroupRow(
                    column,
                    name or "(empty)",
                    len(part.scores),
                    int(np.unique(part.patient).size),
                    int(part.flags(lambda s: s.missed).sum()),
                    figures,
                )
            )
    return rows
