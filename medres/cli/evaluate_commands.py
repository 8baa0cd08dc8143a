"""The verb evaluate: a diagnostic report from a scores table, or from a model and its work folder.

TensorFlow is imported only when a MODEL is given.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medres.cli.box_commands import (
    BoxFile,
    FpPerImage,
    Hit,
    TuneReference,
    compared_files,
    evaluate_box_files,
    evaluate_detector_on,
    parse_box_thresholds,
)
from medres.cli.console import Json, report
from medres.cli.evaluate_modes import (
    BOXES,
    DETECTOR,
    MASKS,
    READERS,
    SCORES,
    SEGMENTER,
    check_options,
)
from medres.cli.mask_commands import (
    Classes,
    ConventionName,
    HitIou,
    Images,
    Masks,
    Patients,
    Reference,
    Spacing,
    Tolerance,
    evaluate_mask_folders,
    evaluate_segmenter_on,
    parse_spacing,
    task_of_model,
)
from medres.cli.reader_commands import (
    Analysis,
    Covariance,
    Effect,
    Figure,
    Lesions,
    Method,
    Pair,
    Positive,
    Standalone,
    evaluate_readers,
    parse_model_threshold,
    parse_pair,
)

if TYPE_CHECKING:
    from medres.evaluate import DiagnosticReport
    from medres.evaluate.scores.scored import Scored


def evaluate(
    context: typer.Context,
    out: Annotated[Path, typer.Option(metavar="REPORT", help="New folder for the report.")],
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL.keras", help="A trained model.")
    ] = None,
    work: Annotated[
        Path | None, typer.Argument(metavar="WORK", help="Work folder made by medres ingest.")
    ] = None,
    split: Annotated[
        Literal["train", "tune", "test"] | None,
        typer.Option(help="Split of WORK to score; tune is the validation split. Default: test."),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="Scores table (CSV or Parquet), instead of a MODEL."),
    ] = None,
    tune: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE",
            help="Scores of the tuning (validation) split. Youden's threshold on it is frozen.",
        ),
    ] = None,
    patient: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Patient column. Default: patient.")
    ] = None,
    unit: Annotated[
        Literal["image", "series", "study", "patient"] | None,
        typer.Option(
            help="Unit of analysis. Default: image for a table, the level of the labels for a "
            "model."
        ),
    ] = None,
    pool: Annotated[
        Literal["max", "mean", "noisy_or"] | None,
        typer.Option(
            help="How the image scores of a unit are pooled. Default: max for a table, "
            "the rule of the model file for a model."
        ),
    ] = None,
    pool_label: Annotated[
        Literal["any"] | None,
        typer.Option(help="any: a unit is positive if any of its images is positive."),
    ] = None,
    subgroup: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column for a subgroup analysis. Repeatable."),
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="TABLE",
            help="Scores of another model on the same images; with --masks its folder of masks, "
            "with a segmenter MODEL another model file. Repeatable.",
        ),
    ] = None,
    compare_unpaired: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="TABLE", help="Scores of a model on other patients, no one in both. Repeatable."
        ),
    ] = None,
    readers: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE",
            help="Ratings by human readers. Beside a model: reader, arm, the unit's id, finding, "
            "rating (0 or 1). Alone, a reader study: reader, modality, case, truth, rating.",
        ),
    ] = None,
    lesions: Lesions = None,
    figure: Figure = None,
    analysis: Analysis = "rrrc",
    covariance: Covariance = None,
    method: Method = "or",
    standalone: Standalone = None,
    positive: Positive = None,
    pair: Pair = None,
    effect: Effect = None,
    masks: Masks = None,
    reference: Reference = None,
    patients: Patients = None,
    classes: Classes = None,
    tolerance_mm: Tolerance = 1.0,
    spacing: Spacing = None,
    convention: ConventionName = "surface",
    hit_iou: HitIou = 0.1,
    images: Images = None,
    boxes: BoxFile = None,
    tune_reference: TuneReference = None,
    hit: Hit = "center",
    fp_per_image: FpPerImage = 1.0,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X|FINDING:NAME=X",
            help="Declared threshold. Repeatable. In a reader study: that of --standalone.",
        ),
    ] = None,
    operating_point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=CRITERION",
            help="Operating point chosen on --tune and frozen, such as "
            "screening=sensitivity:0.95. Repeatable.",
        ),
    ] = None,
    prevalence: Annotated[
        list[str] | None,
        typer.Option(metavar="X|FINDING=X", help="Prevalence for PPV and NPV. Repeatable."),
    ] = None,
    level: Annotated[float, typer.Option(help="Confidence level of the intervals.")] = 0.95,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Clopper-Pearson intervals for rates when no patient repeats."
        ),
    ] = False,
    partial_auc: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS:LOW:HIGH",
            help="Range of a partial AUC, such as specificity:0.9:1. Repeatable. Default: 0.8 to 1 "
            "of specificity and of sensitivity.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Pre-specified non-inferiority margin on the AUC or on --figure."),
    ] = None,
    design: Annotated[
        Path | None,
        typer.Option(
            metavar="STUDY.yaml",
            help="YAML or JSON file: sampling (cohort or case_control), prevalence, ordinal, and "
            "answers to reporting checklists (the report names each key).",
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the report.")] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the finding, for a table with a single finding."),
    ] = None,
    fold_ids: Annotated[
        bool,
        typer.Option(
            "--fold-ids", help="IDs that differ only in case or leading zeros are the same."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier report in REPORT.")
    ] = False,
    as_json: Json = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Evaluate a model and write a diagnostic report: report.html, report.json, tables/*.csv.

    Give either MODEL.keras and WORK, or --scores TABLE (which needs no TensorFlow). The table has
    one row per image: label and score; or label:<finding> and score:<finding>; or label (a class
    name) and score:<class>. A score equal to or above the threshold is positive.

    Or give --readers TABLE alone: a reader study, which compares modalities (such as without and
    with a model) by what several readers say about the same cases.

    Or give --masks FOLDER and --reference FOLDER: segmentations against reference masks. Or --boxes
    FILE and --reference FILE: detections, as COCO results and annotations. A model that was trained
    with --task segmentation or detection is evaluated on the masks or boxes of WORK.
    """
    if boxes is not None:
        check_options(context, BOXES)
        evaluate_box_files(
            boxes,
            reference,
            out,
            tune=tune,
            tune_reference=tune_reference,
            compare=compared_files(compare),
            patients=patients,
            subgroups=subgroup or (),
            hit=hit,
            unit=unit or "image",
            thresholds=parse_box_thresholds(threshold),
            fp_per_image=fp_per_image,
            images=images,
            level=level,
            title=title,
            overwrite=overwrite,
            as_json=as_json,
        )
        return
    if masks is not None:
        check_options(context, MASKS)
        evaluate_mask_folders(
            masks,
            reference,
            out,
            compare=compare or (),
            patients=patients,
            subgroups=subgroup or (),
            classes=classes,
            spacing=parse_spacing(spacing),
            tolerance_mm=tolerance_mm,
            convention=convention,
            hit_iou=hit_iou,
            images=images,
            design=design,
            level=level,
            title=title,
            overwrite=overwrite,
            as_json=as_json,
        )
        return
    task = None if model is None or work is None or scores else task_of_model(model)
    if model is not None and work is not None and task is not None and task.finds_boxes:
        check_options(context, DETECTOR)
        evaluate_detector_on(
            model,
            work,
            split or "test",
            out,
            subgroups=subgroup or (),
            hit=hit,
            unit=unit,
            level=level,
            title=title,
            overwrite=overwrite,
            as_json=as_json,
        )
        return
    if model is not None and work is not None and task is not None and task.is_dense:
        check_options(context, SEGMENTER)
        evaluate_segmenter_on(
            model,
            work,
            split or "test",
            out,
            compare=compare or (),
            subgroups=subgroup or (),
            tolerance_mm=tolerance_mm,
            convention=convention,
            hit_iou=hit_iou,
            design=design,
            level=level,
            title=title,
            overwrite=overwrite,
            as_json=as_json,
        )
        return
    if model is None and scores is None and readers is not None:
        check_options(context, READERS)
        evaluate_readers(
            readers,
            out,
            lesions=lesions,
            figure=figure,
            analysis=analysis,
            covariance=covariance,
            method=method,
            pair=parse_pair(pair),
            margin=margin,
            standalone=standalone,
            positive=positive,
            threshold=parse_model_threshold(threshold),
            effect=effect,
            finding=name,
            level=level,
            title=title,
            overwrite=overwrite,
            as_json=as_json,
        )
        return
    check_options(context, SCORES)
    _check_inputs(model, work, split, scores)
    thresholds = [parse_threshold(text) for text in threshold or ()]
    criteria = dict(parse_criterion(text) for text in operating_point or ())
    prevalences: list[Any] = [parse_prevalence(text) for text in prevalence or ()]
    from medres.evaluate.report import evaluate as make_report
    from medres.evaluate.reporting.save import check_target
    from medres.evaluate.scores.scored import Scored
    from medres.progress import Bars

    check_target(out, overwrite=overwrite)

    def evaluated(source: Path | Scored) -> DiagnosticReport:
        finding = source.provenance.get("finding") if isinstance(source, Scored) else None
        with Bars().task("evaluate") as update:
            diagnostic = make_report(
                source,
                tune=tune,
                patient=patient,
                unit=unit,
                subgroups=subgroup or (),
                compare=compare or None,
                compare_unpaired=compare_unpaired or None,
                readers=readers,
                thresholds=[_with_report_name(value, finding) for value in thresholds] or None,
                operating_points=criteria,
                design=design,
                prevalence=[_with_report_name(value, finding) for value in prevalences] or None,
                level=level,
                margin=margin,
                exact=exact,
                partial_auc=partial_auc or None,
                pool=pool,
                pool_label=pool_label,
                title=title,
                name=name,
                fold_ids=fold_ids,
                progress=update,
            )
        _check_has_auc(diagnostic)
        return diagnostic

    def rehearse(unscored: Scored) -> None:
        """Refuse wrong options before the split is scored and its access is logged."""
        evaluated(replace(unscored, pictures=None))

    if scores is not None:
        diagnostic = evaluated(scores)
    else:
        from medres.inference.scoring import score

        scored = score(str(model), str(work), split or "test", progress=Bars(), check=rehearse)
        diagnostic = evaluated(scored)
    diagnostic.save(out, overwrite=overwrite)
    findings = diagnostic.report.findings
    result = {
        "out": str(out),
        "findings": {name: {"auc": finding.auc.to_dict()} for name, finding in findings.items()},
    }
    report(result, as_json, [*auc_lines(diagnostic), f"report: {out / 'report.html'}"])


