"""All figures of one class: what is matched once, the draws of patients, and the estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from medres.evaluate.detection.average_precision import (
    SIZES,
    PrecisionMatches,
    match_precision,
)
from medres.evaluate.detection.boxes import Boxes, Images
from medres.evaluate.detection.froc import RATES, Marks, match_marks
from medres.evaluate.detection.outcome import (
    BoxCurves,
    BoxFinding,
    BoxOperatingPoint,
    BoxSubgroup,
    FrocPoint,
    SizeRow,
)
from medres.evaluate.metrics.auc import auc_estimates
from medres.evaluate.scores.sample import Float64Array, Sample
from medres.evaluate.statistics.bca import Draws, bca_estimate, draw
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import proportion_estimate

GRID = np.unique([*RATES, *np.geomspace(1 / 16, 8.0, 33)])  # of the band, false positives per image
NO_REFERENCE = "no reference box of this class (and size)"
MIN_SUBGROUP = 10  # patients; below it a subgroup has no figures
MOST_POINTS = 400  # of a curve in the report

# Positions in the vector of statistics: first AP by size (mean, .5, .75), then FROC.
AP, AP50, AP75 = 0, 1, 2
PER_SIZE = 3
FROC_MEAN = PER_SIZE * len(SIZES)
FROC = FROC_MEAN + 1


@dataclass(frozen=True)
class Threshold:
    """A threshold on the score. origin: frozen, declared or exploratory."""

    name: str
    value: float
    origin: str


@dataclass(frozen=True)
class MatchedClass:
    """The predictions and references of one class, matched once."""

    predicted: Boxes
    reference: Boxes
    images: Images
    rule: str

    @cached_property
    def precision(self) -> list[PrecisionMatches]:
        """One for each range of sizes."""
        n = len(self.images)
        return [match_precision(self.predicted, self.reference, n, size=size) for size in SIZES]

    @cached_property
    def marks(self) -> Marks:
        return match_marks(self.predicted, self.reference, len(self.images), self.rule)

    def statistics(self, weight: Float64Array) -> Float64Array:
        """AP, AP50, AP75 of each size, mean FROC sensitivity, sensitivity at GRID. weight
        (images,): how often each image counts.
        """
        precisions = [matches.average_precisions(weight) for matches in self.precision]
        by_size = [[ap.mean(), ap[0], ap[5]] for ap in precisions]
        froc = self.marks.sensitivities(GRID, weight)
        mean = froc[np.isin(GRID, RATES)].mean()
        return np.concatenate([np.ravel(by_size), [mean], froc])

    def draws(self, replicates: int) -> Draws:
        """Of all patients; the same ones for every class and model."""
        patient = self.images.patient
        n = int(patient.max()) + 1
        return draw(lambda weight: self.statistics(weight[patient]), n, replicates=replicates)


def evaluate_class(
    matched: MatchedClass,
    draws: Draws,
    thresholds: Sequence[Threshold],
    subgroups: pd.DataFrame,
    *,
    unit: str,
    level: float,
    replicates: int,
) -> BoxFinding:
    """Every figure of one class. draws: of `MatchedClass.draws`. subgroups: columns in the order of
    the images. unit: of the case-level ROC, image or patient.
    """
    images, marks = matched.images, matched.marks
    with_lesion = np.flatnonzero(marks.lesions)

    def estimate(index: int) -> Estimate:
        return bca_estimate(draws, index, level, n=len(images), why=NO_REFERENCE)

    return BoxFinding(
        n_boxes=len(matched.reference),
        n_lesions=int(marks.lesions.sum()),
        n_images=len(images),
        n_patients=int(images.patient.max()) + 1,
        n_predictions=len(matched.predicted),
        duplicates=marks.duplicates,
        ap=estimate(AP),
        ap50=estimate(AP50),
        ap75=estimate(AP75),
        froc=[
            _froc_point(matched, estimate(FROC + int(np.flatnonzero(rate == GRID)[0])), rate)
            for rate in RATES
        ],
        froc_mean=estimate(FROC_MEAN),
        case_auc=_case_auc(matched, unit, level, with_lesion.size),
        sizes=[
            SizeRow(
                size,
                int(matches.references.sum()),
                estimate(PER_SIZE * i + AP),
                estimate(PER_SIZE * i + AP50),
            )
            for i, (size, matches) in enumerate(zip(SIZES, matched.precision, strict=True))
            if size != "all"
        ],
        operating_points=[_operating_point(matched, t, level) for t in thresholds],
        subgroups=[
            _subgroup(matched, column, value, mask, level, replicates)
            for column in subgroups.columns
            for value, mask in _levels(subgroups[column])
        ],
        curves=_curves(matched, draws, level),
    )


def _froc_point(matched: MatchedClass, sensitivity: Estimate, rate: float) -> FrocPoint:
    marks = matched.marks
    threshold = marks.threshold_at(rate)
    carried = marks.reaches() < rate
    hits = marks.hits(threshold)
    free = marks.lesions == 0
    averaged = None
    if hits.size:
        patient = matched.images.patient[marks.lesion_image]
        each = pd.Series(hits).groupby(patient).mean()
        averaged = float(each.mean())
    return FrocPoint(
        fp_per_image=rate,
        sensitivity=replace(sensitivity, flag="beyond the end of the curve")
        if carried and sensitivity.estimate is not None
        else sensitivity,
        patient_averaged=averaged,
        fp_per_lesion_free_image=float(marks.false_marks(threshold)[free].mean())
        if free.any()
        else None,
        threshold=threshold if np.isfinite(threshold) else None,
        carried=carried,
    )


def _case_auc(matched: MatchedClass, unit: str, level: float, n_positive: int) -> Estimate:
    """ROC area of the highest score of each case; a case without predictions is below every
    score.
    """
    images = matched.images
    if not n_positive:
        return undefined("no case holds this class", n=len(images))
    if n_positive == len(images):
        return undefined("every case holds this class", n=len(images))
    marks = matched.marks  # those in regions to ignore are not among them
    score = np.zeros(len(images))
    ranks = np.unique(marks.score, return_inverse=True)[1] + 1.0
    np.maximum.at(score, marks.image, ranks)
    label = matched.marks.lesions > 0
    patient = images.patient
    if unit == "patient":
        pooled = pd.DataFrame({"label": label, "score": score}).groupby(patient).max()
        label, score = pooled["label"].to_numpy(), pooled["score"].to_numpy()
        patient = np.arange(label.size)
    if label.all():
        return undefined("every case holds this class", n=label.size)
    sample = Sample(label, score, patient, np.zeros(label.size, dtype=np.int64))
    return auc_estimates(sample, level).auc


def _operating_point(
    matched: MatchedClass, threshold: Threshold, level: float
) -> BoxOperatingPoint:
    marks, patient = matched.marks, matched.images.patient
    hits = marks.hits(threshold.value)
    false = marks.false_marks(threshold.value)
    tp, fp = int(hits.sum()), int(false.sum())
    finite = np.isfinite(threshold.value)
    called = np.concatenate([np.ones(tp, dtype=bool), np.zeros(fp, dtype=bool)])
    owner = np.concatenate([patient[marks.lesion_image[hits]], np.repeat(patient, false)])
    n = int(patient.max()) + 1
    counts, images = np.bincount(patient, false, n), np.bincount(patient, minlength=n)
    rates = draw(lambda w: np.array([w @ counts / max(float(w @ images), 1.0)]), n)
    return BoxOperatingPoint(
        name=threshold.name,
        threshold=threshold.value if finite else None,
        origin=threshold.origin,
        tp=tp,
        fp=fp,
        fn=int(hits.size) - tp,
        sensitivity=proportion_estimate(hits, patient[marks.lesion_image], level),
        precision=proportion_estimate(called, owner, level),
        fp_per_image=bca_estimate(rates, 0, level, n=len(matched.images)),
        why=None if finite else f"{'above' if threshold.value > 0.0 else 'below'} every score",
    )


def _levels(column: pd.Series) -> list[tuple[str, np.ndarray]]:
    texts = column.astype("object").map(lambda value: "" if pd.isna(value) else str(value))
    return [(value, (texts == value).to_numpy()) for value in sorted(texts.unique()) if value]


def _subgroup(
    matched: MatchedClass, column: str, value: str, mask: np.ndarray, level: float, replicates: int
) -> BoxSubgroup:
    patient, codes = np.full(mask.size, -1), pd.factorize(matched.images.patient[mask])[0]
    patient[mask] = codes
    n = int(codes.max()) + 1

    def statistics(weight: Float64Array) -> Float64Array:
        each = np.where(mask, weight[patient], 0.0)
        ap50 = matched.precision[0].average_precisions(each)[0]
        return np.array([ap50, matched.marks.sensitivities(np.array(RATES), each).mean()])

    if n < MIN_SUBGROUP:
        null = undefined(f"fewer than {MIN_SUBGROUP} patients", n=int(mask.sum()))
        estimates = [null, null]
    else:
        draws = draw(statistics, n, replicates=replicates)
        estimates = [
            bca_estimate(draws, i, level, n=int(mask.sum()), why=NO_REFERENCE) for i in range(2)
        ]
    boxes = int(matched.marks.lesions[mask].sum())
    return BoxSubgroup(column, value, n, int(mask.sum()), boxes, *estimates)


def _curves(matched: MatchedClass, draws: Draws, level: float) -> BoxCurves:
    rate, sensitivity = matched.marks.curve()
    steps = np.unique(np.linspace(0, rate.size - 1, MOST_POINTS).round().astype(int))
    band = [bca_estimate(draws, FROC + i, level, why=NO_REFERENCE) for i in range(GRID.size)]
    recall, precision = matched.precision[0].curve()
    thin = np.unique(np.linspace(0, recall.size - 1, MOST_POINTS).round().astype(int))
    empty = not matched.marks.lesions.sum()
    return BoxCurves(
        fp_per_image=[] if empty else rate[steps].tolist(),
        sensitivity=[] if empty else sensitivity[steps].tolist(),
        band_at=GRID.tolist(),
        band_low=[e.ci_low for e in band],
        band_high=[e.ci_high for e in band],
        recall=recall[thin].tolist() if recall.size else [],
        precision=precision[thin].tolist() if recall.size else [],
    )
