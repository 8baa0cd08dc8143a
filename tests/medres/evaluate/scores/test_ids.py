"""Ids that are written differently, from one table and between two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from medres.errors import EvaluationError
from medres.evaluate import evaluate
from medres.evaluate.scores.ids import count_similar, id_texts, shared_ids
from medres.evaluate.scores.table import load


def table(patients: list, seed: int = 0, prefix: str = "i") -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = len(patients)
    return pd.DataFrame(
        {
            "image": [f"{prefix}{i}" for i in range(n)],
            "patient": patients,
            "label": np.arange(n) % 2,
            "score": np.round(rng.random(n), 3),
        }
    )


def codes(report) -> list[str]:
    return [warning.code for warning in report.report.warnings]


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([1, 2], ["1", "2"]),
        ([1.0, 2.0], ["1", "2"]),
        (["1.0", "2.0"], ["1", "2"]),
        (["1.0", "2"], ["1.0", "2"]),  # not decimal throughout
        ([1.5, 2.0], ["1.5", "2.0"]),
        ([" P1", "P2\t"], ["P1", "P2"]),
        (["007", "7"], ["007", "7"]),  # never merged unless requested
    ],
)
def test_ids_are_text_without_outer_spaces(values: list, want: list[str]) -> None:
    assert id_texts(pd.Series(values)).tolist() == want


def test_one_patient_written_two_ways_is_one_cluster() -> None:
    spaced = load(table(["P1", " P1", "P2", "P2 "]))
    assert spaced.columns["patient"].nunique() == 2
    floats = load(table([1.0, 1.0, 2.0, 2.0]))
    texts = load(table(["1", "1", "2", "2"]))
    assert floats.columns["patient"].tolist() == texts.columns["patient"].tolist()


def test_a_leak_is_seen_through_spaces_and_decimals(tmp_path: Path) -> None:
    scores = table([1, 2, 3, 4] * 3)
    for same in ([4.0, 9.0] * 5, [" 4", "9"] * 5, ["4.0", "9.0"] * 5):
        with raises_code(EvaluationError, "split_leak"):
            evaluate(scores, tune=table(same, seed=1, prefix="t"))


def test_similar_ids_are_counted_and_the_attestation_is_withheld() -> None:
    scores = table(["P1", "p1", "P2", "P3"] * 3)
    made = evaluate(scores, tune=table(["p3", "P9"] * 5, seed=1, prefix="t"))
    source = made.report.provenance
    assert source.scores.similar_ids == {"patient": 2}
    assert source.tune.nothing_shared_by == ["image"]
    assert set(source.tune.not_comparable) == {"patient"}
    assert {"similar_ids", "not_disjoint"} <= set(codes(made))
    assert not any("P1" in warning.text or "p1" in warning.text for warning in made.report.warnings)
    with raises_code(EvaluationError, "split_leak"):
        evaluate(scores, tune=table(["p3", "P9"] * 5, seed=1, prefix="t"), fold_ids=True)
    assert evaluate(scores, fold_ids=True).report.n.patients == 3


def test_numbers_beside_names_withhold_the_attestation() -> None:
    made = evaluate(table([1, 2, 3, 4] * 3), tune=table(["P1", "P2"] * 5, seed=1, prefix="t"))
    assert made.report.provenance.tune.nothing_shared_by == ["image"]
    assert "not_disjoint" in codes(made)
    plain = evaluate(table([1, 2, 3, 4] * 3), tune=table([7, 8] * 5, seed=1, prefix="t"))
    assert plain.report.provenance.tune.nothing_shared_by == ["image", "patient"]
    assert "not_disjoint" not in codes(plain)


def test_compared_tables_that_differ_in_case_say_how_to_match_them() -> None:
    a, b = table(["P1", "P2"] * 5), table(["P1", "P2"] * 5, seed=1)
    b["image"] = b["image"].str.upper()
    with raises_code(EvaluationError, "no_common_image", "10", "--fold-ids"):
        evaluate(a, compare=b)
    assert len(evaluate(a, compare=b, fold_ids=True).report.comparisons) == 1


def test_counts_of_similar_ids() -> None:
    assert count_similar(pd.Series(["a", "A", "a", "b"])) == 2
    assert count_similar(pd.Series(["S10", "S1", "S100"])) == 0
    assert shared_ids(pd.Series(["01", "2"]), pd.Series(["1", "2"])).similar == 1


def test_forms_that_r_and_pandas_write(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("label,score\nTRUE,0.9\nFALSE,0.2\nNA,0.5\nTRUE,0.4\nFALSE,0.6\n")
    loaded = load(path)
    np.testing.assert_array_equal(loaded.label["positive"], [1, 0, np.nan, 1, 0])
    path.write_text("label,score,status\n1,0.9,scored\n0,NA,refused\n")
    np.testing.assert_array_equal(load(path).score["positive"], [0.9, np.nan])
    path.write_text("label,score\n1,0.9\n0,NA\n")
    with raises_code(EvaluationError, "missing_score"):
        load(path)
    path.write_text("label,score:0,score:1,score:2\n0.0,.5,.3,.2\n2.0,.1,.2,.7\nNA,.1,.2,.7\n")
    loaded = load(path)
    np.testing.assert_array_equal(loaded.label["2"], [0, 1, np.nan])


def test_labels_of_one_and_minus_one_give_a_hint() -> None:
    made = evaluate(pd.DataFrame({"label": [1, -1] * 5, "score": np.linspace(0, 1, 10)}))
    assert {"undefined", "minus_one"} <= set(codes(made))
    uncertain = evaluate(pd.DataFrame({"label": [1, -1, 0] * 5, "score": np.linspace(0, 1, 15)}))
    assert "minus_one" not in codes(uncertain)


def test_a_binary_finding_is_shown_by_its_column_or_name() -> None:
    frame = pd.DataFrame({"label": [1, 0] * 5, "score": np.linspace(0, 1, 10)})
    assert evaluate(frame).report.findings["positive"].title == "label"
    assert evaluate(frame, name="effusion").report.findings["positive"].title == "effusion"