def auc_lines(diagnostic: DiagnosticReport) -> list[str]:
    """One line per finding: its leading AUC with the interval, or why there is none, and whether it
    is no better than chance."""
    from medres.evaluate.reporting.narrative import against_chance, interval, leading_auc

    lines = []
    for finding in diagnostic.report.findings.values():
        auc = leading_auc(finding, diagnostic.report.headline)
        if auc.estimate is None:
            lines.append(f"{finding.title}: no AUC ({auc.why})")
        elif auc.ci_low is None:
            lines.append(f"{finding.title}: AUC {auc.estimate:.3f} ({auc.why})")
        else:
            verdict = against_chance(auc.estimate, auc.ci_low, auc.ci_high)
            lines.append(
                f"{finding.title}: AUC {auc.estimate:.3f} ({interval(auc)}; {auc.method})"
                + (f": {verdict}" if verdict else "")
            )
    return lines


def parse_threshold(text: str) -> float | dict[str, dict[str, float]]:
    """Read "0.5" (every finding) or "FINDING:NAME=0.5"."""
    target, equals, number = text.rpartition("=")
    finding, colon, name = target.rpartition(":")
    value = _number(number)
    if value is None or (equals and not (finding and colon and name)):
        raise typer.BadParameter(
            f"--threshold {text!r}: write X or FINDING:NAME=X, where X is a number"
        )
    return {finding: {name: value}} if equals else value


