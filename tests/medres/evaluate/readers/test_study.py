from __future__ import annotations

import json
import re
import time

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code
from scipy import stats

import medres.evaluate
from medres.errors import EvaluationError
from medres.evaluate import reader_study
from medres.evaluate.readers.outcome import ModalityContrast, ReaderStudyResult
from medres.evaluate.readers.variances.inference import with_holm
from medres.evaluate.serialization import from_plain
from medres.evaluate.statistics.estimate import Estimate


def slow_analysis(table: pd.DataFrame) -> tuple[float, float, float, float]:
    """Difference, F, df2 and p by the formulas of Obuchowski & Rockette and Hillis, one step at a
    time, with a jackknife that computes each AUC anew."""

    def auc(part: pd.DataFrame) -> float:
        x = part.loc[part.truth == 1, "rating"].to_numpy()[:, None]
        y = part.loc[part.truth == 0, "rating"].to_numpy()
        return float(np.mean((x > y) + 0.5 * (x == y)))

    groups = dict(iter(table.groupby(["modality", "reader"])))
    cases = sorted(table.case.unique())
    values = {key: auc(part) for key, part in groups.items()}
    left = {key: np.array([auc(p[p.case != c]) for c in cases]) for key, p in groups.items()}
    n = len(cases)

    def mean_covariance(same_modality: bool, same_reader: bool) -> float:
        found = [
            (n - 1) / n * np.sum((left[a] - left[a].mean()) * (left[b] - left[b].mean()))
            for a in left
            for b in left
            if (a[0] == b[0]) is same_modality and (a[1] == b[1]) is same_reader
        ]
        return float(np.mean(found))

    y = pd.Series(values).unstack()
    t, r = y.shape
    rest = y.sub(y.mean(axis=1), axis=0).sub(y.mean(axis=0), axis=1) + y.to_numpy().mean()
    ms_tr = float((rest**2).to_numpy().sum()) / ((t - 1) * (r - 1))
    ms_t = r * float(((y.mean(axis=1) - y.to_numpy().mean()) ** 2).sum()) / (t - 1)
    excess = r * max(mean_covariance(True, False) - mean_covariance(False, False), 0)
    f = ms_t / (ms_tr + excess)
    df2 = (ms_tr + excess) ** 2 / (ms_tr**2 / ((t - 1) * (r - 1)))
    means = y.mean(axis=1)
    return float(means.iloc[0] - means.iloc[1]), f, df2, float(stats.f.sf(f, t - 1, df2))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_study_is_what_the_formulas_give(rated, seed: int) -> None:
    table = rated(seed=seed)
    found = reader_study(table, covariance="jackknife").report.reader_study.contrasts[0]
    expected = slow_analysis(table)
    assert (found.difference.estimate, found.f, found.df2, found.p_value) == pytest.approx(
        expected, abs=1e-10
    )
    low, high = found.difference.bounds
    half = stats.t.ppf(0.975, found.df2) * abs(expected[0]) / np.sqrt(expected[1])
    assert (low, high) == pytest.approx((expected[0] - half, expected[0] + half))


def test_the_json_has_the_keys_of_the_contract(rated) -> None:
    report = reader_study(rated(), margin=0.05, title="Does it help?")
    numbers = json.loads(report.to_json())
    assert numbers["task"] == "reader_study"
    study = numbers["reader_study"]
    assert {"figure": "auc", "analysis": "rrrc", "covariance": "delong"}.items() <= study.items()
    assert study["design"] == "crossed"
    assert len(study["values"]) == 8
    assert study["values"][0].keys() == {"reader", "modality", "estimate"}
    assert study["modalities"][0].keys() == {"modality", "estimate"}
    contrast = study["contrasts"][0]
    assert {"a", "b", "difference", "f", "df1", "df2", "p_value"} <= contrast.keys()
    assert {"level", "alternative", "margin", "noninferior", "equivalent"} <= contrast.keys()
    assert contrast["p_adjusted"] == contrast["p_value"]
    assert {"error", "cov1", "cov2", "cov3"} <= study["components"].keys()
    assert study["n"]["readings"] == 320
    again = from_plain(ReaderStudyResult, numbers)
    assert again.to_json() == numbers


def test_fixed_readers_have_no_denominator_df(rated) -> None:
    contrast = reader_study(rated(), analysis="frrc").report.reader_study.contrasts[0]
    assert contrast.df2 is None
    assert "df2" in contrast.why
    z = contrast.difference.estimate / np.sqrt(contrast.difference.estimate**2 / contrast.f)
    assert contrast.p_value == pytest.approx(2 * stats.norm.sf(abs(z)))


def test_one_reader_is_enough_when_readers_are_fixed(rated) -> None:
    """Then it is DeLong's paired test."""
    table = rated(readers=1)
    study = reader_study(table, analysis="frrc").report.reader_study
    assert study.contrasts[0].p_value == pytest.approx(study.per_reader[0].p_value)
    for analysis in ("rrrc", "rrfc"):
        with raises_code(EvaluationError, "one_reader"):
            reader_study(table, analysis=analysis)


def test_conclusions_need_a_margin_that_was_stated(rated) -> None:
    table = rated(readers=6, cases=300)
    table["rating"] += 1.5 * table["truth"] * (table["modality"] == "M2")
    contrast = reader_study(table).report.reader_study.contrasts[0]
    assert contrast.noninferior is contrast.equivalent is None
    low, high = contrast.difference.bounds
    assert high < 0  # the second modality is better
    wide = reader_study(table, margin=-low + 1e-6).report.reader_study.contrasts[0]
    assert wide.noninferior is True
    assert wide.equivalent is True
    narrow = reader_study(table, margin=-low - 1e-6).report.reader_study.contrasts[0]
    assert narrow.noninferior is narrow.equivalent is False
    turned = reader_study(table, margin=1e-6, pair=("M2", "M1")).report.reader_study.contrasts[0]
    assert turned.noninferior is True
    assert turned.equivalent is False


