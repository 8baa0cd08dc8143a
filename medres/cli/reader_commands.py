"""`medres evaluate --readers TABLE` without a model: a reader study, without TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medres.cli.console import report

if TYPE_CHECKING:
    from medres.evaluate import ReaderStudyReport

Lesions = Annotated[
    Path | None,
    typer.Option(
        metavar="TABLE",
        help="Reader study: the true lesions (case, lesion, weight); the readers table then has "
        "one row for each mark, with a column lesion.",
    ),
]
Figure = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Reader study: auc, pauc, sensitivity@R, specificity@R, wafroc, afroc, hrauc, lroc, "
        "pcl@F, alroc@F. "
        "Default: auc, or wafroc with --lesions.",
    ),
]
Analysis = Annotated[
    Literal["rrrc", "frrc", "rrfc"],
    typer.Option(
        help="Reader study: random readers and cases, fixed readers, or fixed cases.",
    ),
]
Covariance = Annotated[
    Literal["delong", "jackknife", "unbiased"] | None,
    typer.Option(
        help="Reader study: covariances of the values. Default: delong for the AUC of a crossed "
        "study, else jackknife.",
    ),
]
Method = Annotated[
    Literal["or", "ustat"],
    typer.Option(
        help="Reader study: Obuchowski-Rockette, or U-statistics for any design.",
    ),
]
Standalone = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Reader study: the reader in the table that is a model on its own."
    ),
]
Positive = Annotated[
    float | None,
    typer.Option(
        metavar="R",
        help="Reader study: the rating from which a reader calls a case positive; sensitivity and "
        "specificity are then compared too. The stand-alone model has its own: --threshold.",
    ),
]
Effect = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Reader study: a difference that matters; the report then says how many readers and "
        "cases a further study needs.",
    ),
]
Pair = Annotated[
    str | None,
    typer.Option(
        metavar="A,B", help="Reader study: the two modalities to compare, as A - B. Default: all."
    ),
]


def parse_pair(text: str | None) -> tuple[str, str] | None:
    """("A", "B") of "A,B"."""
    if text is None:
        return None
    a, comma, b = text.partition(",")
    if not (a.strip() and comma and b.strip()):
        raise typer.BadParameter(f"--pair {text!r}: write A,B, such as with,without")
    return a.strip(), b.strip()


def parse_model_threshold(texts: list[str] | None) -> float | None:
    """The one threshold of a stand-alone model."""
    if not texts:
        return None
    try:
        (value,) = (float(text) for text in texts)
    except ValueError:
        raise typer.BadParameter(
            "--threshold of a reader study is one number, the threshold of the stand-alone model"
        ) from None
    return value


def evaluate_readers(
    readers: Path, out: Path, *, overwrite: bool, as_json: bool, **options: Any
) -> None:
    """Write the report of a reader study, and print its contrasts. options: of `reader_study`."""
    from medres.evaluate.readers.study import reader_study
    from medres.evaluate.reporting.save import check_target

    check_target(out, overwrite=overwrite)
    found = reader_study(readers, **options)
    found.save(out, overwrite=overwrite)
    study = found.numbers["reader_study"]
    result = {"out": str(out)} | {
        key: study[key] for key in ("figure", "analysis", "covariance", "contrasts")
    }
    report(result, as_json, [*contrast_lines(found), f"report: {out / 'report.html'}"])


def contrast_lines(found: ReaderStudyReport) -> list[str]:
    """One line for each modality and each contrast."""
    from medres.evaluate.reporting.narrative import interval

    study = found.report.reader_study
    lines = [
        f"{mean.modality}: {study.figure} {mean.estimate.estimate:.4f} "
        f"({interval(mean.estimate, 4)})"
        for mean in study.modalities
    ]
    contrasts = [*study.contrasts, *(study.standalone.contrasts if study.standalone else ())]
    for item in contrasts:
        p = "" if item.p_value is None else f", p {item.p_value:.4f}"
        lines.append(
            f"{item.a} - {item.b}: {item.difference.estimate:+.4f} "
            f"({interval(item.difference, 4)}{p})"
        )
    return lines
