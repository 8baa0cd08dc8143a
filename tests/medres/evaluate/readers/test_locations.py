from __future__ import annotations

import pandas as pd
import pytest
from helpers import raises_code

from medres.errors import EvaluationError
from medres.evaluate import reader_study
from medres.evaluate.readers.locations import with_hits
from medres.evaluate.readers.table import load_ratings

LESIONS = pd.DataFrame(
    {
        "case": ["a", "a", "b"],
        "lesion": ["p", "q", "p"],
        "x": [10, 14, 5],
        "y": [10, 10, 5],
        "radius": [3, 3, 2],
    }
)


def marks(*places: tuple) -> pd.DataFrame:
    return pd.DataFrame(places, columns=["case", "x", "y"]).assign(rating=3)


def test_a_mark_hits_the_nearest_lesion_that_holds_it() -> None:
    table = marks(
        ("a", 11, 10), ("a", 12.5, 10), ("a", 10, 13), ("a", 10, 13.01), ("b", 11, 10), ("c", 1, 1)
    )
    assert with_hits(table, LESIONS)["lesion"].tolist() == ["p", "q", "p", "", "", ""]


def test_boxes_reach_from_edge_to_edge() -> None:
    boxes = pd.DataFrame(
        {"case": ["a"], "lesion": ["p"], "x_min": [2], "x_max": [6], "y_min": [0], "y_max": [4]}
    )
    table = marks(("a", 2, 4), ("a", 6, 0), ("a", 6.1, 2), ("a", 4, 5))
    assert with_hits(table, boxes)["lesion"].tolist() == ["p", "p", "", ""]


def test_a_third_axis() -> None:
    lesions = LESIONS.assign(z=20)
    table = marks(("a", 10, 10), ("a", 10, 10)).assign(z=[21, 24])
    assert with_hits(table, lesions)["lesion"].tolist() == ["p", ""]


def test_a_row_without_a_mark_needs_no_place() -> None:
    table = marks(("a", "", ""), ("b", 5, 5)).assign(rating=["", 2])
    assert with_hits(table, LESIONS)["lesion"].tolist() == ["", "p"]


@pytest.mark.parametrize(
    ("code", "table", "lesions"),
    [
        ("bad_location", marks(("a", "left", 3)), LESIONS),
        ("bad_location", marks(("a", 1, 3)), LESIONS.assign(radius=0)),
        ("location_outside", marks(("a", -1, 3)), LESIONS),
        ("location_outside", marks(("a", 65, 3)).assign(width=64, height=64), LESIONS),
        ("location_outside", marks(("b", 3, 65)), LESIONS.assign(width=64, height=64)),
        ("location_outside", marks(("a", 1, 3)), LESIONS.assign(x=-1)),
        ("location_outside", marks(("a", 1, 3)), LESIONS.assign(width=2, height=64)),
        (
            "location_outside",
            marks(("a", 1, 3)),
            LESIONS.drop(columns="radius").assign(x_min=0, x_max=9, y_min=60, y_max=65, height=64),
        ),
        ("missing_column", marks(("a", 1, 3)).drop(columns="y"), LESIONS),
        ("missing_column", marks(("a", 1, 3)), LESIONS.drop(columns="radius")),
    ],
)
def test_places_that_do_not_fit_are_refused(code: str, table, lesions) -> None:
    with raises_code(EvaluationError, code):
        with_hits(table, lesions)


def test_a_study_by_places_is_the_study_by_ids(marked) -> None:
    table, lesions = marked()
    number = lesions["lesion"].str[1:].astype(int)
    placed = lesions.assign(x=10 + 20 * number, y=10, radius=4)
    hit = table["lesion"].str[1:]
    by_place = table.assign(
        x=[
            10 + 20 * int(k) if k else "" if r == "" else 90
            for k, r in zip(hit, table["rating"], strict=True)
        ],
        y=["" if r == "" else 11 for r in table["rating"]],
    ).drop(columns="lesion")
    found = reader_study(by_place, lesions=placed).numbers["reader_study"]
    expected = reader_study(table, lesions=lesions).numbers["reader_study"]
    assert found["froc"].pop("hit_rule") == "the mark lies within the radius"
    assert expected["froc"].pop("hit_rule") == "as the readers table says"
    assert found == expected


def test_sizes_in_the_readers_table_limit_lesions_too() -> None:
    table = marks(("a", 1, 3), ("b", 1, 3)).assign(width=12, height=64)
    with raises_code(EvaluationError, "location_outside", "1 row"):
        with_hits(table, LESIONS)
    assert with_hits(table.assign(width=["", 64]), LESIONS)["lesion"].tolist() == ["", ""]


def test_a_size_that_is_no_number_is_refused() -> None:
    for size in ("wide", 0):
        with raises_code(EvaluationError, "bad_location", "width"):
            with_hits(marks(("a", 1, 3)).assign(width=size), LESIONS)


def test_marks_with_stated_lesions_must_be_inside_too(marked) -> None:
    table, lesions = marked()
    table = table.assign(x=70, y=2, width=64, height=64)
    with raises_code(EvaluationError, "location_outside"):
        load_ratings(table, lesions)
    assert load_ratings(table.assign(x=64), lesions).crossed
