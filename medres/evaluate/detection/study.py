"""The evaluation of predicted boxes from files to the report on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medres.errors import EvaluationError
from medres.evaluate.analyses.provenance import made_now
from medres.evaluate.detection.coco import (
    Reference,
    Source,
    count_copies,
    describe_source,
    no_answer,
    read_patients,
    read_predictions,
    read_reference,
    with_patients,
)
from medres.evaluate.detection.finding import (
    AP,
    AP50,
    FROC_MEAN,
    MatchedClass,
    Threshold,
    evaluate_class,
)
from medres.evaluate.detection.froc import HIT_RULES
from medres.evaluate.detection.outcome import BoxComparison, BoxMacro, DetectionReport
from medres.evaluate.detection.reporting import detection_methods, detection_page, detection_tables
from medres.evaluate.detection.worst import worst_images
from medres.evaluate.options import check_level_and_margin
from medres.evaluate.reporting.csv_tables import Row
from medres.evaluate.reporting.saved_report import SavedReport
from medres.evaluate.statistics.bca import Draws, bca_estimate
from medres.evaluate.statistics.bootstrap import SEED, replicates_for

COMPARED = {"ap": AP, "ap50": AP50, "froc_mean": FROC_MEAN}
FIGURES_PER_CLASS = 40  # average precisions in one draw
EXPLORATORY_RATE = 1.0  # false positives per image


@dataclass(frozen=True)
class DetectionResult(SavedReport):
    """All results. report: typed objects, see medres.evaluate.detection.outcome."""

    report: DetectionReport

    def __repr__(self) -> str:
        n = self.report.n
        return f"DetectionResult({self.report.title!r}, {n['images']} images, {n['boxes']} boxes)"

    def to_html(self) -> str:
        """The self-contained page."""
        return detection_page(self.report)

    def _tables(self) -> dict[str, list[Row]]:
        return detection_tables(self.report)


def evaluate_boxes(
    predictions: Source,
    reference: Source,
    *,
    patients: pd.DataFrame | str | Path | None = None,
    hit: str = "center",
    unit: str = "image",
    thresholds: Mapping[str | None, float] | float | None = None,
    frozen: Mapping[str, float] | None = None,
    tune: tuple[Source, Source] | None = None,
    fp_per_image: float = EXPLORATORY_RATE,
    compare: Mapping[str, Source] | None = None,
    subgroups: Sequence[str] = (),
    images: str | Path | None = None,
    level: float = 0.95,
    title: str | None = None,
    replicates: int | None = None,
) -> DetectionResult:
    """Average precision, FROC and case-level ROC of predicted boxes, with intervals by patient.

    predictions: COCO results (a path, or the list): image_id, category_id, bbox = x, y, width,
    height in pixels of the original image (edges), score. reference: COCO annotations (a path, or
    the object); every image that it lists was assessed. patients: a table with `image_id`,
    `file_name` or `case`, `patient`, and columns for `subgroups`; without it each image is its own
    patient, which the report warns of. hit: center (the center of the prediction lies in the
    reference) or iou (an overlap of .5), for everything but average precision. unit: of the
    case-level ROC, image or patient. thresholds: declared, one for all classes or by class.
    frozen: those of the model, by class.
    tune: (predictions, reference) of the tuning split, on which the lowest threshold with at most
    `fp_per_image` false positives per image is frozen. compare: predictions of other models on the
    same images, by name. images: folder with the files that the reference names, for the worst
    cases on the page. level: of confidence. replicates: of the bootstrap.

    Raises EvaluationError; its codes are those of `read_reference`, `read_predictions` and
    `with_patients`, and unknown_hit_rule, unknown_unit, no_patients, bad_status, unknown_class,
    out_of_range.
    """
    check_level_and_margin(level, None, figure="AP")
    _check_choice(hit, tuple(HIT_RULES), "hit", "unknown_hit_rule")
    _check_choice(unit, ("image", "patient"), "unit", "unknown_unit")
    known, refused = read_reference(reference), 0
    groups = pd.DataFrame(index=range(len(known.images)))
    if patients is not None:
        every = known
        known, groups = _grouped(every, patients, list(dict.fromkeys(subgroups)))
        refused = len(every.boxes) - len(known.boxes)
    elif subgroups or unit == "patient":
        raise EvaluationError(
            "subgroups and the unit patient need a patients table (patients=, --patients): "
            "image_id, patient and the columns of the subgroups, one row for each image",
            code="no_patients",
        )
    predicted = read_predictions(predictions, known)
    n = replicates or replicates_for(len(predicted) * FIGURES_PER_CLASS, 1)
    by_class = _matched(known, predicted, hit)
    points = _thresholds(known, by_class, thresholds, tune, hit, fp_per_image, frozen or {})
    draws = {name: matched.draws(n) for name, matched in by_class.items()}
    findings = {
        name: evaluate_class(
            matched, draws[name], points[name], groups, unit=unit, level=level, replicates=n
        )
        for name, matched in by_class.items()
    }
    comparisons = _comparisons(known, compare or {}, draws, hit, level, n)
    report = DetectionReport(
        title=title or "Detection",
        analysis_unit=unit,
        cluster="patient" if known.images.clustered else None,
        hit_rule=hit,
        n=_counts(known, predicted),
        findings=findings,
        macro=_macro(draws, level),
        comparisons=comparisons,
        warnings=[
            *_warnings(known, predicted, by_class),
            *_refused(len(known.left_out), refused),
            *([] if tune is None else _leak(known, tune[1])),
        ],
        worst=worst_images(by_class, points, images),
        provenance=_provenance(predictions, reference, tune, compare or {}, level, n),
        methods="",
    )
    return DetectionResult(replace(report, methods=detection_methods(report)))


def _grouped(
    known: Reference, patients: pd.DataFrame | str | Path, subgroups: list[str]
) -> tuple[Reference, pd.DataFrame]:
    """With patients, and without the images that were refused; and the columns of subgroups."""
    table = read_patients(patients)
    columns = list(dict.fromkeys([*subgroups, *{"status"}.intersection(table.columns)]))
    images, groups = with_patients(known.images, table, columns)
    known = replace(known, images=images)
    if "status" in columns:
        left_out = no_answer(groups["status"])
        known, groups = known.without(left_out), groups[~left_out].reset_index(drop=True)
    return known, groups[subgroups]


def _check_choice(value: str, among: tuple[str, ...], option: str, code: str) -> None:
    if value not in among:
        raise EvaluationError(f"{option}={value!r}: choose {' or '.join(among)}", code=code)


def _matched(known: Reference, predicted: Any, hit: str) -> dict[str, MatchedClass]:
    return {
        name: MatchedClass(predicted.of_class(i), known.boxes.of_class(i), known.images, hit)
        for i, name in enumerate(known.classes.values())
    }


def _thresholds(
    known: Reference,
    by_class: Mapping[str, MatchedClass],
    declared: Mapping[str | None, float] | float | None,
    tune: tuple[Source, Source] | None,
    hit: str,
    rate: float,
    frozen: Mapping[str, float],
) -> dict[str, list[Threshold]]:
    """By class: declared ones, the one frozen on the tuning split, or else an exploratory one."""
    if not 0.0 < rate < np.inf:
        raise EvaluationError(f"fp_per_image is {rate:g}: it must be above 0", code="out_of_range")
    stated: dict[str | None, float | None] = (
        dict(declared) if isinstance(declared, Mapping) else {None: declared}
    )
    if not all(value is None or np.isfinite(value) for value in stated.values()):
        raise EvaluationError("a threshold is not a finite number", code="out_of_range")
    unknown = [name for name in stated if name is not None and name not in by_class]
    if unknown:
        raise EvaluationError(
            f"a threshold is given for {unknown[0]!r}, which is no class of the reference "
            f"({', '.join(by_class)})",
            code="unknown_class",
        )
    name = f"{rate:g} false positive{'' if rate == 1.0 else 's'} per image"
    chosen, origin = by_class, "exploratory"
    if tune is not None:
        tuning = read_reference(tune[1])
        chosen = _matched(tuning, read_predictions(tune[0], tuning), hit)
        origin = "frozen"
        absent = [c for c in by_class if c not in chosen]
        if absent:
            raise EvaluationError(
                f"the tuning reference has no class {absent[0]!r}", code="unknown_class"
            )
    out = {}
    for label in by_class:
        value = stated.get(label, stated.get(None))
        points = [] if value is None else [Threshold("declared", float(value), "declared")]
        if label in frozen:
            points.append(Threshold("default", float(frozen[label]), "frozen"))
        if tune is not None or not points:
            points.append(Threshold(name, chosen[label].marks.threshold_at(rate), origin))
        out[label] = points
    return out


def _macro(draws: Mapping[str, Draws], level: float) -> BoxMacro:
    defined = [d for d in draws.values() if not np.isnan(d.value[AP])]
    if not defined:
        null = bca_estimate(next(iter(draws.values())), AP, level, why="no reference box")
        return BoxMacro(null, null, null)
    mean = Draws(
        np.mean([d.value for d in defined], axis=0),
        _nan_mean(np.array([d.replicates for d in defined])),
        _nan_mean(np.array([d.jackknife for d in defined])),
        defined[0].n_patients,
    )
    return BoxMacro(*(bca_estimate(mean, index, level) for index in COMPARED.values()))


def _nan_mean(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis of what is defined; NaN if nothing is."""
    count = (~np.isnan(values)).sum(axis=0)
    return np.divide(
        np.nansum(values, axis=0), count, out=np.full(count.shape, np.nan), where=count > 0
    )


