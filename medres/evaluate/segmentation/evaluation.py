"""Masks against a reference, from folders of label maps to a report on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medres.errors import EvaluationError
from medres.evaluate.analyses.provenance import made_now
from medres.evaluate.analyses.worst_errors import MAX_BYTES, hashed
from medres.evaluate.options import check_level_and_margin, read_design
from medres.evaluate.reporting.csv_tables import Row
from medres.evaluate.reporting.saved_report import SavedReport
from medres.evaluate.segmentation.aggregation import ClassScores, class_result, compare_models
from medres.evaluate.segmentation.case_scores import Rules
from medres.evaluate.segmentation.cases import Case, Classes, find_cases, read_classes
from medres.evaluate.segmentation.lesions import HIT_IOU
from medres.evaluate.segmentation.outcome import MaskComparison, SegmentationResult
from medres.evaluate.segmentation.overlays import image_reader, overlay
from medres.evaluate.segmentation.reporting import (
    case_table,
    masks_checklists,
    masks_methods,
    masks_page,
    masks_tables,
)
from medres.evaluate.segmentation.scoring import ScoredCases
from medres.evaluate.segmentation.surfaces import CONVENTIONS

DEFAULT_TOLERANCE = 1.0  # mm
Pictures = dict[tuple[str, str], str]  # (class, hashed case) -> data URI


@dataclass(frozen=True)
class SegmentationReport(SavedReport):
    """All results of an evaluation of masks. report: typed objects, see
    medres.evaluate.segmentation.outcome. cases: a row for each case and class. pictures: data URIs
    of the worst cases by (class, hashed case).
    """

    report: SegmentationResult
    cases: list[dict[str, Any]] = field(repr=False)
    pictures: Pictures = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        found = self.report
        return (
            f"SegmentationReport({found.title!r}, {len(found.findings)} classes, "
            f"{found.n_cases} cases, {found.n_patients} patients)"
        )

    def to_html(self) -> str:
        """The self-contained page."""
        return masks_page(self.report, self.cases, self.pictures)

    def _tables(self) -> dict[str, list[Row]]:
        return masks_tables(self.report, self.cases)


def evaluate_masks(
    masks: str | Path,
    reference: str | Path,
    *,
    compare: Sequence[str | Path] = (),
    patients: str | Path | None = None,
    subgroups: Sequence[str] = (),
    classes: Classes = None,
    spacing: Sequence[float] | None = None,
    tolerance_mm: float = DEFAULT_TOLERANCE,
    convention: str = "surface",
    hit_iou: float = HIT_IOU,
    images: str | Path | None = None,
    design: Mapping[str, Any] | str | Path | None = None,
    level: float = 0.95,
    title: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> SegmentationReport:
    """Compare predicted masks with reference masks: overlap, distances, volumes and lesions of each
    class, with intervals over patients.

    masks, reference: folders of label maps (.nii.gz, .nii, .png, DICOM SEG as .dcm), matched by
    file name, or two files; the forms may differ, the grids may not. compare: folders of other
    models' masks. patients: a table with `case` (the file name without suffix), `patient` and
    subgroup columns; default patients.csv in `reference`.
    classes: names by value, or "1=liver,2=tumor", or a file; default the values in the reference.
    spacing: in mm along each axis (slices, rows, columns), for files without one. tolerance_mm: of
    NSD. convention: surface (pieces of the surface weighted by area) or boundary (boundary voxels).
    hit_iou: a lesion with a greater IoU is found. images: folder of images for the pictures of the
    worst cases. design: answers to reporting checklists. level: of confidence. progress: called
    with cases done and all.

    Raises EvaluationError; its codes are those of `find_cases`, `read_classes`, `read_label_map`,
    `check_labels`, and out_of_range, unknown_convention, other_grid, mixed_axes, no_class.
    """
    rules = _rules(tolerance_mm, convention, hit_iou)
    check_level_and_margin(level, None, figure="Dice")
    answers = read_design(design)
    steps = _spacing(spacing)
    folders = [Path(masks), *map(Path, compare)]
    cases = find_cases(
        Path(reference), folders, None if patients is None else Path(patients), subgroups
    )
    scored = ScoredCases(cases, read_classes(classes), steps, rules, len(folders))
    for number, case in enumerate(cases):
        scored.add(number, case)
        if progress is not None:
            progress(number + 1, len(cases))
    names = scored.classes()
    by_class = [[scored.of_class(m, value) for value in names] for m in range(len(folders))]
    findings = {
        name: class_result(by_class[0][i], name, value, subgroups, rules, level)
        for i, (value, name) in enumerate(names.items())
    }
    comparisons = _comparisons(by_class, list(names.values()), folders, level)
    result = SegmentationResult(
        title=title or "Segmentation",
        n_cases=len(cases),
        n_patients=len({case.patient for case in cases}),
        n_missed=sum(found.n_missed for found in findings.values()),
        n_false_alarm=sum(found.n_false_alarm for found in findings.values()),
        convention=rules.convention.name,
        findings=findings,
        comparisons=comparisons,
        notes=_notes(cases, by_class[0], reference, patients),
        checklists=masks_checklists(answers, findings, subgroups),
        provenance=_provenance(Path(reference), folders, cases, rules, level),
        methods=masks_methods(findings, rules, level, compared=bool(comparisons)),
    )
    rows = [
        row
        for (value, name), scores in zip(names.items(), by_class[0], strict=True)
        for row in case_table(name, value, scores, [case.patient for case in cases])
    ]
    pictures = _pictures(result, cases, None if images is None else Path(images), scored)
    return SegmentationReport(result, rows, pictures)


def _rules(tolerance: float, convention: str, hit_iou: float) -> Rules:
    if convention not in CONVENTIONS:
        raise EvaluationError(
            f"the convention {convention!r} does not exist; choose {' or '.join(CONVENTIONS)}",
            code="unknown_convention",
        )
    if not 0.0 <= tolerance < np.inf or not 0.0 <= hit_iou < 1.0:
        raise EvaluationError(
            f"the tolerance is {tolerance} and hit_iou is {hit_iou}: give a tolerance in mm from 0 "
            "up, and an IoU from 0 to below 1",
            code="out_of_range",
        )
    return Rules(CONVENTIONS[convention], tolerance, hit_iou)


def _spacing(given: Sequence[float] | None) -> tuple[float, ...] | None:
    if given is None:
        return None
    steps = tuple(float(value) for value in given)
    if len(steps) not in (2, 3) or not all(0.0 < value < np.inf for value in steps):
        raise EvaluationError(
            "the spacing must be two or three numbers above 0, in mm, in the order (slices,) rows, "
            "columns",
            code="out_of_range",
        )
    return steps


def _comparisons(
    by_class: list[list[ClassScores]], names: list[str], folders: list[Path], level: float
) -> list[MaskComparison]:
    """The first model against each other one. Models are named by their folders."""
    labels = [folder.name or f"model {i + 1}" for i, folder in enumerate(folders)]
    if len(set(labels)) < len(labels):
        labels = [f"{label} ({i + 1})" for i, label in enumerate(labels)]
    return [
        row
        for other in range(1, len(folders))
        for i, name in enumerate(names)
        for row in compare_models(
            name, by_class[0][i], by_class[other][i], (labels[0], labels[other]), level
        )
    ]


def _notes(
    cases: Sequence[Case],
    by_class: Sequence[ClassScores],
    reference: str | Path,
    patients: str | Path | None,
) -> list[str]:
    notes = []
    if patients is None and not (Path(reference) / "patients.csv").is_file():
        notes.append(
            "there is no table of the patients, so each case counts as a patient of its own; "
            "intervals are too narrow if patients have several cases"
        )
    without = sum(not score.has_spacing for score in by_class[0].scores)
    if without:
        notes.append(f"{without} of {len(cases)} cases have no spacing: there are no figures in mm")
    return notes


def _pictures(
    result: SegmentationResult,
    cases: Sequence[Case],
    images: Path | None,
    scored: ScoredCases,
) -> Pictures:
    """Of the worst cases, up to a size of the page; the masks are read once more."""
    read = image_reader(images)
    by_hash = {hashed(case.name): case for case in cases}
    pictures: Pictures = {}
    left = MAX_BYTES
    for name, found in result.findings.items():
        for worst in found.worst_cases:
            case = by_hash[worst.case]
            truth, answer = scored.pair(case, 0)
            image = read(case.name, truth.values.shape)
            picture = overlay(truth, answer, found.value, image)
            left -= len(picture)
            if left < 0:
                return pictures
            pictures[name, worst.case] = picture
    return pictures


def _provenance(
    reference: Path, folders: Sequence[Path], cases: Sequence[Case], rules: Rules, level: float
) -> dict[str, object]:
    return {
        **made_now(),
        "level": level,
        "tolerance_mm": rules.tolerance,
        "reference": _source(reference, [case.reference for case in cases]),
        "masks": [
            _source(folder, [case.predictions[i] for case in cases])
            for i, folder in enumerate(folders)
        ],
    }


def _source(folder: Path, files: Sequence[Path]) -> dict[str, object]:
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return {"name": folder.name, "files": len(files), "sha256": digest.hexdigest()}
