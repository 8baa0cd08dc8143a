from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from medres.errors import EvaluationError
from medres.evaluate import reader_study
from medres.evaluate.readers.figures import make_figure
from medres.evaluate.readers.table import load_ratings


def located(seed: int = 0, cases: int = 24) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One mark in each case, in the right place in about two of three diseased ones."""
    draw = np.random.default_rng(seed)
    truth = np.arange(cases) % 2
    rows = []
    for modality in ("A", "B"):
        for reader in range(3):
            right = (draw.random(cases) < 0.7) & (truth == 1)
            rating = np.round(draw.normal(right * 1.0, 1) * 2)
            rows.append(
                pd.DataFrame(
                    {"reader": reader, "modality": modality, "case": np.arange(cases)}
                ).assign(truth=truth, rating=rating, lesion=np.where(right, "L", ""))
            )
    lesions = pd.DataFrame({"case": np.flatnonzero(truth), "lesion": "L"})
    return pd.concat(rows, ignore_index=True), lesions


def test_height_and_area_by_hand() -> None:
    """Right places rated 4 and 2, one wrong; others rated 3, 3, 1, 0: the curve goes through
    (0, 0), (0, 1/3), (1/2, 1/3), (1/2, 2/3), (3/4, 2/3), (1, 2/3)."""
    rows = [("a", 1, 4, "L"), ("b", 1, 2, "L"), ("c", 1, 5, "")]
    rows += [("d", 0, 3, ""), ("e", 0, 3, ""), ("f", 0, 1, ""), ("g", 0, 0, "")]
    table = pd.DataFrame(rows, columns=["case", "truth", "rating", "lesion"])
    lesions = pd.DataFrame({"case": ["a", "b", "c"], "lesion": "L"})
    study = load_ratings(table.assign(reader="R", modality="M"), lesions)

    def value(name: str) -> float:
        return make_figure(name, study).value(study.cell(0, 0))

    assert value("pcl@0.25") == pytest.approx(1 / 3)
    assert value("pcl@0.5") == pytest.approx(1 / 3)  # of the jump, the lower end
    assert value("pcl@0.6") == pytest.approx(2 / 3)
    assert value("alroc@0.75") == pytest.approx(0.5 / 3 + 0.25 * 2 / 3)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_area_is_the_figure_lroc(seed: int) -> None:
    study = load_ratings(*located(seed))
    whole, pairs = make_figure("alroc@1", study), make_figure("lroc", study)
    for cell in study.cells():
        assert whole.value(cell) == pytest.approx(pairs.value(cell))
        patients, left = whole.leave_one_out(cell)
        same, expected = pairs.leave_one_out(cell)
        assert patients.tolist() == same.tolist()
        assert left == pytest.approx(expected)


def test_a_study_by_the_height_of_the_curve() -> None:
    table, lesions = located()
    study = reader_study(table, lesions=lesions, figure="pcl@0.3").report.reader_study
    assert study.covariance == "jackknife"
    assert 0 < study.contrasts[0].p_value < 1
    with raises_code(EvaluationError, "covariance_not_for_figure"):
        reader_study(table, lesions=lesions, figure="pcl@0.3", covariance="delong")
    with raises_code(EvaluationError, "not_lroc"):
        reader_study(
            table.iloc[1:],
            lesions=pd.concat([lesions, lesions.assign(lesion="L2")]),
            figure="alroc@0.3",
        )


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("pcl", "unknown_figure"),
        ("pcl@low", "unknown_figure"),
        ("alroc@1.5", "out_of_range"),
        ("pcl@0", "out_of_range"),
    ],
)
def test_a_rate_is_needed(name: str, code: str) -> None:
    with raises_code(EvaluationError, code):
        make_figure(name, load_ratings(*located()))