def test_three_modalities_are_compared_in_pairs_and_together(rated) -> None:
    study = reader_study(rated(modalities=3)).report.reader_study
    assert [(c.a, c.b) for c in study.contrasts] == [("M1", "M2"), ("M1", "M3"), ("M2", "M3")]
    assert study.overall.df1 == 2
    assert all(c.p_adjusted >= c.p_value for c in study.contrasts)
    assert len(study.per_reader) == 12


def test_holm_by_hand() -> None:
    def of(p: float | None) -> ModalityContrast:
        return ModalityContrast("a", "b", Estimate(0.1, why="x"), None, None, None, p, 0.95)

    adjusted = [c.p_adjusted for c in with_holm([of(0.04), of(None), of(0.01), of(0.03)])]
    assert adjusted == pytest.approx([0.06, None, 0.03, 0.06])


def test_equal_arms_give_reasons_and_no_nan(rated) -> None:
    table = rated(modalities=1)
    same = pd.concat([table, table.assign(modality="M2")])
    for analysis in ("rrrc", "frrc", "rrfc"):
        report = reader_study(same, analysis=analysis)
        contrast = report.report.reader_study.contrasts[0]
        assert contrast.difference.estimate == 0
        assert contrast.p_value is None
        assert "variance is not above zero" in contrast.why
        assert "NaN" not in report.to_json()
        assert not re.search(r"\bnan\b", report.to_html(), re.IGNORECASE)


def test_perfect_readers_have_no_interval(rated) -> None:
    table = rated().assign(rating=lambda t: t["truth"])
    study = reader_study(table).report.reader_study
    assert study.values[0].estimate.estimate == 1
    assert study.values[0].estimate.ci_low is None
    assert study.modalities[0].estimate.why


def test_readings_that_did_not_take_place(rated) -> None:
    table = rated()
    split = table[(table["case"] < 20) == table["reader"].isin(["R1", "R2"])]
    study = reader_study(split).report.reader_study
    assert study.design == "unbalanced"
    assert study.covariance == "jackknife"
    assert any("160 readings" in note for note in study.notes)
    modalities = table[(table["case"] < 20) == (table["modality"] == "M1")]
    nested = reader_study(modalities).report.reader_study
    assert nested.design == "cases_nested_in_modalities"
    assert nested.components.cov1 == nested.components.cov3 == 0
    readers = table[table["case"] // 10 == table["reader"].str[1:].astype(int) - 1]
    nested = reader_study(readers).report.reader_study
    assert nested.design == "cases_nested_in_readers"
    assert nested.components.cov2 == nested.components.cov3 == 0
    missing = table[(table["reader"] != "R1") | (table["modality"] != "M2")]
    with raises_code(EvaluationError, "missing_cells", "R1", "M2"):
        reader_study(missing)


@pytest.mark.parametrize("figure", ["wafroc", "afroc", "hrauc", "sensitivity@3", "pauc"])
def test_marks_are_compared_too(marked, figure: str) -> None:
    table, lesions = marked()
    study = reader_study(table, lesions=lesions, figure=figure).report.reader_study
    assert study.covariance == "jackknife"
    assert study.n.lesions == len(lesions)
    assert 0 < study.contrasts[0].p_value < 1
    assert reader_study(table, lesions=lesions).report.reader_study.figure == "wafroc"


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("unknown_analysis", {"analysis": "random"}),
        ("out_of_range", {"level": 95}),
        ("out_of_range", {"margin": -0.05}),
        ("unknown_modality", {"pair": ("M1", "M9")}),
        ("unknown_modality", {"pair": ("M1", "M1")}),
        ("unknown_reader", {"standalone": "AI"}),
    ],
)
def test_options_that_do_not_fit_are_refused(rated, code: str, options: dict) -> None:
    with raises_code(EvaluationError, code):
        reader_study(rated(), **options)


def test_one_arm_is_refused(rated) -> None:
    with raises_code(EvaluationError, "one_modality"):
        reader_study(rated(modalities=1))


def test_a_report_on_disk(rated, tmp_path) -> None:
    report = reader_study(rated(), title="A <study>")
    report.save(tmp_path / "out")
    assert json.loads((tmp_path / "out/report.json").read_text()) == report.numbers
    page = (tmp_path / "out/report.html").read_text()
    assert "A &lt;study&gt;" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    names = {path.name for path in (tmp_path / "out/tables").iterdir()}
    assert names == {
        f"{name}.csv"
        for name in (
            *("values", "modalities", "contrasts", "per_reader", "components"),
            *("variance_shares", "agreement", "curves", "overall"),
        )
    }
    values = pd.read_csv(tmp_path / "out/tables/values.csv")
    assert values["estimate"].tolist() == [
        item["estimate"]["estimate"] for item in report.numbers["reader_study"]["values"]
    ]
    report.save(tmp_path / "out", overwrite=True)
    assert "Obuchowski and Rockette" in report.report.methods


@pytest.mark.parametrize("figure", ["auc", "pauc"])
def test_ten_readers_and_500_cases_in_two_arms_take_less_than_a_second(rated, figure) -> None:
    table = rated(readers=10, cases=500, steps=0)
    begin = time.process_time()  # other processes do not count
    reader_study(table, covariance="jackknife", figure=figure)
    assert time.process_time() - begin < 1.0


def test_it_is_a_public_function() -> None:
    assert medres.evaluate.reader_study is reader_study
