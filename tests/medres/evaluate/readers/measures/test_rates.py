from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code
from scipy import stats

from medres.errors import EvaluationError
from medres.evaluate import reader_study


def with_model(table: pd.DataFrame) -> pd.DataFrame:
    """A model on a scale of its own, 0 to 1."""
    one = table[(table["modality"] == "M1") & (table["reader"] == "R1")]
    noise = np.random.default_rng(5).normal(0, 1.5, len(one))
    score = 1 / (1 + np.exp(-(one["rating"] + noise)))
    return pd.concat([table, one.assign(reader="AI", rating=score)], ignore_index=True)


def test_sensitivity_and_specificity_change_as_their_own_figures_do(rated) -> None:
    table = rated()
    study = reader_study(table, positive=2).report.reader_study
    assert [rate.figure for rate in study.rates] == ["sensitivity@2", "specificity@2"]
    for rate in study.rates:
        alone = reader_study(table, figure=rate.figure).report.reader_study
        assert alone.rates == study.rates
        assert rate.contrasts == alone.contrasts
        assert rate.per_reader == alone.per_reader
    first = table[(table["modality"] == "M1") & (table["reader"] == "R1")]
    called = first[first["truth"] == 1]["rating"] >= 2
    assert study.rates[0].values[0].estimate.estimate == pytest.approx(called.mean())


def test_decisions_need_no_stated_rating(rated) -> None:
    table = rated().assign(rating=lambda t: (t["rating"] >= 2).astype(int))
    assert reader_study(table).report.reader_study.rates[0].at == 1
    assert reader_study(rated()).report.reader_study.rates is None


def test_a_margin_holds_for_the_figure_alone(rated) -> None:
    study = reader_study(rated(), figure="sensitivity@2", margin=0.3).report.reader_study
    assert [rate.contrasts[0].margin for rate in study.rates] == [0.3, None]
    assert (
        reader_study(rated(), positive=2, margin=0.3)
        .report.reader_study.rates[0]
        .contrasts[0]
        .margin
        is None
    )


def test_the_model_at_its_own_frozen_threshold(rated) -> None:
    table = with_model(rated())
    options = {"standalone": "AI", "analysis": "rrfc"}
    study = reader_study(table, positive=2, threshold=0.7, **options).report.reader_study
    diseased = table[table["truth"] == 1]
    model = (diseased[diseased["reader"] == "AI"]["rating"] >= 0.7).mean()
    people = diseased[(diseased["reader"] != "AI") & (diseased["modality"] == "M1")]
    own = people.groupby("reader")["rating"].apply(lambda r: (r >= 2).mean()) - model
    found = study.rates[0].standalone
    assert found.estimate.estimate == pytest.approx(model)
    assert found.contrasts[0].difference.estimate == pytest.approx(own.mean())
    assert found.contrasts[0].p_value == pytest.approx(stats.ttest_1samp(own, 0).pvalue)
    assert study.rates[0].threshold == 0.7
    figure = reader_study(table, figure="sensitivity@2", threshold=0.7, **options)
    assert figure.report.reader_study.standalone == found


def test_without_a_threshold_the_model_has_no_rate(rated) -> None:
    study = reader_study(with_model(rated()), positive=2, standalone="AI").report.reader_study
    assert study.rates[0].standalone is None
    assert study.model_at_readers is not None


def test_what_does_not_fit_is_refused(rated) -> None:
    with raises_code(EvaluationError, "threshold_without_model"):
        reader_study(rated(), threshold=0.5)
    with raises_code(EvaluationError, "not_for_ustat"):
        reader_study(rated(), positive=2, method="ustat")
    with raises_code(EvaluationError, "out_of_range", "positive"):
        reader_study(rated(), positive=float("inf"))
