"""The page and the CSV tables of a reader study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import is_dataclass

from markupsafe import Markup

from medres.evaluate.readers.measures.froc import Froc
from medres.evaluate.readers.outcome import ReaderStudy, ReaderStudyResult
from medres.evaluate.readers.reporting import figures
from medres.evaluate.readers.reporting.methods import claims, figure_words, variance_words
from medres.evaluate.reporting.csv_tables import Cell, Row
from medres.evaluate.reporting.static_page import static_page
from medres.evaluate.serialization import to_plain

MAIN_TABLES = ("values", "modalities", "contrasts", "per_reader")


def study_tables(study: ReaderStudy) -> dict[str, list[Row]]:
    """Rows by table, for each part that the study has."""
    one_row = {
        "overall": study.overall,
        "components": study.components,
        "variance_shares": study.variance_shares,
    }
    rows: dict[str, Iterable[object]] = {
        "values": study.values,
        "modalities": study.modalities,
        "contrasts": study.contrasts,
        "per_reader": study.per_reader,
        **{name: [item] for name, item in one_row.items() if item is not None},
        **_parts_beside(study),
    }
    tables = {name: _rows(items) for name, items in rows.items()}
    if study.standalone is not None:
        model = study.standalone
        tables["standalone_model"] = [{"reader": model.name, **to_plain(model.estimate)}]
    if study.model_at_readers is not None:
        tables["model_at_readers"] = _long_rows(study.model_at_readers)
    if study.agreement is not None:
        tables["agreement"] = _long_rows([*study.agreement.modalities, *study.agreement.pairs])
    if study.rates is not None:
        tables["rates"] = [
            {"figure": rate.figure, **row}
            for rate in study.rates
            for row in _rows([*rate.values, *rate.modalities, *rate.contrasts, *rate.per_reader])
        ]
        alone = [(r.figure, r.standalone) for r in study.rates if r.standalone is not None]
        if alone:
            tables["rates_standalone"] = [
                {"figure": name, **row}
                for name, model in alone
                for row in _rows([*model.contrasts, *model.per_reader])
            ]
    if study.froc is not None:
        tables["froc"] = _froc_rows(study.froc)
        tables["froc_differences"] = _rows(study.froc.differences)
    if study.curves is not None:
        tables["curves"] = [
            {"modality": curve.modality, "reader": curve.reader, "fpr": x, "tpr": y}
            for curve in study.curves
            for x, y in zip(curve.fpr, curve.tpr, strict=True)
        ]
        tables["points"] = [
            {"modality": curve.modality, "reader": curve.reader, "fpr": x, "tpr": y}
            for curve in study.curves
            if curve.at is not None
            for x, y in [curve.at]
        ]
    return {name: table for name, table in tables.items() if table or name in MAIN_TABLES}


def _parts_beside(study: ReaderStudy) -> dict[str, Iterable[object]]:
    rows: dict[str, Iterable[object]] = {}
    if study.sample_size is not None:
        rows["sample_size"] = study.sample_size.rows
    if study.standalone is not None:
        rows["standalone"] = study.standalone.contrasts
        rows["standalone_per_reader"] = study.standalone.per_reader
    if study.reading_time is not None:
        rows["reading_time"] = [*study.reading_time.modalities, *study.reading_time.ratios]
        rows["reading_time_blocks"] = study.reading_time.blocks
    return rows


def _long_rows(items: Iterable[object]) -> list[Row]:
    """One row for each estimate of each object, with its name in the column `measure`."""
    found: list[Row] = []
    for item in items:
        members = to_plain(item)
        keys = {key: value for key, value in members.items() if not isinstance(value, dict)}
        found += [
            {**keys, "measure": key, **value}
            for key, value in members.items()
            if isinstance(value, dict)
        ]
    return found


def _froc_rows(found: Froc) -> list[Row]:
    rows: list[Row] = []
    for item in found.values:
        keys: Row = {"modality": item.modality, "reader": item.reader, "images": item.images}
        for at, estimate in zip(found.fp_per_image, item.sensitivity, strict=True):
            rows.append({**keys, "fp_per_image": at, **to_plain(estimate)})
        rows.append({**keys, "fp_per_image": "mean", **to_plain(item.froc_mean)})
    return rows


def study_page(result: ReaderStudyResult) -> str:
    """A self-contained HTML page that requests nothing from the network."""
    study = result.reader_study
    return static_page(
        "reader_study.html.j2",
        {},
        has_images=False,
        r=result,
        s=study,
        figure=figure_words(study),
        claims=claims(study, next((c.margin for c in study.contrasts), None)),
        variance=variance_words(study),
        plots=_plots(study),
        provenance=to_plain(result.provenance),
    )


def _plots(study: ReaderStudy) -> dict[str, Markup]:
    plots = {}
    if study.curves:
        plots["roc"] = figures.roc(study.curves)
    if study.froc is not None:
        plots["froc"] = figures.froc(study.froc)
    if study.contrasts and study.per_reader:
        pairs = figures.pairs_with_readers(study.per_reader)
        plots["forest"] = "".join(figures.forest(study, a, b) for a, b in pairs)
    if study.sample_size is not None:
        plots["sample_size"] = figures.sample_size(study.sample_size)
    return {name: Markup(svg) for name, svg in plots.items()}


def _rows(items: Iterable[object]) -> list[Row]:
    return [_row(to_plain(item)) for item in items if is_dataclass(item)]


def _row(members: dict[str, Cell | dict[str, Cell]]) -> Row:
    """The members of an object; those of its estimate stand beside the others."""
    row: Row = {}
    for key, value in members.items():
        row |= value if isinstance(value, dict) else {key: value}
    return row
