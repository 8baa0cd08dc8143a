"""`medres evaluate --masks PRED --reference REF`: segmentations against a reference, without
TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medres.cli.evaluate_modes import TaskReport

if TYPE_CHECKING:
    from medres.evaluate import SegmentationReport
    from medres.tasks import Task

Masks = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Segmentation: predicted label maps (.nii.gz, .png, DICOM SEG as .dcm), named as "
        "those of --reference.",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="The reference: a folder of label maps (--masks), or COCO annotations (--boxes).",
    ),
]
Patients = Annotated[
    Path | None,
    typer.Option(
        metavar="TABLE",
        help="Segmentation, detection: case (or image_id, file_name), patient and subgroup "
        "columns. Default for masks: patients.csv in the folder of the reference.",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Segmentation: names of the classes, such as 1=liver,2=tumor, or a CSV (value, name) "
        "or JSON file. Default: the numbers in the reference.",
    ),
]
Tolerance = Annotated[float, typer.Option(help="Segmentation: tolerance of NSD, in mm.")]
Spacing = Annotated[
    str | None,
    typer.Option(
        metavar="[Z,]Y,X",
        help="Segmentation: distance in mm between slices, rows and columns, for files without it.",
    ),
]
ConventionName = Annotated[
    Literal["surface", "boundary"],
    typer.Option(
        help="Segmentation: surface elements weighted by area, or boundary voxels (as MONAI)."
    ),
]
HitIou = Annotated[
    float, typer.Option(help="Segmentation: a lesion with a greater IoU counts as found.")
]
Images = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Segmentation, detection: images to show with the worst cases."
    ),
]


def parse_spacing(text: str | None) -> tuple[float, ...] | None:
    """(5.0, 0.7, 0.7) of "5,0.7,0.7"."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"--spacing {text!r}: write the distances in mm, such as 5,0.7,0.7 or 0.2,0.2"
        ) from None


def evaluate_mask_folders(
    masks: Path,
    reference: Path | None,
    out: Path,
    *,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the report of segmentations, and print a line for each class. options: of
    `evaluate_masks`."""
    from medres.evaluate.reporting.save import check_target
    from medres.evaluate.segmentation.evaluation import evaluate_masks
    from medres.progress import Bars

    if reference is None:
        raise typer.BadParameter("--masks needs --reference FOLDER, the reference label maps")
    check_target(out, overwrite=overwrite)
    with Bars().task("evaluate") as update:
        found = evaluate_masks(masks, reference, progress=update, **options)
    MASK_REPORT.write(found, out, overwrite=overwrite, as_json=as_json)


def task_of_model(model: Path) -> Task | None:
    """The task of a model file, without TensorFlow; None where it cannot be read: opening it says
    why. Raises ArtefactError where there is no such file.
    """
    from medres.artefact.archive import read_contents
    from medres.errors import ArtefactError
    from medres.tasks import task_named

    try:
        return task_named(read_contents(model).card.task)
    except (ArtefactError, OSError):
        if not model.is_file():
            raise
        return None


def class_lines(found: SegmentationReport) -> list[str]:
    """One line for each class, and one for each difference of Dice between models."""
    from medres.evaluate.reporting.narrative import interval

    lines = []
    for finding in found.report.findings.values():
        dice = finding.figures.dice
        if dice.estimate is None:
            lines.append(f"{finding.title}: no Dice ({dice.why})")
            continue
        counts = f"{finding.n_missed} missed, {finding.n_false_alarm} false alarms"
        lines.append(f"{finding.title}: Dice {dice.estimate:.3f} ({interval(dice)}; {counts})")
    for row in found.report.comparisons:
        if row.metric == "dice" and row.difference.estimate is not None:
            lines.append(
                f"{row.finding}: Dice of {row.a} - {row.b}: {row.difference.estimate:+.4f} "
                f"({interval(row.difference, 4)})"
            )
    return lines


def _evaluator() -> Callable[..., Any]:
    from medres.inference.masks.scoring import evaluate_segmenter

    return evaluate_segmenter


MASK_REPORT = TaskReport(_evaluator, ("dice", "hd95_mm", "nsd", "n_missed"), class_lines)
