from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from medres.errors import EvaluationError
from medres.evaluate.readers.table import load_ratings


def test_a_table_becomes_arrays(rated, tmp_path) -> None:
    table = rated(readers=11, cases=12).assign(reader=lambda t: t["reader"].str[1:])
    found = load_ratings(table.sample(frac=1, random_state=1))
    assert found.readers == tuple(str(i) for i in range(1, 12))
    assert found.modalities == ("M1", "M2")
    assert found.rating.shape == (2, 11, 12)
    assert found.crossed
    assert not found.clustered
    row = table.iloc[100]
    at = (found.modalities.index(row.modality), found.readers.index(row.reader), row.case)
    assert found.rating[at] == row.rating
    assert found.truth.tolist() == [False, True] * 6
    table.to_csv(tmp_path / "readers.csv", index=False)
    np.testing.assert_array_equal(load_ratings(tmp_path / "readers.csv").rating, found.rating)


def test_what_was_not_read_is_missing(rated) -> None:
    found = load_ratings(rated().drop(index=[3, 70]))
    assert not found.crossed
    assert int((~found.read).sum()) == 2
    assert [cell.case.size for cell in found.cells()] == [39, 39, 40, 40, 40, 40, 40, 40]


def test_cases_of_one_patient_are_known(rated) -> None:
    found = load_ratings(rated().assign(patient=lambda t: t["case"] // 4))
    assert found.clustered
    assert np.unique(found.patient).size == 10


def change(column: str, value: object, row: int = 7):
    def changed(table: pd.DataFrame) -> pd.DataFrame:
        table = table.astype({column: object})
        table.loc[row, column] = value
        return table

    return changed


@pytest.mark.parametrize(
    ("code", "spoil"),
    [
        ("missing_column", lambda t: t.drop(columns="truth")),
        ("no_rows", lambda t: t.head(0)),
        ("missing_id", change("reader", " ")),
        ("bad_truth", change("truth", 2)),
        ("bad_truth", change("truth", "yes")),
        ("truth_differs", change("truth", 0)),
        ("bad_rating", change("rating", "probably")),
        ("bad_rating", change("rating", np.inf)),
        ("bad_rating", change("rating", "")),
        ("duplicate_rating", lambda t: pd.concat([t, t.tail(1)])),
        ("one_class", lambda t: t[(t["reader"] != "R2") | (t["truth"] == 0)]),
        ("one_class", lambda t: t[(t["truth"] == 1) | (t["case"] == 0)]),
        ("several_findings", lambda t: t.assign(finding=np.where(t["case"] < 20, "a", "b"))),
        ("patient_differs", lambda t: t.assign(patient=np.arange(len(t)))),
        ("missing_id", lambda t: t.assign(patient="")),
    ],
)
def test_a_table_that_does_not_fit_is_refused(rated, code: str, spoil) -> None:
    with raises_code(EvaluationError, code):
        load_ratings(spoil(rated()))


def test_one_finding_is_selected(rated) -> None:
    both = pd.concat([rated().assign(finding="a"), rated(seed=1).assign(finding="b")])
    np.testing.assert_array_equal(
        load_ratings(both, finding="b").rating, load_ratings(rated(seed=1)).rating
    )
    with raises_code(EvaluationError, "unknown_finding", "a, b"):
        load_ratings(both, finding="c")
    with raises_code(EvaluationError, "unknown_finding"):
        load_ratings(rated(), finding="a")


def test_marks_find_their_lesions(marked) -> None:
    table, lesions = marked()
    found = load_ratings(table, lesions)
    assert found.lesions is not None
    assert found.lesions.weight.sum() == pytest.approx(15)
    key = {"reader": "1", "modality": "B"}
    m, r = found.modalities.index(key["modality"]), found.readers.index(key["reader"])
    rows = table[(table.reader == 1) & (table.modality == "B")]
    for case in range(30):
        of_case = rows[(rows.case == case) & (rows.rating != "")]
        false = of_case.loc[of_case.lesion == "", "rating"]
        assert found.lesions.false_mark[m, r, case] == max(false, default=-np.inf)
        assert found.rating[m, r, case] == max(of_case.rating, default=-np.inf)
        assert found.lesions.n_marks[m, r, case] == len(of_case)
    assert found.notes == ("the weights of the lesions were divided by their sum in each case",)


def test_a_lesion_that_is_marked_twice_keeps_its_highest_rating(marked) -> None:
    table, lesions = marked()
    lesions = lesions.drop(columns="weight")
    hit = table[table.lesion != ""].iloc[[0]]
    found = load_ratings(pd.concat([table, hit.assign(rating=99.0)]), lesions)
    assert found.lesions is not None
    assert found.lesions.rating.max() == 99.0
    assert len(found.notes) == 1
    assert "1 further mark " in found.notes[0]


@pytest.mark.parametrize(
    ("code", "spoil"),
    [
        ("no_lesions_table", lambda t, x: (t, None)),
        ("unused_lesions_table", lambda t, x: (t[t.rating != ""].drop(columns="lesion"), x)),
        ("missing_column", lambda t, x: (t, x.drop(columns="lesion"))),
        ("missing_id", lambda t, x: (t, x.assign(lesion=""))),
        ("duplicate_lesion", lambda t, x: (t, pd.concat([x, x.head(1)]))),
        ("bad_weight", lambda t, x: (t, x.assign(weight=0))),
        ("bad_weight", lambda t, x: (t, x.assign(weight="heavy"))),
        ("lesion_in_normal_case", lambda t, x: (t, x.assign(case=0, lesion=np.arange(len(x))))),
        ("diseased_without_lesion", lambda t, x: (t[t.lesion == ""], x[x.case != 1])),
        ("unknown_lesion", lambda t, x: (t.assign(lesion="L9"), x)),
        ("unknown_lesion", lambda t, x: (t.replace({"lesion": {"L0": "L8"}}), x)),
        ("lesion_without_rating", lambda t, x: (t.assign(rating=""), x)),
        ("marks_and_none", lambda t, x: (pd.concat([t, _none(t[t.rating != ""])]), x)),
        ("duplicate_rating", lambda t, x: (pd.concat([t, t[t.rating == ""]]), x)),
    ],
)
def test_marks_that_do_not_fit_are_refused(marked, code: str, spoil) -> None:
    table, lesions = spoil(*marked())
    if code == "unknown_lesion":
        table = table[table.rating != ""]
    with raises_code(EvaluationError, code):
        load_ratings(table, lesions)


def _none(table: pd.DataFrame) -> pd.DataFrame:
    return table.head(1).assign(lesion="", rating="")


def test_the_lesions_of_another_finding_are_left_out(marked) -> None:
    table, lesions = marked()
    other = lesions.assign(case=lesions.case - 1, finding="b")  # in cases that are normal here
    both = pd.concat([lesions.assign(finding="a"), other], ignore_index=True)
    expected = load_ratings(table, lesions).lesions
    more = table.assign(truth=1 - table.truth, lesion="", rating="", finding="b")
    more = more.drop_duplicates(["reader", "modality", "case"])
    findings = pd.concat([table.assign(finding="a"), more], ignore_index=True)
    alone = load_ratings(table.assign(finding="a"), both).lesions
    chosen = load_ratings(findings, both, finding="a").lesions
    for found in (alone, chosen):
        np.testing.assert_array_equal(found.rating, expected.rating)
        np.testing.assert_array_equal(found.weight, expected.weight)


def test_findings_are_ids(rated) -> None:
    assert load_ratings(rated().assign(finding=1.0), finding="1").readers == (
        "R1",
        "R2",
        "R3",
        "R4",
    )
    assert load_ratings(rated().assign(finding="")).crossed
    with raises_code(EvaluationError, "missing_id"):
        load_ratings(change("finding", np.nan)(rated().assign(finding="a")))


def test_a_repeated_column_is_refused(rated) -> None:
    with raises_code(EvaluationError, "duplicate_column", "rating"):
        load_ratings(pd.concat([rated(), rated()[["rating"]]], axis=1))
