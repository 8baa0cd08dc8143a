"""`evaluate`: a scores table in, a DiagnosticReport out. The report holds numbers; `html` draws
them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from medres.evaluate.analyses.finding import finding_report
from medres.evaluate.analyses.model_comparison import (
    adjust,
    align,
    comparison_report,
    global_comparisons,
)
from medres.evaluate.analyses.readers import load_readers, reader_points
from medres.evaluate.analyses.secondary_unit import other_numbers, other_units
from medres.evaluate.analyses.subgroups import subgroup_report
from medres.evaluate.analyses.worst_errors import Pictures, draw_worst
from medres.evaluate.metrics.macro import macro_auc
from medres.evaluate.metrics.multiclass import multiclass_report
from medres.evaluate.metrics.operating_point import Threshold
from medres.evaluate.metrics.thresholds import check_tune, choose_points
from medres.evaluate.options import ReportOptions, make_options
from medres.evaluate.reporting.checklists import crosswalks
from medres.evaluate.reporting.csv_tables import tables
from medres.evaluate.reporting.header import flow as flow_numbers
from medres.evaluate.reporting.header import heading
from medres.evaluate.reporting.html import embedded, page
from medres.evaluate.reporting.methods_text import methods
from medres.evaluate.reporting.model_card import model_card_markdown
from medres.evaluate.reporting.narrative import cautions, summary
from medres.evaluate.reporting.provenance import provenance_of
from medres.evaluate.reporting.save import save_report, to_plain
from medres.evaluate.scores.scored import Scored
from medres.evaluate.scores.table import Table, load
from medres.evaluate.scores.units import AnalysisUnits, to_units

ScoresSource = pd.DataFrame | str | Path


@dataclass(frozen=True)
class DiagnosticReport:
    """All numbers of an evaluation: `numbers` is what report.json holds (plain dicts, lists,
    numbers, text).

    `pictures`: of the gallery's cases, as data URIs by finding and hashed id; they are drawn on the
        page only.
    """

    numbers: dict[str, Any]
    pictures: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return (
            f"DiagnosticReport({self.numbers['title']!r}, {self.numbers['task']}: "
            f"{', '.join(self.numbers['findings'])})"
        )

    def to_json(self) -> str:
        """report.json as text; never NaN or infinity."""
        return json.dumps(self.numbers, indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    def to_html(self) -> str:
        """The self-contained page."""
        return page(self.numbers, self.pictures)

    def to_card(self) -> str:
        """A model card in Markdown."""
        return model_card_markdown(self.numbers)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write report.html, report.json, model_card.md and tables/*.csv into a new folder, all or
        nothing. Returns the folder.

        Raises EvaluationError where the folder exists and is not empty; `overwrite` replaces an
        earlier report only.
        """
        texts = {
            "report.json": self.to_json(),
            "model_card.md": self.to_card(),
            "report.html": self.to_html(),
        }
        return save_report(texts, tables(self.numbers), Path(folder), overwrite=overwrite)

    def _repr_html_(self) -> str:
        return embedded(self.numbers, self.pictures)


