"""`evaluate`: a scores table in, a `DiagnosticReport` out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medres.errors import EvaluationError
from medres.evaluate.analyses.finding import finding_report
from medres.evaluate.analyses.model_comparison import (
    adjust,
    align,
    comparison_report,
    global_comparisons,
)
from medres.evaluate.analyses.provenance import provenance_of, table_source
from medres.evaluate.analyses.readers import load_readers, reader_points
from medres.evaluate.analyses.sample_description import headline_of, participant_flow, sample_size
from medres.evaluate.analyses.secondary_unit import other_unit_reports
from medres.evaluate.analyses.subgroups import subgroup_report
from medres.evaluate.analyses.unpaired_comparison import check_disjoint, unpaired_report
from medres.evaluate.analyses.worst_errors import Pictures, draw_worst
from medres.evaluate.metrics.macro import macro_auc
from medres.evaluate.metrics.multiclass import detailed_classes, multiclass_report
from medres.evaluate.metrics.thresholds import Threshold, check_tune, choose_thresholds
from medres.evaluate.options import ReportOptions, make_options
from medres.evaluate.reporting.checklists import crosswalks
from medres.evaluate.reporting.csv_tables import Row, tables
from medres.evaluate.reporting.html import embedded, page
from medres.evaluate.reporting.methods_text import methods
from medres.evaluate.reporting.model_card import model_card_markdown
from medres.evaluate.reporting.narrative import report_warnings, summary
from medres.evaluate.reporting.saved_report import SavedReport
from medres.evaluate.schema import (
    Comparison,
    Design,
    Finding,
    GlobalComparison,
    Headline,
    Pooling,
    Report,
)
from medres.evaluate.scores.io import release_memory
from medres.evaluate.scores.scored import Scored
from medres.evaluate.scores.table import BINARY_FINDING, LABEL_COLUMN, Table, load
from medres.evaluate.scores.units import AnalysisUnits, to_units
from medres.evaluate.serialization import to_plain
from medres.tasks import task_named

ScoresSource = pd.DataFrame | str | Path
ScoresSources = ScoresSource | Sequence[ScoresSource] | Mapping[str, ScoresSource] | None
EXPLANATION = "Saliency of the worst errors is shown; whether it is useful is not tested here."


@dataclass(frozen=True)
class DiagnosticReport(SavedReport):
    """All results of an evaluation.

    report: typed objects, see medres.evaluate.schema.
    pictures: the images of the worst errors, as data URIs by finding and hashed id; only the page
        shows them.
    """

    report: Report
    pictures: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return (
            f"DiagnosticReport({self.report.title!r}, {self.report.task}: "
            f"{', '.join(finding.title for finding in self.report.findings.values())})"
        )

    def to_html(self) -> str:
        """The self-contained page."""
        return page(self.report, self.pictures)

    def to_card(self) -> str:
        """A model card in Markdown."""
        return model_card_markdown(self.report)

    def _texts(self) -> dict[str, str]:
        return {**super()._texts(), "model_card.md": self.to_card()}

    def _tables(self) -> dict[str, list[Row]]:
        return tables(self.report)

    def _repr_html_(self) -> str:
        return embedded(self.report, self.pictures)


def evaluate(
    scores: ScoresSource | Scored,
    *,
    tune: ScoresSource | None = None,
    patient: str | None = None,
    unit: str | None = None,
    subgroups: Sequence[str] = (),
    compare: ScoresSources = None,
    compare_unpaired: ScoresSources = None,
    readers: ScoresSource | None = None,
    thresholds: Any = None,
    operating_points: Mapping[str, str] | None = None,
    design: Mapping[str, Any] | str | Path | None = None,
    prevalence: float | Mapping[str, float] | list[float | Mapping[str, float]] | None = None,
    level: float = 0.95,
    margin: float | None = None,
    exact: bool = False,
    partial_auc: str | Sequence[str] | None = None,
    pool: str | None = None,
    pool_label: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    flow: Mapping[str, Any] | None = None,
    pictures: Pictures | None = None,
    title: str | None = None,
    name: str | None = None,
    fold_ids: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DiagnosticReport:
    """Evaluate a scores table: a DataFrame, or the path of a CSV or Parquet file, with one row per
    image; or what `medres.score` returns. The latter brings its own unit, pooling, frozen
    thresholds, subgroups and provenance; arguments given here take precedence, and thresholds are
    added.

    tune: scores of the tuning (validation) split; Youden's threshold on it is frozen under the name
        "default".
    patient: the patient column (default: "patient"). Patients are the clusters of every interval.
    unit: image (default), series, study or patient. Scores are pooled to it by `pool` (max, mean or
        noisy_or); labels must agree unless `pool_label` is "any".
    subgroups: columns whose levels are evaluated separately.
    compare: other models' tables of the same images, matched by image id.
    compare_unpaired: tables of other patients, such as those of another hospital; no patient may
        be in both.
    readers: human readers' calls (reader, arm, the id of the unit, finding, rating 0 or 1), drawn
        as points on the ROC curve.
    thresholds: a declared number, {finding: {name: x}}, or frozen thresholds of a model file, as a
        list of dicts with finding, name, threshold, criterion, split, n_patients and sha256.
    operating_points: name -> criterion, such as {"screening": "sensitivity:0.95"} (see
        medres.evaluate.metrics.thresholds). The thresholds are found on the tuning table and
        frozen; one named "default" replaces Youden's.
    design: a mapping, or a YAML or JSON file (sampling: cohort or case_control, prevalence,
        reference_standard, setting, ...).
    prevalence: in the population where the model is to be used, 0..1: a number for all findings,
        {finding: x}, or a list of both.
    level: of all confidence intervals. margin: the greatest accepted loss of AUC in a comparison.
    exact: Clopper-Pearson intervals of rates instead of Wilson's.
    partial_auc: ranges of the partial areas, such as "specificity:0.9:1"; the default is 0.8 to 1
        of either axis.
    provenance, flow: kept in the report (flow: the counts of ingest.json).
    pictures: a function (finding, unit of analysis, id of the unit) -> bytes of a PNG or None, such
        as a saliency map. It is called for the worst errors only.
    title: of the report. name: what the page, the tables and the figures call the finding of a
        table with one finding (default: the model's name of it, else that of its column).
    fold_ids: IDs that differ only in case or leading zeros mean the same; else they are counted in
        a warning.
    progress: called with (done, total) findings.

    Raises EvaluationError, in one sentence, if the input cannot be evaluated. A finding with only
    one class is not an error: its figures are null, with the reason.

    >>> scores = pd.DataFrame({"label": [1, 1, 0, 0], "score": [0.9, 0.4, 0.6, 0.1]})
    >>> evaluate(scores).report.findings["positive"].auc.estimate
    0.75
    """
    if isinstance(scores, Scored):
        unit, pool, title = unit or scores.unit, pool or scores.pool, title or scores.title
        subgroups, thresholds = subgroups or scores.subgroups, _all_thresholds(scores, thresholds)
        provenance = {**scores.provenance, **(provenance or {})}
        flow, pictures, scores = flow or scores.flow, pictures or scores.pictures, scores.table
    pool = pool or "max"
    table = load(scores, patient=patient, fold_ids=fold_ids)
    options = make_options(
        table.names,
        level=level,
        margin=margin,
        prevalence=prevalence,
        design=design,
        subgroups=subgroups,
        exact=exact,
        partial_auc=partial_auc,
    )
    pooling = _PoolingRule(unit, pool, pool_label)
    units = pooling.apply(table)
    tune_table = (
        None if tune is None else load(tune, patient=patient, what="tune", fold_ids=fold_ids)
    )
    shared: tuple[list[str], dict[str, str]] = (
        ([], {}) if tune_table is None else check_tune(tune_table, table)
    )
    chosen = choose_thresholds(
        units,
        None if tune_table is None else pooling.apply(tune_table),
        None if tune_table is None else tune_table.sha256,
        thresholds,
        operating_points,
    )
    others, elsewhere = (
        [_load_named(name, source, patient, fold_ids) for name, source in _named_tables(sources)]
        for sources in (compare, compare_unpaired)
    )
    compared = [table_source(other) for other in others] + [
        table_source(other, *check_disjoint(table, other)) for other in elsewhere
    ]
    headline, share = headline_of(units)
    findings = _findings(table, units, chosen, options, headline, progress)
    titles = _titles(units.names, name, (provenance or {}).get("finding"))
    findings = {key: replace(f, title=titles[key]) for key, f in findings.items()}
    if readers is not None:
        calls = load_readers(readers, units, fold_ids=fold_ids)
        findings = {
            key: replace(
                finding,
                readers=reader_points(calls, units, key, level, next(iter(chosen[key]), None)),
            )
            for key, finding in findings.items()
        }
    comparisons, global_tests = _comparisons(
        table, others, elsewhere, pooling, chosen, options, headline
    )
    images = {} if pictures is None else draw_worst(units, chosen, pictures)
    n_folds = int(np.unique(units.fold).size)
    report = Report(
        title=title or "Diagnostic evaluation",
        task=table.task,
        analysis_unit=units.unit,
        cluster="patient" if units.has_patient else None,
        pooling=Pooling(pool, pool_label or "equal") if units.pooled else Pooling(None, None),
        folds=n_folds if n_folds > 1 else None,
        headline=headline,
        largest_patient_share=share,
        design=Design(to_plain(options.design), options.prevalence or None),
        n=sample_size(table, units),
        flow=participant_flow(table, units, flow),
        findings=findings,
        macro=macro_auc(units, level) if len(units.names) > 1 else None,
        multiclass=(
            multiclass_report(units, level, options.ordinal, options.case_control)
            if task_named(table.task).exclusive
            else None
        ),
        comparisons=comparisons,
        global_comparisons=global_tests,
        provenance=replace(
            provenance_of(table, tune_table, compared, options, provenance, *shared),
            explanation=EXPLANATION if any(images.values()) else None,
        ),
    )
    report = replace(
        report,
        warnings=report_warnings(report),
        methods=methods(report, options),
        crosswalks=crosswalks(report),
    )
    return DiagnosticReport(report, images)


@dataclass(frozen=True)
class _PoolingRule:
    """How every table of a report is pooled."""

    unit: str | None
    score: str
    label: str | None

    def apply(self, table: Table) -> AnalysisUnits:
        return to_units(table, self.unit, self.score, self.label)


def _all_thresholds(scored: Scored, thresholds: Any) -> list[Any]:
    """The frozen thresholds of the model, then those that the caller declares."""
    if thresholds is None:
        return scored.thresholds
    declared = thresholds if isinstance(thresholds, list | tuple) else [thresholds]
    return [*scored.thresholds, *declared]


def _findings(
    table: Table,
    units: AnalysisUnits,
    thresholds: dict[str, list[Threshold]],
    options: ReportOptions,
    headline: Headline,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Finding]:
    names = detailed_classes(units) if task_named(table.task).exclusive else tuple(units.names)
    others = other_unit_reports(table, units, {n: thresholds[n] for n in names}, options)
    findings = {}
    for number, name in enumerate(names, start=1):
        other = others.get(name)
        finding = finding_report(units, name, thresholds[name], options)
        release_memory()
        findings[name] = replace(
            finding,
            other_unit=other and replace(other, summary=summary(other, other.unit)),
            subgroups=subgroup_report(units, name, thresholds[name], options),
            summary=summary(finding, units.unit, headline),
        )
        if progress is not None:
            progress(number, len(names))
    return findings


def _titles(findings: tuple[str, ...], name: str | None, model_name: str | None) -> dict[str, str]:
    """What people read for the key of each finding: its own name, unless the caller (`name`) or
    the model has a name for the only finding."""
    if len(findings) == 1:
        column = LABEL_COLUMN if findings[0] == BINARY_FINDING else findings[0]
        return {findings[0]: name or model_name or column}
    if name is not None:
        raise EvaluationError(
            f"name is {name!r}, but the table has {len(findings)} findings: leave it out, because "
            "the names of the columns are shown",
            code="several_findings",
        )
    return {finding: finding for finding in findings}


def _load_named(
    name: str | None, source: ScoresSource, patient: str | None, fold_ids: bool
) -> Table:
    table = load(source, patient=patient, what=name or "compared", fold_ids=fold_ids)
    return table if name is None else replace(table, name=name)


def _named_tables(compare: ScoresSources) -> list[tuple[str | None, ScoresSource]]:
    if compare is None:
        return []
    if isinstance(compare, Mapping):
        return [(str(name), source) for name, source in compare.items()]
    if isinstance(compare, pd.DataFrame | str | Path):
        return [(None, compare)]
    return [(None, source) for source in compare]


def _comparisons(
    table: Table,
    others: list[Table],
    elsewhere: list[Table],
    pooling: _PoolingRule,
    thresholds: dict[str, list[Threshold]],
    options: ReportOptions,
    headline: Headline,
) -> tuple[list[Comparison], list[GlobalComparison] | None]:
    """Each other model against this one, on the same images or (`elsewhere`) on other patients; and
    for three models and more, tests of all of them on the images that they share.
    """
    comparisons: list[Comparison] = []
    names = _unique_names([t.name for t in (table, *others, *elsewhere)])
    end = len(others) + 1
    for other, name in zip(others, names[1:end], strict=True):
        a, b = (pooling.apply(aligned) for aligned in align(table, other))
        comparisons += comparison_report(a, b, (names[0], name), thresholds, options, headline)
    for other, name in zip(elsewhere, names[end:], strict=True):
        a, b = pooling.apply(table), pooling.apply(other)
        comparisons += unpaired_report(a, b, (names[0], name), thresholds, options, headline)
    comparisons = adjust(comparisons)
    if len(others) < 2:
        return comparisons, None
    common = table
    for other in others:
        common = align(common, other)[0]
    models = [common, *(align(common, other)[1] for other in others)]
    return comparisons, global_comparisons([pooling.apply(model) for model in models], names[:end])


def _unique_names(names: list[str]) -> list[str]:
    """The names of the models; a name that was used before gets a number."""
    return [
        name if name not in names[:i] else f"{name} ({names[:i].count(name) + 1})"
        for i, name in enumerate(names)
    ]
