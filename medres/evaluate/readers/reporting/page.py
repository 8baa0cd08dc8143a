"""A reader study for people: the page, the CSV tables and the text for a methods section. Nothing
is computed here.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import is_dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from medres.evaluate.readers.analysis import ANALYSES
from medres.evaluate.readers.outcome import ReaderStudy, ReaderStudyResult
from medres.evaluate.reporting.csv_tables import Cell, Row
from medres.evaluate.reporting.html import format_number, format_p
from medres.evaluate.reporting.narrative import limits
from medres.evaluate.serialization import to_plain

FIGURES = {
    "auc": "area under the ROC curve (trapezoid)",
    "pauc": "partial area under the ROC curve",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "wafroc": "weighted AFROC area (lesions of a case weigh 1 together; false marks on "
    "non-diseased cases only)",
    "afroc": "AFROC area (all lesions weigh equally; false marks on non-diseased cases only)",
    "hrauc": "ROC area of the highest mark of each case",
    "lroc": "area under the LROC curve (right location and higher rating)",
}
COVARIANCES = {
    "delong": "DeLong 1988",
    "jackknife": "the jackknife over patients",
    "unbiased": "the unbiased estimator of Gallas 2007",
}
METHODS = {
    "or": "Modalities were compared by the analysis of variance of Obuchowski and Rockette (1995) "
    "with the degrees of freedom of Hillis (2007), ",
    "ustat": "Modalities were compared by U-statistics over readers and cases (Gallas and others "
    "2009), ",
}
CLAIMS = {
    "rrrc": "The conclusions hold for readers and cases like these.",
    "frrc": "The conclusions hold for these readers only, and for cases like these.",
    "rrfc": "The conclusions hold for these cases only, and for readers like these.",
}


def study_methods(study: ReaderStudy, level: float, margin: float | None) -> str:
    """Sentences for the methods section of a paper."""
    n = study.n
    words = [
        f"{n.readers} reader{'s' if n.readers > 1 else ''} read {n.cases} cases "
        f"({n.diseased} diseased, {n.nondiseased} not) in {n.modalities} "
        f"modalit{'ies' if n.modalities > 1 else 'y'}; the design is "
        f"{study.design.replace('_', ' ')}.",
        f"The figure of merit is the {FIGURES[study.figure.partition('@')[0]]}.",
        METHODS[study.method]
        + f"{ANALYSES[study.analysis]}, covariances by {COVARIANCES[study.covariance]}.",
        CLAIMS[study.analysis],
        f"Intervals are two-sided at {level:.0%}; p-values of several contrasts are also given "
        "after Holm's adjustment.",
    ]
    if margin is not None:
        words.append(
            f"The margin of non-inferiority and equivalence is {margin:g}, judged by the limits of "
            "the interval of the difference."
        )
    if study.standalone is not None:
        words.append(
            "The model alone was compared with the readers by a single-modality test of the "
            "differences reader minus model, whose covariances include the model (Hillis 2007)."
        )
    if study.sample_size is not None:
        words.append(
            f"Sample sizes for a difference of {study.sample_size.effect:g} follow Hillis, "
            "Obuchowski and Berbaum (2011)."
        )
    return " ".join(words)


def study_tables(study: ReaderStudy) -> dict[str, list[Row]]:
    """Rows by table: values, modalities, contrasts, per_reader, components and standalone."""
    tables = {
        "values": _rows(study.values),
        "modalities": _rows(study.modalities),
        "contrasts": _rows(study.contrasts),
        "per_reader": _rows(study.per_reader),
    }
    if study.components is not None:
        tables["components"] = _rows([study.components])
    if study.sample_size is not None:
        tables["sample_size"] = _rows(study.sample_size.rows)
    if study.standalone is not None:
        tables["standalone"] = _rows(study.standalone.contrasts)
        tables["standalone_per_reader"] = _rows(study.standalone.per_reader)
    return tables


def study_page(result: ReaderStudyResult) -> str:
    """A self-contained HTML page that requests nothing from the network."""
    css = _asset("page.css")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"num": format_number, "p": format_p, "ci": limits}
    return environment.from_string(_asset("reader_study.html.j2")).render(
        r=result,
        s=result.reader_study,
        figure=FIGURES[result.reader_study.figure.partition("@")[0]],
        claim=CLAIMS[result.reader_study.analysis],
        provenance=to_plain(result.provenance),
        css=Markup(css),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'",
    )


def _rows(items: Iterable[object]) -> list[Row]:
    return [_row(to_plain(item)) for item in items if is_dataclass(item)]


def _row(members: dict[str, Cell | dict[str, Cell]]) -> Row:
    """The members of an object; those of its estimate stand beside the others."""
    row: Row = {}
    for key, value in members.items():
        row |= value if isinstance(value, dict) else {key: value}
    return row


def _asset(name: str) -> str:
    folder = resources.files("medres.evaluate.reporting") / "templates"
    return (folder / name).read_text(encoding="utf-8")
