from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from medres.errors import EvaluationError
from medres.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("few_replicates")

LABEL = [1, 1, 1, 0, 0, 0, 0, None]
SCORES = pd.DataFrame(
    {"image": list("abcdefgh"), "label": LABEL, "score": np.linspace(0.9, 0.2, 8)}
)
CALLS = pd.DataFrame(
    {
        "reader": ["R1"] * 8 + ["R2"] * 4,
        "image": list("abcdefgh") + list("abde"),
        "rating": [1, 1, 0, 0, 0, 1, 0, 1, 1, 1, 0, 0],
    }
)


def test_points_by_hand() -> None:
    first, second = evaluate(SCORES, readers=CALLS).numbers["findings"]["positive"]["readers"]
    assert (first["reader"], first["arm"], first["n"]) == (
        "R1",
        "",
        7,
    )  # the unlabelled image does not count
    assert (first["sensitivity"]["numerator"], first["sensitivity"]["denominator"]) == (2, 3)
    assert (first["specificity"]["numerator"], first["specificity"]["denominator"]) == (3, 4)
    assert (second["n"], second["sensitivity"]["estimate"], second["specificity"]["estimate"]) == (
        4,
        1.0,
        1.0,
    )


def test_they_are_drawn_and_listed_and_arms_are_kept_apart() -> None:
    arms = pd.concat([CALLS.assign(arm="alone"), CALLS.assign(arm="<b>aided")])
    report = evaluate(SCORES, readers=arms)
    assert len(report.numbers["findings"]["positive"]["readers"]) == 4
    page = report.to_html()
    assert page.count('class="reader"') == 4
    assert "<b>aided" not in page
    assert "without statistical inference over readers" in page


def test_several_findings_need_names() -> None:
    many = pd.DataFrame(
        {
            "image": list("ab"),
            "label:A": [1, 0],
            "score:A": [0.5, 0.1],
            "label:B": [1, 0],
            "score:B": [0.5, 0.1],
        }
    )
    calls = pd.DataFrame({"reader": ["R", "R"], "image": ["a", "b"], "rating": ["1", "0"]})
    with raises_code(EvaluationError, "missing_column", "'finding'"):
        evaluate(many, readers=calls)
    found = evaluate(many, readers=calls.assign(finding="B")).numbers["findings"]
    assert found["A"]["readers"] == []
    assert found["B"]["readers"][0]["n"] == 2


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"rating": 2}, "bad_rating"),
        ({"rating": "Doe^John"}, "bad_rating"),
        ({"finding": "other"}, "unknown_finding"),
        ({"image": "zz"}, "unknown_unit"),
        ({"image": "a"}, "duplicate_rating"),
    ],
)
def test_bad_tables_are_refused(change, code: str) -> None:
    with raises_code(EvaluationError, code) as raised:
        evaluate(SCORES, readers=CALLS.assign(**change))
    assert "Doe" not in str(raised.value)
    with raises_code(EvaluationError, "missing_column", "'rating'"):
        evaluate(SCORES, readers=CALLS.drop(columns="rating"))


def test_the_model_is_measured_on_the_cases_of_each_reader() -> None:
    scores = SCORES.assign(status=["scored"] * 6 + ["refused", "scored"])
    report = evaluate(scores, readers=CALLS, thresholds=0.55)
    first, second = report.numbers["findings"]["positive"]["readers"]
    assert (first["n"], first["n_without_score"]) == (6, 1)  # the refused image g counts for none
    assert (first["specificity"]["numerator"], first["specificity"]["denominator"]) == (2, 3)
    model = first["model"]  # a, b, c and d score at least 0.55
    assert (model["sensitivity"]["numerator"], model["sensitivity"]["denominator"]) == (3, 3)
    assert (model["specificity"]["numerator"], model["specificity"]["denominator"]) == (2, 3)
    difference = first["difference"]
    assert difference["sensitivity_difference"]["estimate"] == pytest.approx(1 / 3)
    assert difference["specificity_difference"]["estimate"] == 0.0
    assert (difference["sensitivity_p"], difference["operating_point"]) == (1.0, "0.55")
    assert second["model"]["specificity"]["denominator"] == 2  # d and e alone
    assert second["difference"]["specificity_difference"]["estimate"] == -0.5
    page = report.to_html()
    assert page.count("model − reader") == 2
    assert "+ 1 without a score" in page
