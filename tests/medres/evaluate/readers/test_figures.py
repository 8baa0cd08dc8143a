from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code
from sklearn.metrics import roc_auc_score

from medres.errors import EvaluationError
from medres.evaluate.readers.figures import make_figure
from medres.evaluate.readers.ratings import Cell, Ratings
from medres.evaluate.readers.table import load_ratings

NAMES = ("hrauc", "wafroc", "afroc")


def above(a: float, b: float) -> float:
    return 1.0 if a > b else 0.5 if a == b else 0.0


def slow(name: str, cell: Cell) -> float:
    """By definition, pair by pair."""
    healthy = np.flatnonzero(~cell.truth)
    won = total = 0.0
    for case in np.flatnonzero(cell.truth):
        mine = np.flatnonzero(cell.lesion_case == case)
        if name in ("auc", "hrauc"):
            signals = [(cell.rating[case], 1.0)]
        elif name == "afroc":
            signals = [(cell.lesion_rating[i], 1.0) for i in mine]
        else:
            signals = [(cell.lesion_rating[i], cell.lesion_weight[i]) for i in mine]
        noise = cell.rating if name in ("auc", "hrauc") else cell.false_mark
        for signal, weight in signals:
            total += weight
            won += weight * np.mean([above(signal, noise[i]) for i in healthy])
    return won / total


def without(cell: Cell, patient: int) -> Cell:
    keep = cell.patient != patient
    number = np.cumsum(keep) - 1
    lesions = keep[cell.lesion_case] if cell.lesion_case.size else np.zeros(0, dtype=bool)
    return Cell(
        cell.truth[keep],
        cell.patient[keep],
        cell.rating[keep],
        cell.case[keep],
        number[cell.lesion_case][lesions],
        cell.lesion_weight[lesions],
        cell.lesion_rating[lesions],
        cell.false_mark[keep] if cell.false_mark.size else cell.false_mark,
    )


def assert_leave_one_out(name: str, study: Ratings) -> None:
    figure = make_figure(name, study)
    for cell in study.cells():
        patients, values = figure.leave_one_out(cell)
        slowly = [figure.value(without(cell, p)) for p in patients]
        np.testing.assert_allclose(values, slowly, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [0, 3])
def test_auc_is_the_share_of_pairs_and_the_trapezoid(rated, steps: int) -> None:
    study = load_ratings(rated(steps=steps))
    figure = make_figure("auc", study)
    for cell in study.cells():
        assert figure.value(cell) == pytest.approx(slow("auc", cell), abs=1e-12)
        assert figure.value(cell) == pytest.approx(roc_auc_score(cell.truth, cell.rating))


@pytest.mark.parametrize("name", NAMES)
def test_figures_of_marks_are_their_definitions(marked, name: str) -> None:
    study = load_ratings(*marked())
    figure = make_figure(name, study)
    for cell in study.cells():
        assert figure.value(cell) == pytest.approx(slow(name, cell), abs=1e-12)


def test_three_cases_by_hand() -> None:
    """Two lesions in one case, rated 3 and not at all; one in the other, rated 1; the highest false
    marks of the two normal cases: 2 and none."""
    rows = [
        ("a", 1, "x", 3),
        ("a", 1, "", 9),
        ("b", 1, "x", 1),
        ("c", 0, "", 1),
        ("c", 0, "", 2),
        ("d", 0, "", ""),
    ]
    table = pd.DataFrame(rows, columns=["case", "truth", "lesion", "rating"])
    table = pd.concat([table.assign(modality=m) for m in "AB"]).assign(reader=1)
    lesions = pd.DataFrame({"case": list("aab"), "lesion": list("xyx")})
    study = load_ratings(table, lesions)
    cell = study.cell(0, 0)
    # lesion 3: 1 and 1; unmarked: 0 and 1/2 (a tie at minus infinity); lesion 1: 0 and 1
    assert make_figure("wafroc", study).value(cell) == pytest.approx((0.5 + 0.125 + 0.5) / 2)
    assert make_figure("afroc", study).value(cell) == pytest.approx((1 + 0.25 + 0.5) / 3)
    # highest marks 9 and 1 against 2 and none
    assert make_figure("hrauc", study).value(cell) == pytest.approx(0.75)
    assert make_figure("sensitivity@2", study).value(cell) == 0.5
    assert make_figure("specificity@2", study).value(cell) == 0.5
    with raises_code(EvaluationError, "not_lroc"):
        make_figure("lroc", study)


