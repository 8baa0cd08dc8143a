from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code
from scipy import stats

from medres.errors import EvaluationError
from medres.evaluate import reader_study
from medres.evaluate.readers.figures import PAIRS
from medres.evaluate.readers.table import load_ratings
from medres.evaluate.readers.variances.covariances import figure_covariance, figure_values


@pytest.fixture
def with_model(rated) -> pd.DataFrame:
    people, model = rated(modalities=1), rated(modalities=1, readers=1, seed=5, steps=0)
    return pd.concat([people, model.assign(reader="AI", modality="alone")], ignore_index=True)


def test_the_model_against_the_mean_of_the_readers(with_model) -> None:
    """By the formulas of one modality, from the covariance matrix of all five."""
    found = reader_study(with_model, standalone="AI").report.reader_study
    assert found.n.readers == 4
    assert found.contrasts == []
    joint = load_ratings(with_model.assign(modality="M1"))
    at = [joint.readers.index(name) for name in ("R1", "R2", "R3", "R4", "AI")]
    values = figure_values(PAIRS["auc"], joint)[0][at]
    sigma = figure_covariance("delong", PAIRS["auc"], joint)[np.ix_(at, at)]
    psi = values[:4] - values[4]
    cov = np.array(
        [
            [sigma[i, j] - sigma[i, 4] - sigma[4, j] + sigma[4, 4] for j in range(4)]
            for i in range(4)
        ]
    )
    cov2 = np.mean(cov[~np.eye(4, dtype=bool)])
    square = psi.var(ddof=1)
    denominator = square + 4 * cov2
    t = psi.mean() / np.sqrt(denominator / 4)
    df = denominator**2 / (square**2 / 3)
    contrast = found.standalone.contrasts[0]
    assert (contrast.a, contrast.b) == ("M1", "AI")
    assert contrast.difference.estimate == pytest.approx(psi.mean())
    assert contrast.f == pytest.approx(t**2)
    assert contrast.df2 == pytest.approx(df)
    assert contrast.p_value == pytest.approx(2 * stats.t.sf(abs(t), df))
    assert found.standalone.estimate.estimate == pytest.approx(values[4])
    low, _ = found.standalone.estimate.bounds
    assert low == pytest.approx(values[4] - stats.norm.ppf(0.975) * np.sqrt(sigma[4, 4]))
    one = found.standalone.per_reader[2]
    assert one.difference.estimate == pytest.approx(psi[2])
    z = psi[2] / np.sqrt(cov[2, 2])
    assert one.p_value == pytest.approx(2 * stats.norm.sf(abs(z)))


def test_fixed_cases_is_the_t_test_of_the_differences(with_model) -> None:
    found = reader_study(with_model, standalone="AI", analysis="rrfc").report.reader_study
    values = [item.estimate.estimate for item in found.values]
    t = stats.ttest_1samp(values, found.standalone.estimate.estimate)
    assert found.standalone.contrasts[0].p_value == pytest.approx(t.pvalue)


def test_the_model_in_both_arms_and_its_noninferiority(rated) -> None:
    people, model = rated(), rated(modalities=1, readers=1, seed=5)
    both = [model.assign(reader="AI", modality=m) for m in ("M1", "M2")]
    table = pd.concat([people, *both], ignore_index=True)
    found = reader_study(table, standalone="AI", margin=0.4).report.reader_study
    assert [item.a for item in found.standalone.contrasts] == ["M1", "M2"]
    assert len(found.standalone.per_reader) == 8
    assert len(found.contrasts) == 1
    for item in found.standalone.contrasts:
        assert item.noninferior is (item.difference.ci_high < 0.4)
    table.loc[table.index[-1], "rating"] += 1
    with raises_code(EvaluationError, "standalone_differs"):
        reader_study(table, standalone="AI")


def test_the_page_and_the_tables_name_the_model(with_model, tmp_path) -> None:
    report = reader_study(with_model, standalone="AI")
    assert "The model alone" in report.to_html()
    report.save(tmp_path / "out")
    rows = pd.read_csv(tmp_path / "out/tables/standalone.csv")
    assert rows["b"].tolist() == ["AI"]


def test_a_model_without_readers_is_refused(rated) -> None:
    with raises_code(EvaluationError, "one_reader"):
        reader_study(rated(readers=1), standalone="R1")
    with raises_code(EvaluationError, "one_reader"):
        reader_study(rated(readers=2, modalities=1), standalone="R1")


def test_marks_of_a_model(marked) -> None:
    table, lesions = marked()
    model = table[(table.reader == 0) & (table.modality == "A")].assign(reader="AI")
    people = table[table.reader > 0]
    both = pd.concat([people, model], ignore_index=True)
    found = reader_study(both, lesions=lesions, standalone="AI").report.reader_study
    alone = reader_study(table, lesions=lesions).report.reader_study
    assert found.standalone.estimate.estimate == alone.values[0].estimate.estimate
    assert [item.a for item in found.standalone.contrasts] == ["A", "B"]


def test_a_model_that_read_fewer_cases_than_the_readers(with_model) -> None:
    """The default covariance is then the jackknife; DeLong's is refused by name."""
    table = with_model[(with_model.reader != "AI") | (with_model.case > 3)]
    found = reader_study(table, standalone="AI", positive=1).report.reader_study
    assert found.covariance == "jackknife"
    alone = found.standalone
    own = table[table.reader == "AI"]
    pairs = np.subtract.outer(
        own.rating[own.truth == 1].to_numpy(), own.rating[own.truth == 0].to_numpy()
    )
    assert alone.estimate.estimate == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    assert all(item.difference.bounds for item in alone.per_reader)
    with raises_code(EvaluationError, "covariance_needs_crossed"):
        reader_study(table, standalone="AI", covariance="delong")