def parse_criterion(text: str) -> tuple[str, str]:
    """NAME and CRITERION of "NAME=CRITERION"."""
    name, equals, criterion = text.partition("=")
    if not (name and equals and criterion):
        raise typer.BadParameter(
            f"--operating-point {text!r}: write NAME=CRITERION, such as screening=sensitivity:0.95"
        )
    return name, criterion


def parse_prevalence(text: str) -> float | dict[str, float]:
    """Read "0.1" (every finding) or "FINDING=0.1"."""
    finding, equals, number = text.rpartition("=")
    value = _number(number)
    if value is None or (equals and not finding):
        raise typer.BadParameter(
            f"--prevalence {text!r}: write X or FINDING=X, where X is a number; the finding of a "
            f"binary table is 'positive'"
        )
    return {finding: value} if equals else value


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _check_inputs(
    model: Path | None, work: Path | None, split: str | None, scores: Path | None
) -> None:
    if scores is None and (model is None or work is None):
        raise typer.BadParameter("give either MODEL.keras and WORK, or --scores TABLE")
    if scores is not None and model is not None:
        raise typer.BadParameter("give either MODEL.keras and WORK, or --scores TABLE, not both")
    if scores is not None and split is not None:
        raise typer.BadParameter("--split needs MODEL.keras and WORK: a scores table has no splits")


def _with_report_name(value: Any, finding: str | None) -> Any:
    """A value per finding, where the finding of a binary model is named as in report.json."""
    if not isinstance(value, dict):
        return value
    return {"positive" if name == finding else name: entry for name, entry in value.items()}


def _check_has_auc(diagnostic: DiagnosticReport) -> None:
    """The command fails if no finding has both classes, because the report would be empty."""
    from medres.errors import EvaluationError

    findings = list(diagnostic.report.findings.values())
    if all(finding.auc.estimate is None for finding in findings):
        raise EvaluationError(
            f"nothing to evaluate for {findings[0].title!r}: {findings[0].auc.why}; give rows of "
            f"both classes",
            code="one_class",
        )
