from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medres.evaluate.readers.measures.model_points import model_at_readers
from medres.evaluate.readers.standalone import split_off
from medres.evaluate.readers.table import load_ratings


@pytest.fixture
def study(rated):
    table = rated(readers=2, cases=60)
    one = table[(table["modality"] == "M1") & (table["reader"] == "R1")]
    noise = np.random.default_rng(2).normal(0, 1, len(one))
    return split_off(
        load_ratings(pd.concat([table, one.assign(reader="AI", rating=one["rating"] + noise)])),
        "AI",
    )


def test_the_model_at_the_specificity_of_a_reader_by_hand(study) -> None:
    people, model = study
    found = model_at_readers(people, model, 2.0, 0.95)
    assert [(p.reader, p.modality) for p in found[:3]] == [
        ("R1", "M1"),
        ("R2", "M1"),
        (None, "M1"),
    ]
    first, truth = found[0], people.truth
    positive = people.rating[0, 0] >= 2
    assert first.specificity.estimate == pytest.approx(np.mean(~positive[~truth]))
    assert first.sensitivity.estimate == pytest.approx(np.mean(positive[truth]))
    score = model.rating[0, 0]
    false = int(positive[~truth].sum())  # the model may call as many non-diseased cases positive
    cut = np.sort(score[~truth])[::-1][false]
    assert first.model_sensitivity.estimate == pytest.approx(np.mean(score[truth] > cut))
    assert first.difference.estimate == pytest.approx(
        first.sensitivity.estimate - first.model_sensitivity.estimate
    )
    assert found[2].difference.estimate == pytest.approx(
        np.mean([p.difference.estimate for p in found[:2]])
    )


def test_the_variance_of_the_threshold_is_in_the_interval(study) -> None:
    """The interval is wider than that of a model whose threshold stays."""
    people, model = study
    found = model_at_readers(people, model, 2.0, 0.95)[0]
    n = int(people.truth.sum())
    p = found.model_sensitivity.estimate
    frozen = 2 * 1.96 * np.sqrt(p * (1 - p) / n)
    assert found.model_sensitivity.ci_high - found.model_sensitivity.ci_low > frozen
    assert "threshold" in found.difference.method
    assert found.difference.ci_low < found.difference.estimate < found.difference.ci_high


def test_cases_without_marks_are_below_every_rating(marked, recwarn) -> None:
    table, lesions = marked()
    one = table[(table["reader"] == 1) & (table["modality"] == "A")]
    ratings = load_ratings(pd.concat([table, one.assign(reader="AI")]), lesions)
    people, model = split_off(ratings, "AI")
    same = next(p for p in model_at_readers(people, model, 3.0, 0.95) if p.reader == "1")
    assert same.difference.estimate == 0  # reader 1 in modality A is the model
    assert not recwarn.list
