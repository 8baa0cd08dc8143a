"""An evaluation of boxes for people: the page, the CSV tables and the text for a methods section.
Nothing is computed here.
"""

from __future__ import annotations

from html import escape
from math import log2

from markupsafe import Markup

from medres.evaluate.detection.froc import HIT_RULES, RATES
from medres.evaluate.detection.outcome import BoxFinding, DetectionReport, WorstImage
from medres.evaluate.reporting.csv_tables import Row
from medres.evaluate.reporting.static_page import static_page
from medres.evaluate.serialization import to_plain
from medres.evaluate.statistics.bca import METHOD
from medres.evaluate.statistics.estimate import Estimate
from medres.svg import Axes, fractions

SIZE = (460, 380)
FIGURES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "froc_mean": "mean FROC sensitivity"}


def detection_methods(report: DetectionReport) -> str:
    """Sentences for the methods section of a paper."""
    n = report.n
    clusters = (
        f"the {n['patients']} patients"
        if report.cluster
        else "the images (no patients table was given)"
    )
    origins = {p.origin for f in report.findings.values() for p in f.operating_points}
    return " ".join(
        [
            f"{n['predictions']} predicted boxes were compared with {n['boxes']} reference boxes "
            f"in {n['images']} images, of which {n['images_without_boxes']} have none.",
            "Average precision follows COCO: the mean over 101 values of recall, at overlaps "
            "(intersection over union) of .5 to .95, with at most 100 predictions for each image "
            "and class; AP50 and AP75 are those at .5 and .75.",
            "In FROC, in the operating points and in the table of errors a lesion counts as hit if "
            f"{HIT_RULES[report.hit_rule]}. Each prediction hits one lesion at most; further "
            "predictions on a lesion that is hit are neither true nor false. Sensitivities are "
            "pooled over lesions and given at "
            + ", ".join(f"{rate:g}" for rate in RATES)
            + " false positives per image (all images in the denominator); their mean is the mean "
            "FROC sensitivity.",
            f"The ROC of whole {report.analysis_unit}s uses the highest score in each; one without "
            "predictions lies below every score.",
            f"Intervals come from a {METHOD}, over {clusters}; boxes are matched once. Those of "
            "proportions at a threshold are Wilson's, with patients as clusters.",
            "Thresholds were frozen on the tuning split."
            if origins == {"frozen"}
            else f"Thresholds are {' and '.join(sorted(origins))}.",
        ]
    )


def detection_tables(report: DetectionReport) -> dict[str, list[Row]]:
    """Rows by table: classes, froc, sizes, operating_points, subgroups and comparisons."""
    tables: dict[str, list[Row]] = {
        name: [] for name in ("classes", "froc", "sizes", "operating_points", "subgroups")
    }
    for name, finding in report.findings.items():
        tables["classes"] += [
            {"class": name, "figure": key, **_estimate(getattr(finding, key))}
            for key in (*FIGURES, "case_auc")
        ]
        tables["froc"] += [
            {
                "class": name,
                "fp_per_image": point.fp_per_image,
                **_estimate(point.sensitivity),
                "patient_averaged": point.patient_averaged,
                "fp_per_lesion_free_image": point.fp_per_lesion_free_image,
                "threshold": point.threshold,
            }
            for point in finding.froc
        ]
        tables["sizes"] += [
            {"class": name, "size": row.size, "n_boxes": row.n_boxes, "figure": key, **_estimate(e)}
            for row in finding.sizes
            for key, e in (("ap", row.ap), ("ap50", row.ap50))
        ]
        tables["operating_points"] += [
            {
                "class": name,
                "name": point.name,
                "threshold": point.threshold,
                "origin": point.origin,
                "tp": point.tp,
                "fp": point.fp,
                "fn": point.fn,
                "figure": key,
                **_estimate(e),
            }
            for point in finding.operating_points
            for key, e in (
                ("sensitivity", point.sensitivity),
                ("precision", point.precision),
                ("fp_per_image", point.fp_per_image),
            )
        ]
        tables["subgroups"] += [
            {
                "class": name,
                "column": group.column,
                "level": group.level,
                "n_patients": group.n_patients,
                "n_boxes": group.n_boxes,
                "figure": key,
                **_estimate(e),
            }
            for group in finding.subgroups
            for key, e in (("ap50", group.ap50), ("froc_mean", group.froc_mean))
        ]
    if report.comparisons:
        tables["comparisons"] = [
            {"class": c.finding, "figure": c.metric, "a": c.a, "b": c.b, **_estimate(c.difference)}
            for c in report.comparisons
        ]
    return {name: rows for name, rows in tables.items() if rows}