def test_lroc_counts_a_wrong_location_as_lost() -> None:
    rows = [("a", 1, "x", 5), ("b", 1, "", 9), ("c", 0, "", 5), ("d", 0, "", 1)]
    table = pd.DataFrame(rows, columns=["case", "truth", "lesion", "rating"])
    table = table.assign(reader=1, modality="A")
    lesions = pd.DataFrame({"case": list("ab"), "lesion": list("xx")})
    study = load_ratings(table, lesions)
    assert make_figure("lroc", study).value(study.cell(0, 0)) == pytest.approx((0.5 + 1) / 4)
    several = pd.concat([lesions, pd.DataFrame({"case": ["a"], "lesion": ["y"]})])
    with raises_code(EvaluationError, "not_lroc"):
        make_figure("lroc", load_ratings(table, several))


def test_rates_are_shares_of_their_class(rated) -> None:
    study = load_ratings(rated())
    cell = study.cell(0, 1)
    sensitivity = make_figure("sensitivity@2", study).value(cell)
    specificity = make_figure("specificity@2", study).value(cell)
    assert sensitivity == np.mean(cell.rating[cell.truth] >= 2)
    assert specificity == np.mean(cell.rating[~cell.truth] < 2)


def test_partial_area_of_the_whole_range_is_the_area(rated) -> None:
    study = load_ratings(rated())
    cell = study.cell(1, 2)
    auc = make_figure("auc", study).value(cell)
    parts = [f"pauc@specificity:{r}" for r in ("0-0.7", "0.7-1")]
    assert sum(make_figure(part, study).value(cell) for part in parts) == pytest.approx(auc)
    assert make_figure("pauc@sensitivity:0-1", study).value(cell) == pytest.approx(auc)
    assert make_figure("pauc", study) == make_figure("pauc", study)
    assert make_figure("pauc", study).value(cell) == make_figure("pauc@0.8-1", study).value(cell)


@pytest.mark.parametrize("patients", [40, 13])
@pytest.mark.parametrize("name", ["auc", "sensitivity@2", "specificity@2", "pauc"])
def test_leaving_out_a_patient_is_the_value_without(rated, name: str, patients: int) -> None:
    table = rated(readers=2).assign(patient=lambda t: t["case"] % patients)
    assert_leave_one_out(name, load_ratings(table))


@pytest.mark.parametrize("patients", [30, 7])
@pytest.mark.parametrize("name", NAMES)
def test_leaving_out_a_patient_with_marks(marked, name: str, patients: int) -> None:
    table, lesions = marked(readers=1)
    table["patient"] = table["case"] % patients
    assert_leave_one_out(name, load_ratings(table, lesions))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("AUC", "unknown_figure"),
        ("sensitivity", "unknown_figure"),
        ("specificity@high", "unknown_figure"),
        ("pauc@high", "unknown_figure"),
        ("pauc@0.9-0.8", "out_of_range"),
        ("wafroc", "no_lesions_table"),
        ("lroc", "no_lesions_table"),
    ],
)
def test_a_figure_that_does_not_fit_is_refused(rated, name: str, code: str) -> None:
    with raises_code(EvaluationError, code):
        make_figure(name, load_ratings(rated()))


def test_the_area_of_marks_is_asked_for_by_its_name(marked) -> None:
    with raises_code(EvaluationError, "needs_hrauc"):
        make_figure("auc", load_ratings(*marked()))
