"""The typed report: what it holds, and that its JSON is that of report.json."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from medres.errors import EvaluationError
from medres.evaluate import evaluate
from medres.evaluate.reporting.csv_tables import tables
from medres.evaluate.results import ClassFigures
from medres.evaluate.schema import Finding, Report
from medres.evaluate.serialization import from_plain
from medres.evaluate.statistics.estimate import Estimate

pytestmark = pytest.mark.usefixtures("few_replicates")


def frame(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    label = np.arange(n) % 2
    return pd.DataFrame(
        {"image": np.arange(n), "label": label, "score": rng.random(n) / 2 + label / 4}
    )


def test_the_report_and_its_numbers_are_the_same_thing() -> None:
    result = evaluate(frame(), thresholds=0.5)
    assert isinstance(result.report, Report)
    assert result.numbers == result.report.to_json() == json.loads(result.to_json())
    finding = result.report.findings["positive"]
    assert isinstance(finding, Finding)
    numbers = result.numbers["findings"]["positive"]
    assert finding.auc.to_dict() == numbers["auc"]
    assert finding.operating_points[0].table.tp == numbers["operating_points"][0]["tp"]
    assert finding.summary == numbers["summary"]
    assert {w.code for w in result.report.warnings} == {
        w["code"] for w in result.numbers["warnings"]
    }


def test_keys_without_a_meaning_are_absent_and_others_null() -> None:
    numbers = evaluate(frame()).numbers
    finding = numbers["findings"]["positive"]
    assert not {"macro", "multiclass", "global_comparisons"} & numbers.keys()
    assert not {"auc_patient_weighted", "readers", "other_unit"} & finding.keys()
    assert (numbers["cluster"], numbers["folds"], finding["n_positive_patients"]) == (None,) * 3
    order = [f.name for f in dataclasses.fields(Finding)]
    assert list(finding) == [name for name in order if name in finding]


def test_a_new_figure_of_a_finding_needs_no_other_place() -> None:
    """A field of Finding is in report.json and in tables/figures.csv without further code."""
    result = evaluate(frame())
    figures = {row["figure"] for row in tables(result.report)["figures"]}
    finding = result.report.findings["positive"]
    single = {
        f.name
        for f in dataclasses.fields(Finding)
        if isinstance(getattr(finding, f.name), Estimate)
    }
    assert single <= figures


def many(n: int = 90) -> pd.DataFrame:
    """Three classes, patients and sites."""
    rng = np.random.default_rng(1)
    label = np.arange(n) % 3
    scores = rng.random((n, 3)) + np.eye(3)[label] / 2
    columns = {f"score:{c}": scores[:, k] / scores.sum(axis=1) for k, c in enumerate("abc")}
    return pd.DataFrame(
        {
            "image": np.arange(n),
            "patient": np.arange(n) // 2,
            "site": np.where(np.arange(n) % 4 < 2, "x", "y"),
            "label": np.array(list("abc"))[label],
            **columns,
        }
    )


@pytest.mark.parametrize(
    ("scores", "options"),
    [
        (frame(), {"thresholds": 0.5, "margin": 0.05, "compare": frame().assign(score=0.4)}),
        (frame().assign(score=lambda d: d.score * 9), {"provenance": {"model_sha256": "ab"}}),
        (many(), {"subgroups": ["site"], "design": {"sampling": "case_control"}}),
        (frame().assign(label=1), {"flow": {"given": 60, "reasons": {"codec": 1}}}),
    ],
    ids=["comparison", "ranks", "classes", "one class"],
)
def test_report_json_becomes_the_same_objects(
    scores: pd.DataFrame, options: dict[str, object]
) -> None:
    numbers = evaluate(scores, **options).numbers
    report = from_plain(Report, numbers)
    assert isinstance(report, Report)
    assert all(isinstance(finding, Finding) for finding in report.findings.values())
    assert json.dumps(report.to_json()) == json.dumps(numbers)


def test_a_binary_finding_keeps_its_key_and_is_shown_by_its_title() -> None:
    """The key is always "positive". The title is `name`, else the model's name of the finding, else
    the column."""
    model = {"finding": "pneumonia"}
    options = {"thresholds": 0.5, "prevalence": 0.1, "compare": frame().assign(score=0.4)}
    titles = {
        "label": evaluate(frame(), **options),
        "pneumonia": evaluate(frame(), provenance=model, **options),
        "edema": evaluate(frame(), provenance=model, name="edema", **options),
    }
    for title, result in titles.items():
        assert list(result.numbers["findings"]) == ["positive"]
        assert list(result.numbers["findings"]["positive"].items())[-1] == ("title", title)
        assert result.numbers["comparisons"][0]["finding"] == "positive"
        for rows in tables(result.report).values():
            assert {row["finding"] for row in rows} == {title}
        assert f'aria-label="ROC curve of {title}"' in result.to_html()
        assert f"| {title} |" in result.to_card()
    with raises_code(EvaluationError, "several_findings"):
        evaluate(many(), name="edema")
    several = evaluate(many()).numbers["findings"]
    assert {name: finding["title"] for name, finding in several.items()} == {
        name: name for name in "abc"
    }


def test_every_class_is_named_class_in_the_json() -> None:
    names = [f.metadata.get("key", f.name) for f in dataclasses.fields(ClassFigures)]
    assert names[0] == "class"