def detection_page(report: DetectionReport) -> str:
    """A self-contained HTML page that requests nothing from the network."""
    return static_page(
        "detection.html.j2",
        {
            "froc": lambda f, name: Markup(froc_figure(name, f)),
            "pr": lambda f, name: Markup(precision_recall_figure(name, f)),
            "drawing": lambda w: Markup(error_drawing(w)),
        },
        has_images=True,
        r=report,
        figures=FIGURES,
        hit=HIT_RULES[report.hit_rule],
        provenance=to_plain(report.provenance),
    )


def froc_figure(name: str, finding: BoxFinding) -> str:
    """The FROC curve on a logarithmic axis, with the pointwise band."""
    low, high = 1 / 16, 8.0
    axes = Axes(*SIZE, (log2(low), log2(high)), (0, 1), name=f"FROC curve of {name}", figure="froc")
    ticks = [(log2(rate), f"{rate:g}" if rate >= 1 else f"1/{round(1 / rate)}") for rate in RATES]
    axes.grid(ticks, fractions(), "false positives per image", "sensitivity (lesions)")
    curves = finding.curves
    band = [
        (log2(x), a, b)
        for x, a, b in zip(curves.band_at, curves.band_low, curves.band_high, strict=True)
        if a is not None and b is not None
    ]
    if band:
        xs = [x for x, _, _ in band]
        edge = [b for _, _, b in band] + [a for _, a, _ in reversed(band)]
        axes.polygon([*xs, *reversed(xs)], edge, "band")
    steps_x, steps_y = _steps(curves.fp_per_image, curves.sensitivity, low, high)
    if steps_x:
        axes.line([log2(x) for x in steps_x], steps_y, "curve")
    for point in finding.operating_points:
        rate, sensitivity = point.fp_per_image.estimate, point.sensitivity.estimate
        if rate is not None and sensitivity is not None:
            x = log2(min(max(rate, low), high))
            axes.mark(x, sensitivity, f"point {point.origin}", point.name)
    axes.text(log2(high) - 0.1, 0.03, _headline(finding.froc_mean, "mean"), "big", "end")
    return axes.render()


def precision_recall_figure(name: str, finding: BoxFinding) -> str:
    """Precision against recall at an overlap of .5."""
    axes = Axes(*SIZE, (0, 1), (0, 1), name=f"Precision and recall of {name}", figure="pr")
    axes.grid(fractions(), fractions(), "recall", "precision")
    if finding.curves.recall:
        axes.line(
            [0.0, *finding.curves.recall],
            [finding.curves.precision[0], *finding.curves.precision],
            "curve",
        )
    axes.text(0.02, 0.03, _headline(finding.ap50, "AP50"), "big")
    return axes.render()


def error_drawing(worst: WorstImage) -> str:
    """An image with its references and predictions as an SVG element."""
    stroke = max(worst.width, worst.height) / 160
    picture = (
        f'<image href="{worst.picture}" width="{worst.width}" height="{worst.height}"/>'
        if worst.picture
        else f'<rect class="blank" width="{worst.width}" height="{worst.height}"/>'
    )
    boxes = [(box, "reference-box") for box in worst.reference]
    boxes += [
        (box, "hit-box" if hit else "false-box")
        for box, hit in zip(worst.predicted, worst.hit, strict=True)
    ]
    drawn = "".join(
        f'<rect class="{css}" x="{a:.1f}" y="{b:.1f}" width="{c - a:.1f}" height="{d - b:.1f}" '
        f'stroke-width="{stroke:.2f}"/>'
        for (a, b, c, d), css in boxes
    )
    label = f"{worst.finding}: {worst.missed} missed, {worst.false} false"
    return (
        f'<svg class="boxes" viewBox="0 0 {worst.width} {worst.height}" role="img" '
        f'aria-label="{escape(label)}">{picture}{drawn}</svg>'
    )


def _steps(
    xs: list[float], ys: list[float], low: float, high: float
) -> tuple[list[float], list[float]]:
    """The step curve within [low, high], carried forward to the end."""
    out_x: list[float] = []
    out_y: list[float] = []
    last = 0.0
    for x, y in zip(xs, ys, strict=True):
        if x > high:
            break
        if x <= low:
            last = y
            continue
        if not out_x:
            out_x, out_y = [low], [last]
        out_x += [x, x]
        out_y += [last, y]
        last = y
    if xs:
        out_x = [*(out_x or [low]), high]
        out_y = [*(out_y or [last]), last]
    return out_x, out_y


def _headline(estimate: Estimate, name: str) -> str:
    return "" if estimate.estimate is None else f"{name} {estimate.estimate:.3f}"


def _estimate(estimate: Estimate) -> Row:
    return dict(estimate.to_dict())