def _comparisons(
    known: Reference,
    compare: Mapping[str, Source],
    draws: Mapping[str, Draws],
    hit: str,
    level: float,
    replicates: int,
) -> list[BoxComparison]:
    out = []
    for other, source in compare.items():
        matched = _matched(known, read_predictions(source, known), hit)
        for name, mine in draws.items():
            difference = mine.minus(matched[name].draws(replicates))
            out += [
                BoxComparison(
                    name, metric, "predictions", other, "a-b", bca_estimate(difference, i, level)
                )
                for metric, i in COMPARED.items()
            ]
    return out


def _counts(known: Reference, predicted: Any) -> dict[str, int]:
    return {
        "patients": int(known.images.patient.max()) + 1,
        "images": len(known.images),
        "images_without_boxes": len(known.images) - int(np.unique(known.boxes.image).size),
        "boxes": len(known.boxes),
        "ignored_regions": int(known.boxes.ignore.sum()),
        "predictions": len(predicted),
        "images_refused": len(known.left_out),
    }


def _warnings(known: Reference, predicted: Any, by_class: Mapping[str, MatchedClass]) -> list[str]:
    out = []
    if not known.images.clustered:
        out.append(
            "No patients table was given: each image counts as a patient of its own. If a patient "
            "has several images, the intervals are too narrow."
        )
    copies = count_copies(known.boxes)
    if copies:
        out.append(f"{copies} reference boxes repeat another one of the same image and class.")
    empty = [name for name, matched in by_class.items() if not matched.marks.lesions.sum()]
    if empty:
        out.append(f"No reference box: {', '.join(empty)}. These classes are not in the means.")
    if len(predicted) == 0:
        out.append("The predictions hold no box at all.")
    return out


def _refused(images: int, boxes: int) -> list[str]:
    if not images:
        return []
    return [
        f"The detector gave no answer for {images} images (status refused or failed), which hold "
        f"{boxes} reference boxes: they are in no figure."
    ]


def _leak(known: Reference, tuning: Source) -> list[str]:
    names = {*known.images.names, ""}
    shared = sum(name in names for name in read_reference(tuning).images.names if name)
    if not shared:
        return []
    return [
        f"{shared} images of the tuning reference have the file name of an image here: if they are "
        "the same, the threshold was chosen on the test images, and its figures are too good."
    ]


def _provenance(
    predictions: Source,
    reference: Source,
    tune: tuple[Source, Source] | None,
    compare: Mapping[str, Source],
    level: float,
    replicates: int,
) -> dict[str, object]:
    made = made_now()
    return {
        "created": made["created"],
        "predictions": describe_source(predictions),
        "reference": describe_source(reference),
        "tune": None if tune is None else [describe_source(source) for source in tune],
        "compared": {name: describe_source(source) for name, source in compare.items()},
        "level": level,
        "seeds": {"bootstrap": SEED},
        "replicates": replicates,
        "versions": made["versions"],
    }