def evaluate(
    scores: ScoresSource | Scored,
    *,
    tune: ScoresSource | None = None,
    patient: str | None = None,
    unit: str | None = None,
    subgroups: Sequence[str] = (),
    compare: ScoresSource | Sequence[ScoresSource] | Mapping[str, ScoresSource] | None = None,
    readers: ScoresSource | None = None,
    thresholds: Any = None,
    operating_points: Mapping[str, str] | None = None,
    design: Mapping[str, Any] | str | Path | None = None,
    prevalence: float | Mapping[str, float] | list[float | Mapping[str, float]] | None = None,
    level: float = 0.95,
    margin: float | None = None,
    exact: bool = False,
    pool: str | None = None,
    pool_label: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    flow: Mapping[str, Any] | None = None,
    pictures: Pictures | None = None,
    title: str | None = None,
) -> DiagnosticReport:
    """Evaluate a scores table (a DataFrame, or the path of a CSV or Parquet file; one row per
    image), or what `medres.score` returns: it brings its own unit, pooling, frozen thresholds,
    subgroups and provenance, and arguments given here take precedence (thresholds are added).

    tune: scores of the tuning split; Youden's threshold on it is frozen under the name "default".
    patient: the patient column (default "patient"); patients are the clusters of every interval.
    unit: image (default), series, study or patient; scores are pooled to it by `pool` (max, mean,
        noisy_or), labels must agree unless `pool_label` is "any".
    subgroups: columns to break the figures down by. compare: other tables of the same images,
        aligned by image id.
    readers: people's calls (reader, arm, the unit's column, finding, rating 0 or 1), drawn as
        points on the ROC curve.
    thresholds: a declared number, {finding: {name: x}}, or frozen points of an artefact, a list of
        dicts with finding, name, threshold, criterion, split, n_patients, sha256.
    operating_points: name -> criterion such as {"screening": "sensitivity:0.95"} (see
        medres.evaluate.metrics.thresholds), found on the tuning table and frozen; one named
        "default" takes the place of Youden's.
    design: mapping or YAML/JSON file (sampling: cohort or case_control, prevalence,
        reference_standard, setting, ...).
    prevalence: where the model is to be used, 0..1: a number for all findings, {finding: x}, or a
        list of both.
    level: of the intervals. margin: greatest accepted loss of AUC in a comparison. exact:
        Clopper-Pearson intervals of rates in place of Wilson's.
    provenance, flow: kept in the report (flow: the counts of ingest.json). pictures: a function
        (finding, unit of analysis, the unit's id) -> bytes of a PNG or None, asked for the worst
        errors only, such as a saliency map.

    Raises EvaluationError, in one sentence, where the input cannot be evaluated. A finding with one
    class only does not
    raise: its figures are null, with the reason.
    """
    if isinstance(scores, Scored):
        unit, pool, title = unit or scores.unit, pool or scores.pool, title or scores.title
        subgroups, thresholds = subgroups or scores.subgroups, _all_thresholds(scores, thresholds)
        provenance = {**scores.provenance, **(provenance or {})}
        flow, pictures, scores = flow or scores.flow, pictures or scores.pictures, scores.table
    pool = pool or "max"
    table = load(scores, patient=patient)
    options = make_options(
        table.names,
        level=level,
        margin=margin,
        prevalence=prevalence,
        design=design,
        subgroups=subgroups,
        exact=exact,
    )
    units = to_units(table, unit, pool, pool_label)
    tune_table = None if tune is None else load(tune, patient=patient, what="tune")
    apart = [] if tune_table is None else check_tune(tune_table, table)
    tune_units = None if tune_table is None else to_units(tune_table, unit, pool, pool_label)
    sha256 = tune_table.sha256 if tune_table else None
    points = choose_points(units, tune_units, sha256, thresholds, operating_points)
    others = [_load_named(name, one, patient) for name, one in _named_tables(compare)]

    numbers = heading(table, units, (pool, pool_label), options, title) | {
        "flow": flow_numbers(table, units, flow)
    }
    numbers |= _figures(table, units, points, options)
    if readers is not None:
        calls = load_readers(readers, units)
        for name, finding in numbers["findings"].items():
            finding["readers"] = reader_points(calls, units, name, level)
    numbers |= _comparisons(table, others, (unit, pool, pool_label), points, options)
    numbers["provenance"] = provenance_of(table, tune_table, others, options, provenance, apart)
    drawn = {} if pictures is None else draw_worst(units, points, pictures)
    if any(drawn.values()):
        numbers["provenance"]["explanation"] = (
            "Saliency of the worst errors is shown; its worth is not tested here."
        )
    numbers = to_plain(numbers)
    for finding in numbers["findings"].values():
        finding["summary"] = summary(finding, units.unit)
        if "other_unit" in finding:
            finding["other_unit"]["summary"] = summary(
                finding["other_unit"], finding["other_unit"]["unit"]
            )
    numbers |= {"warnings": cautions(numbers), "methods": methods(numbers, options)}
    numbers["crosswalks"] = crosswalks(numbers)
    return DiagnosticReport(numbers, drawn)


def _all_thresholds(scored: Scored, thresholds: Any) -> list[Any]:
    """The frozen thresholds of the model, then those that the caller declares."""
    if thresholds is None:
        return scored.thresholds
    declared = thresholds if isinstance(thresholds, list | tuple) else [thresholds]
    return [*scored.thresholds, *declared]


def _figures(
    table: Table, units: AnalysisUnits, points: dict[str, list[Threshold]], options: ReportOptions
) -> dict[str, Any]:
    findings: dict[str, Any] = {}
    elsewhere = other_units(table, units)
    for name in units.names:
        findings[name] = finding_report(units, name, points[name], options)
        if elsewhere is not None:
            findings[name]["other_unit"] = other_numbers(elsewhere, name, points[name], options)
        findings[name]["subgroups"] = subgroup_report(units, name, points[name], options)
    out: dict[str, Any] = {"findings": findings}
    if len(units.names) > 1:
        out["macro"] = macro_auc(units, options.level)
    if table.task == "multiclass":
        ordinal = options.design.get("ordinal") is True
        out["multiclass"] = multiclass_report(units, options.level, ordinal, options.case_control)
    return out


def _load_named(name: str | None, source: ScoresSource, patient: str | None) -> Table:
    table = load(source, patient=patient, what=name or "compared")
    return table if name is None else replace(table, name=name)


def _named_tables(compare: Any) -> list[tuple[str | None, ScoresSource]]:
    if compare is None:
        return []
    if isinstance(compare, Mapping):
        return [(str(name), one) for name, one in compare.items()]
    if isinstance(compare, pd.DataFrame | str | Path):
        return [(None, compare)]
    return [(None, one) for one in compare]


def _comparisons(
    table: Table,
    others: list[Table],
    pooling: tuple[Any, Any, Any],
    points: dict[str, list[Threshold]],
    options: ReportOptions,
) -> dict[str, Any]:
    """The keys comparisons and, for three models and more, global_comparisons (on the images that
    all of them have).
    """
    rows: list[dict[str, Any]] = []
    names = _told_apart([table.name, *(o.name for o in others)])
    for other, name in zip(others, names[1:], strict=True):
        a, b = (to_units(one, *pooling) for one in align(table, other))
        rows += comparison_report(a, b, (names[0], name), points, options)
    adjust(rows)
    if len(others) < 2:
        return {"comparisons": rows}
    common = table
    for other in others:
        common = align(common, other)[0]
    models = [
        to_units(common, *pooling),
        *(to_units(align(common, o)[1], *pooling) for o in others),
    ]
    return {"comparisons": rows, "global_comparisons": global_comparisons(models, names)}


def _told_apart(names: list[str]) -> list[str]:
    """The names of the models; one that stood before gets a number."""
    return [
        name if name not in names[:i] else f"{name} ({names[:i].count(name) + 1})"
        for i, name in enumerate(names)
    ]
