from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from medres.errors import EvaluationError
from medres.evaluate.scores.table import load
from medres.evaluate.scores.units import to_units

ROWS = pd.DataFrame(
    {
        "study": ["s1", "s1", "s2", "s2", "s3"],
        "patient": ["p1", "p1", "p2", "p2", "p1"],
        "label": [1, 1, 0, None, 0],
        "score": [0.2, 0.6, 0.1, 0.3, 0.4],
        "status": ["scored", "scored", "scored", "refused", "failed"],
        "view": ["PA", "LAT", "PA", "PA", "PA"],
    }
)


def test_image_is_the_default_and_nothing_is_pooled() -> None:
    units = to_units(load(ROWS), None, "max", None)
    assert (units.unit, units.n_units, units.pooled, units.n_patients) == ("image", 5, False, 2)


@pytest.mark.parametrize(
    ("pool", "first"), [("max", 0.6), ("mean", 0.4), ("noisy_or", 1 - 0.8 * 0.4)]
)
def test_scores_are_pooled_over_scored_images(pool: str, first: float) -> None:
    units = to_units(load(ROWS), "study", pool, None)
    assert units.key.tolist() == ["s1", "s2", "s3"]
    assert units.score["positive"][:2] == pytest.approx([first, 0.1])
    assert units.refused.tolist() == [False, False, True]
    assert units.label["positive"].tolist() == [1, 0, 0]
    assert units.patient.tolist() == [0, 1, 0]
    assert units.columns["view"].tolist() == ["(mixed)", "PA", "PA"]
    sample = units.sample("positive")
    assert sample.label.tolist() == [True, False]


def test_units_of_one_image_each_are_sorted_and_not_pooled() -> None:
    rows = ROWS.iloc[[4, 0, 2]].assign(label=[0, 1, 0], status="scored")
    units = to_units(load(rows), "study", "max", None)
    assert (units.task, units.unit, units.pooled, units.n_images) == ("binary", "study", False, 3)
    assert units.key.tolist() == units.columns["study"].tolist() == ["s1", "s2", "s3"]
    assert units.score["positive"].tolist() == [0.2, 0.1, 0.4]
    assert units.label["positive"].tolist() == [1, 0, 0]
    assert units.patient.tolist() == [0, 1, 0]
    assert list(units.columns.index) == [0, 1, 2]


def test_a_study_of_two_seeds_is_a_unit_of_each() -> None:
    rows = pd.concat(
        [ROWS.assign(seed=seed, fold=seed % 2, score=ROWS.score / seed) for seed in (2, 1)]
    )
    units = to_units(load(rows), "study", "max", "any")
    assert units.key.tolist() == ["s1", "s1", "s2", "s2", "s3", "s3"]
    assert units.score["positive"][:2].tolist() == [0.6, 0.3]
    assert units.fold.tolist() == [0, 1, 0, 1, 0, 1]
    assert units.fold.dtype == units.patient.dtype == np.int64
    assert (units.n_images, units.pooled) == (10, True)


def test_folds_without_seeds_are_kept_apart() -> None:
    units = to_units(load(ROWS.assign(fold=[1, 1, 0, 0, 2])), "study", "max", "any")
    assert units.fold.tolist() == [1, 0, 2]


def test_uncertain_units_stay_so() -> None:
    units = to_units(load(ROWS.assign(label=[-1, None, 0, 0, None])), "study", "max", None)
    np.testing.assert_array_equal(units.label["positive"], [-1, 0, np.nan])


def test_noisy_or_takes_0_and_1_and_nothing_beyond() -> None:
    certain = to_units(
        load(ROWS.assign(score=[0.0, 1.0, 0.0, 0.0, 0.0])), "study", "noisy_or", None
    )
    assert certain.score["positive"][:2].tolist() == [1.0, 0.0]
    for wrong in (-0.01, 1.01):
        with raises_code(EvaluationError, "not_probabilities", "'positive'"):
            to_units(
                load(ROWS.assign(score=[wrong, 0.5, 0.5, 0.5, 0.5])), "study", "noisy_or", None
            )


def test_units_without_a_score_have_none() -> None:
    assert np.isnan(to_units(load(ROWS), "study", "noisy_or", None).score["positive"][2])


def test_labels_that_differ_are_an_error_unless_any() -> None:
    rows = ROWS.assign(label=[1, 0, 0, -1, None])
    with raises_code(
        EvaluationError, "mixed_labels", "2 of 3 studies", "positive", "--pool-label any"
    ):
        to_units(load(rows), "study", "max", None)
    units = to_units(load(rows), "study", "max", "any")
    np.testing.assert_array_equal(units.label["positive"], [1, -1, np.nan])


def test_any_does_not_turn_a_gap_into_a_negative() -> None:
    units = to_units(load(ROWS), "study", "max", "any")
    np.testing.assert_array_equal(units.label["positive"], [1, np.nan, 0])


def test_refusals() -> None:
    with raises_code(EvaluationError, "missing_column", "'series'"):
        to_units(load(ROWS), "series", "max", None)
    with raises_code(EvaluationError, "mixed_patients"):
        to_units(load(ROWS.assign(patient=["p1", "p2", "p3", "p3", "p4"])), "study", "max", "any")
    with raises_code(EvaluationError, "not_probabilities"):
        to_units(load(ROWS.assign(score=ROWS.score * 10)), "study", "noisy_or", None)
    for bad in ({"unit": "lesion"}, {"pool": "median"}, {"pool_label": "all"}):
        with raises_code(EvaluationError, "unknown_option", *map(repr, bad.values())):
            to_units(load(ROWS), **({"unit": "study", "pool": "max", "pool_label": None} | bad))


def test_without_patients_a_repeated_image_of_several_seeds_is_one_cluster() -> None:
    frame = pd.DataFrame(
        {
            "image": ["a", "b", "a", "b"],
            "seed": [1, 1, 2, 2],
            "label": [1, 0, 1, 0],
            "score": [0.9, 0.1, 0.8, 0.2],
        }
    )
    units = to_units(load(frame), None, "max", None)
    assert units.patient.tolist() == [0, 1, 0, 1]
    assert units.fold.tolist() == [0, 0, 1, 1]
    assert units.n_patients is None
