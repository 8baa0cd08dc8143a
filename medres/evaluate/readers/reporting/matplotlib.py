"""Figures of a reader study for papers: each function takes a study and returns a matplotlib axis,
which is a vector graphic when saved as PDF or SVG.

A study is an object, `ReaderStudyReport.report.reader_study`, or the part `reader_study` of
report.json as `json.load` gives it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medres.errors import EvaluationError
from medres.evaluate.readers.outcome import ReaderStudy
from medres.evaluate.reporting.matplotlib import BLUE, GRAY, ORANGE, SINGLE_COLUMN
from medres.evaluate.serialization import JsonObject, from_plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = (BLUE, ORANGE, "#009e73", "#cc79a7", GRAY)  # of modalities, in order


def plot_reader_roc(study: ReaderStudy | JsonObject, ax: Axes | None = None) -> Axes:
    """ROC curves of the readers (thin) and their mean (thick); points: where readers decide.

    Raises EvaluationError (code no_curve) if the study has no curves.
    """
    curves = _typed(study).curves
    if not curves:
        raise _absent("ROC curves")
    ax = _axis(ax, "1 − specificity", "sensitivity")
    ax.plot([0, 1], [0, 1], "--", color=GRAY, lw=0.8)
    modalities = list(dict.fromkeys(curve.modality for curve in curves))
    alone = {m for m in modalities if sum(c.modality == m for c in curves) == 1}
    for curve in curves:
        color = COLORS[modalities.index(curve.modality) % len(COLORS)]
        thick = curve.reader is None or curve.modality in alone
        label = curve.modality if thick else None
        ax.plot(curve.fpr, curve.tpr, color=color, lw=1.8 if thick else 0.6, label=label)
        if curve.at is not None:
            ax.plot(*curve.at, "o", color=color, ms=5 if thick else 3)
    ax.set_aspect("equal")
    ax.legend(loc="lower right", frameon=False)
    return ax


def plot_reader_froc(study: ReaderStudy | JsonObject, ax: Axes | None = None) -> Axes:
    """FROC curves of the readers.

    Raises EvaluationError (code no_curve) if the study has no marks.
    """
    found = _typed(study).froc
    if found is None:
        raise _absent("FROC curves")
    ax = _axis(ax, "false marks per image", "lesions marked")
    modalities = list(dict.fromkeys(curve.modality for curve in found.curves))
    labeled: set[str] = set()
    for curve in found.curves:
        color = COLORS[modalities.index(curve.modality) % len(COLORS)]
        label = None if curve.modality in labeled else curve.modality
        labeled.add(curve.modality)
        ax.step(curve.false_marks, curve.sensitivity, where="post", color=color, label=label)
    ax.set_ylim(0, 1)
    ax.legend(loc="lower right", frameon=False)
    return ax


def plot_reader_differences(study: ReaderStudy | JsonObject, ax: Axes | None = None) -> Axes:
    """Forest plot of the first contrast: each reader, and last the mean of the readers.

    Raises EvaluationError (code no_curve) if nothing is compared.
    """
    study = _typed(study)
    if not study.contrasts:
        raise _absent("differences")
    mean = study.contrasts[0]
    rows = [
        (item.reader, item.difference)
        for item in study.per_reader
        if (item.a, item.b) == (mean.a, mean.b)
    ]
    rows.append(("mean", mean.difference))
    ax = _axis(ax, f"{mean.a} − {mean.b}", "")
    ax.axvline(0, color=GRAY, lw=0.8)
    for edge in (mean.margin, -mean.margin) if mean.margin else ():
        ax.axvline(edge, color=GRAY, lw=0.8, ls="--")
    for height, (_, estimate) in enumerate(rows):
        if estimate.estimate is None:
            continue
        if estimate.bounds is not None:
            ax.plot(estimate.bounds, [height, height], color="black", lw=1)
        ax.plot(estimate.estimate, height, "o", color=BLUE if height < len(rows) - 1 else ORANGE)
    ax.set_yticks(range(len(rows)), [name for name, _ in rows])
    ax.invert_yaxis()
    return ax


def plot_sample_size(study: ReaderStudy | JsonObject, ax: Axes | None = None) -> Axes:
    """Cases against readers of a further study.

    Raises EvaluationError (code no_curve) if no effect was stated.
    """
    sizes = _typed(study).sample_size
    if sizes is None:
        raise _absent("sample sizes")
    ax = _axis(ax, "readers", f"cases for a power of {sizes.power:.0%}")
    known = [(row.readers, row.cases) for row in sizes.rows if row.cases is not None]
    ax.plot([r for r, _ in known], [c for _, c in known], "o-", color=BLUE, ms=3)
    ax.set_ylim(bottom=0)
    ax.locator_params(axis="x", integer=True)
    return ax


def _typed(study: ReaderStudy | JsonObject) -> ReaderStudy:
    if isinstance(study, ReaderStudy):
        return study
    typed: ReaderStudy = from_plain(ReaderStudy, study)
    return typed


def _absent(what: str) -> EvaluationError:
    return EvaluationError(f"this reader study has no {what}", code="no_curve")


def _axis(ax: Axes | None, xlabel: str, ylabel: str) -> Axes:
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=SINGLE_COLUMN, layout="constrained").subplots()
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    return ax
