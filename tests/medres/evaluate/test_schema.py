"""The typed report: what it holds, and that its JSON is that of report.json."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from medres.evaluate import evaluate
from medres.evaluate.metrics.results import ClassFigures
from medres.evaluate.schema import Finding, Report
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
    from medres.evaluate.reporting.csv_tables import tables

    result = evaluate(frame())
    figures = {row["figure"] for row in tables(result.numbers)["figures"]}
    finding = result.report.findings["positive"]
    single = {
        f.name
        for f in dataclasses.fields(Finding)
        if isinstance(getattr(finding, f.name), Estimate)
    }
    assert single <= figures


def test_every_class_is_named_class_in_the_json() -> None:
    names = [f.metadata.get("key", f.name) for f in dataclasses.fields(ClassFigures)]
    assert names[0] == "class"
