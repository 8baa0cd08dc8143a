"""`medres evaluate --boxes PRED.json --reference REF.json`: detections against a reference, without
TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medres.cli.evaluate_modes import TaskReport

if TYPE_CHECKING:
    from medres.evaluate import DetectionResult

BoxFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Detection: predicted boxes as COCO results; --reference as COCO."
    ),
]
TuneReference = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Detection: the reference of --tune, on which the threshold is frozen.",
    ),
]
Hit = Annotated[
    Literal["center", "iou"],
    typer.Option(
        help="Detection: a lesion is hit by a center within it, or by an overlap (IoU) of .5."
    ),
]
FpPerImage = Annotated[
    float,
    typer.Option(help="Detection: false positives per image at the threshold that is chosen."),
]


def parse_box_thresholds(texts: list[str] | None) -> dict[str | None, float]:
    """{None: .5, "nodule": .3} of ".5" and "nodule=.3"."""
    out: dict[str | None, float] = {}
    for text in texts or ():
        name, equals, value = text.rpartition("=")
        try:
            out[name if equals else None] = float(value)
        except ValueError:
            raise typer.BadParameter(
                f"--threshold {text!r}: write a number, or CLASS=NUMBER"
            ) from None
    return out


def compared_files(paths: list[Path] | None) -> dict[str, Path]:
    """The files by name; where two have one name, with their folders."""
    names = [path.stem for path in paths or ()]
    return {path.stem if names.count(path.stem) == 1 else str(path): path for path in paths or ()}


def evaluate_box_files(
    boxes: Path,
    reference: Path | None,
    out: Path,
    *,
    tune: Path | None,
    tune_reference: Path | None,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the report of detections, and print a line for each class. options: of
    `evaluate_boxes`.
    """
    from medres.evaluate.detection.study import evaluate_boxes
    from medres.evaluate.reporting.save import check_target

    if reference is None:
        raise typer.BadParameter("--boxes needs --reference FILE, COCO annotations")
    if (tune is None) != (tune_reference is None):
        raise typer.BadParameter("--tune (boxes) and --tune-reference belong together")
    check_target(out, overwrite=overwrite)
    pair = None if tune is None or tune_reference is None else (tune, tune_reference)
    result = evaluate_boxes(boxes, reference, tune=pair, **options)
    BOX_REPORT.write(result, out, overwrite=overwrite, as_json=as_json)


def class_lines(result: DetectionResult) -> list[str]:
    """One line for each class, and one for each difference of AP50 between models."""
    from medres.evaluate.reporting.narrative import interval

    lines = []
    for name, finding in result.report.findings.items():
        ap, froc = finding.ap50, finding.froc_mean
        if ap.estimate is None or froc.estimate is None:
            lines.append(f"{name}: no AP ({ap.why})")
            continue
        lines.append(
            f"{name}: AP50 {ap.estimate:.3f} ({interval(ap)}), mean FROC sensitivity "
            f"{froc.estimate:.3f} ({interval(froc)})"
        )
    for row in result.report.comparisons:
        if row.metric == "ap50" and row.difference.estimate is not None:
            lines.append(
                f"{row.finding}: AP50 of {row.a} - {row.b}: {row.difference.estimate:+.4f} "
                f"({interval(row.difference, 4)})"
            )
    return lines


def _evaluator() -> Callable[..., Any]:
    from medres.inference.boxes.scoring import evaluate_detector

    return evaluate_detector


BOX_REPORT = TaskReport(_evaluator, ("ap", "ap50", "froc_mean"), class_lines)
