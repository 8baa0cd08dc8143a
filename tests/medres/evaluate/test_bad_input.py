"""What people really hand in: every table here ends in a report that is true, or in one clear
sentence.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from medres.errors import EvaluationError
from medres.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("few_replicates")

HTML = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
FORMULA = "=HYPERLINK(1)"


def frame(n: int = 90, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    return pd.DataFrame(
        {
            "image": [f"{seed}-{k}" for k in range(n)],
            "patient": [f"{seed}-{k // 2}" for k in range(n)],
            "label": label,
            "score": 1 / (1 + np.exp(-rng.normal(size=n) - label)),
            "sex": rng.choice(["F", "M"], n),
        }
    )


def finding(data: pd.DataFrame, **options) -> dict:
    report = evaluate(data, **options)
    json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert report.to_html()
    return report.numbers["findings"]["positive"]


def test_html_and_formulas_in_every_text_cell(tmp_path: Path) -> None:
    for text in (HTML, FORMULA, "+1", "-1", "@a", "\t=1", "&amp;{{7*7}}", "a\nb"):
        data = frame()
        for column in ("image", "patient", "study", "series"):
            data[column] = [
                f"{text}{k // 2 if column == 'patient' else k}" for k in range(len(data))
            ]
        for column in ("sex", "site", "view", "manufacturer", "age", "note"):
            data[column] = np.where(np.arange(len(data)) % 4 < 2, text, "b")
        readers = pd.DataFrame({"reader": text, "arm": text, "image": data.image, "rating": 1})
        report = evaluate(
            data,
            subgroups=["sex", "site", "age"],
            compare={text: data.assign(score=1 - data.score)},
            readers=readers,
            title=text,
            design={"setting": text, "funding": [text]},
            thresholds={"positive": {text: 0.5}},
            provenance={text: text},
        )
        folder = report.save(tmp_path / str(abs(hash(text))))
        page = (folder / "report.html").read_text()
        assert "<script>alert" not in page
        assert "onerror=alert(2)>" not in page.replace("&gt;", "")
        assert ">49<" not in page
        for table in (folder / "tables").iterdir():
            for row in pd.read_csv(table, dtype=str, keep_default_na=False).to_numpy().ravel():
                assert not row.lstrip().startswith(("=", "@")), table.name
                assert not (row.lstrip().startswith(("+", "-")) and not _is_number(row)), table.name


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("absent", ["label", "score"])
def test_a_missing_column_is_named(absent: str) -> None:
    with raises_code(EvaluationError, "missing_column", "label", "score"):
        evaluate(frame().drop(columns=absent))
    with raises_code(EvaluationError, "missing_column", "'image'"):
        evaluate(frame().drop(columns="image"), compare=frame().drop(columns="image"))


def test_mixed_types_are_numbers_or_are_refused() -> None:
    data = frame()
    mixed = data.assign(label=data.label.astype(object), score=data.score.astype(object))
    mixed.loc[::2, "label"] = data.label[::2].astype(str)
    mixed.loc[1::2, "score"] = data.score[1::2].map(repr)
    assert finding(mixed)["auc"]["estimate"] == finding(data)["auc"]["estimate"]
    for bad in ("high", "0,5", "50%"):
        with raises_code(EvaluationError, "bad_score", "'score'") as raised:
            evaluate(mixed.assign(score=[bad, *mixed.score[1:]]))
        assert bad not in str(raised.value)


@pytest.mark.parametrize("shift", [-1e6, 3.0, 1e6])
def test_scores_outside_0_to_1_rank_all_the_same(shift: float) -> None:
    data = frame()
    f = finding(data.assign(score=data.score * 8 + shift), thresholds=shift + 4)
    straight = finding(data, thresholds=0.5)
    assert f["auc"]["estimate"] == straight["auc"]["estimate"]
    assert f["operating_points"][0]["tp"] == straight["operating_points"][0]["tp"]
    assert (
        f["brier"]["estimate"]
        is f["calibration"]["slope"]["estimate"]
        is f["decision_curve"]["model"]
        is None
    )
    assert "ranks" in f["brier"]["why"]


def test_one_patient_gives_numbers_without_intervals_of_width_zero() -> None:
    f = finding(frame().assign(patient="only"))
    assert f["auc"]["estimate"] is not None
    point = f["operating_points"][0]
    for e in (
        f["auc_wald"],
        f["auc_logit"],
        point["sensitivity"],
        point["ppv"],
        f["brier"],
        f["prevalence"],
    ):
        assert e["ci_low"] is None
        assert e["why"]


@pytest.mark.parametrize("kept", [1, 0])
def test_one_class_only_has_reasons_everywhere(kept: int) -> None:
    f = finding(frame()[lambda d: d.label == kept], thresholds=0.5)
    assert "one class only" in f["auc"]["why"]
    side = ("sensitivity", "specificity")[kept]
    assert f["operating_points"][0][side] == {
        "estimate": None, "ci_low": None, "ci_high": None, "n": 0, "numerator": 0, "denominator": 0,
        "why": "no unit in the denominator",
    }  # fmt: skip


def test_one_positive() -> None:
    data = frame().assign(label=0)
    data.loc[3, "label"] = 1
    f = finding(data)
    assert 0 <= f["auc"]["ci_low"] < f["auc"]["ci_high"] <= 1
    assert "two patients" in f["auc_wald"]["why"]
    assert f["average_precision"]["ci_low"] is None


def test_comparison_on_other_or_fewer_cases() -> None:
    data = frame()
    with raises_code(EvaluationError, "no_common_image"):
        evaluate(data, compare=frame(seed=1))
    few = evaluate(data, compare=data.iloc[:3].assign(score=0.3)).numbers["comparisons"][0]
    assert few["n_common"] == 3
    assert few["auc_difference"]["why"]
    none = evaluate(data, compare=data[data.label == 1]).numbers["comparisons"][0]
    assert none["p_value"] is None
    assert "one class" in none["auc_difference"]["why"]


def test_near_ties_infinite_and_equal_scores() -> None:
    data = frame()
    tight = data.assign(score=0.5 + (data.score - 0.5) * 1e-12)
    assert finding(tight)["auc"]["estimate"] == pytest.approx(
        finding(data)["auc"]["estimate"], abs=0.01
    )
    assert (
        finding(data.assign(score=np.where(data.label == 1, np.inf, -np.inf)))["auc"]["estimate"]
        == 1.0
    )
    flat = finding(data.assign(score=0.5))
    assert flat["auc"]["estimate"] == 0.5
    assert flat["auc"]["ci_low"] < 0.5 < flat["auc"]["ci_high"]
    assert flat["calibration"]["slope"]["why"]


def test_float32_scores_rank_as_they_are() -> None:
    data = frame()
    single = data.assign(score=data.score.astype(np.float32))
    assert (
        finding(single)["auc"]["estimate"]
        == finding(data.assign(score=single.score.astype(float)))["auc"]["estimate"]
    )


def test_a_refusal_in_a_subgroup_counts_there() -> None:
    data = frame(200).assign(status="scored")
    gone = data.index[data.sex == "F"][:5]
    data.loc[gone, ["status", "score"]] = ["refused", np.nan]
    rows = {r["level"]: r for r in finding(data, subgroups=["sex"], thresholds=0.5)["subgroups"]}
    extra = {
        sex: sum(
            row["operating_points"][0]["refused_as_error"][k]["denominator"]
            for k in ("sensitivity", "specificity")
        )
        - row["n"]
        for sex, row in rows.items()
    }
    assert extra == {"F": 5, "M": 0}


def test_folds_are_said_to_be_mixed_where_they_are() -> None:
    report = evaluate(frame().assign(fold=np.arange(90) // 30))
    assert "folds" in {w["code"] for w in report.numbers["warnings"]}
