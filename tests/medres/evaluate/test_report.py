from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from medres.errors import EvaluationError
from medres.evaluate import DiagnosticReport, evaluate

CONTRACT_FINDING = {
    "n",
    "n_positive",
    "n_not_assessed",
    "n_uncertain",
    "n_refused",
    "prevalence",
    "auc",
    "auc_wald",
    "auc_logit",
    "auc_newcombe",
    "average_precision",
    "brier",
    "calibration",
    "operating_points",
    "subgroups",
}
CONTRACT_POINT = {
    "name",
    "threshold",
    "origin",
    "tp",
    "fp",
    "fn",
    "tn",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "accuracy",
    "lr_positive",
    "lr_negative",
    "refused_as_error",
    "predictive_at",
}

pytestmark = pytest.mark.usefixtures("few_replicates")


def drawn(seed: int = 0, n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    score = 1 / (1 + np.exp(-(rng.normal(size=n) + 1.5 * label - 0.7)))
    patient = [f"{seed}-{k // 2}" for k in range(n)]
    return pd.DataFrame(
        {
            "image": [f"{seed}-{k}" for k in range(n)],
            "patient": patient,
            "label": label,
            "score": score,
            "sex": rng.choice(["F", "M"], n),
        }
    )


def many(n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(8)
    out = {"image": np.arange(n), "patient": np.arange(n) // 2}
    for name in ("A", "B", "Empty"):
        label = (
            np.zeros(n)
            if name == "Empty"
            else rng.choice([0, 1, -1, np.nan], n, p=[0.6, 0.3, 0.05, 0.05])
        )
        out |= {
            f"label:{name}": label,
            f"score:{name}": 1 / (1 + np.exp(-rng.normal(size=n) - (label == 1))),
        }
    return pd.DataFrame(out)


def estimates_of(value, path=""):
    if isinstance(value, dict):
        if "ci_low" in value:
            yield path, value
        for key, one in value.items():
            yield from estimates_of(one, f"{path}/{key}")
    elif isinstance(value, list):
        for i, one in enumerate(value):
            yield from estimates_of(one, f"{path}/{i}")


def check(report: DiagnosticReport) -> None:
    """What must hold of every report: JSON without NaN, and no number without an interval or a
    reason.
    """
    again = json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(name))
    for path, e in estimates_of(again):
        assert {"estimate", "ci_low", "ci_high"} <= set(e), path
        if e["estimate"] is None or e["ci_low"] is None:
            assert e["why"], path
        else:
            assert e["ci_low"] <= e["estimate"] <= e["ci_high"], path
            assert e["ci_low"] < e["ci_high"], path
            assert e["method"], path
            assert 0 < e["level"] < 1, path


def test_binary_report_has_the_names_of_the_contract() -> None:
    report = evaluate(drawn(), tune=drawn(1), subgroups=["sex"], prevalence=0.1)
    check(report)
    n = report.numbers
    assert (n["schema"], n["task"], n["analysis_unit"], n["cluster"]) == (
        "medres.report/1",
        "binary",
        "image",
        "patient",
    )
    assert n["n"] == {"patients": 100, "units": 200, "images": 200}
    finding = n["findings"]["positive"]
    assert set(finding) >= CONTRACT_FINDING
    point = finding["operating_points"][0]
    assert set(point) >= CONTRACT_POINT
    assert (point["origin"], point["name"]) == ("frozen", "default")
    assert point["source"]["split"] == "tune"
    assert point["tp"] + point["fp"] + point["fn"] + point["tn"] == finding["n"]
    assert set(finding["calibration"]) >= {"slope", "intercept", "in_the_large", "oe_ratio", "ece"}
    assert [row["level"] for row in finding["subgroups"]] == ["F", "M"]


def test_figures_are_those_of_scikit_learn() -> None:
    frame = drawn()
    finding = evaluate(frame).numbers["findings"]["positive"]
    assert finding["auc"]["estimate"] == pytest.approx(
        roc_auc_score(frame.label, frame.score), abs=1e-12
    )
    expected = average_precision_score(frame.label, frame.score)
    assert finding["average_precision"]["estimate"] == pytest.approx(expected, abs=1e-12)


def test_multilabel_masks_counts_and_skips_with_reasons() -> None:
    frame = many()
    report = evaluate(frame)
    check(report)
    n = report.numbers
    for name in ("A", "B", "Empty"):
        f = n["findings"][name]
        assert f["n"] + f["n_not_assessed"] + f["n_uncertain"] + f["n_refused"] == 200
    known = frame[frame["label:A"].isin([0, 1])]
    assert n["findings"]["A"]["auc"]["estimate"] == pytest.approx(
        roc_auc_score(known["label:A"], known["score:A"])
    )
    assert n["findings"]["Empty"]["auc"]["estimate"] is None
    assert n["macro"]["findings"] == ["A", "B"]
    assert [s["finding"] for s in n["macro"]["skipped"]] == ["Empty"]
    mean = np.mean([n["findings"][k]["auc"]["estimate"] for k in ("A", "B")])
    assert n["macro"]["auc"]["estimate"] == pytest.approx(mean)


def test_macro_interval_agrees_with_a_patient_bootstrap() -> None:
    frame = many(300).drop(columns=["label:Empty", "score:Empty"])
    e = evaluate(frame).numbers["macro"]["auc"]
    rng, groups = (
        np.random.default_rng(0),
        [g.to_numpy() for _, g in frame.groupby("patient").groups.items()],
    )
    draws = []
    for _ in range(300):
        d = frame.iloc[
            np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))])
        ]
        aucs = []
        for k in ("A", "B"):
            known = d[d[f"label:{k}"].isin([0, 1])]
            aucs.append(roc_auc_score(known[f"label:{k}"], known[f"score:{k}"]))
        draws.append(np.mean(aucs))
    assert e["ci_high"] - e["ci_low"] == pytest.approx(2 * 1.96 * np.std(draws), rel=0.2)


def test_uncertain_labels_are_bounded_both_ways() -> None:
    frame = many()
    bounds = evaluate(frame).numbers["findings"]["A"]["uncertain_bounds"]
    for key, value in (("all_negative", 0), ("all_positive", 1)):
        label = frame["label:A"].replace(-1, value)
        use = label.notna()
        assert bounds[key]["auc"]["estimate"] == pytest.approx(
            roc_auc_score(label[use], frame["score:A"][use])
        )


def test_multiclass_report() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.dirichlet([1, 1, 1], 90), columns=["score:x", "score:y", "score:z"])
    report = evaluate(frame.assign(label=rng.choice(["x", "y", "z"], 90)))
    check(report)
    assert report.numbers["multiclass"]["classes"] == ["x", "y", "z"]
    assert set(report.numbers["findings"]) == {"x", "y", "z"}
    assert report.numbers["cluster"] is None
    assert report.numbers["n"]["patients"] is None


def test_case_control_withholds_what_depends_on_prevalence() -> None:
    report = evaluate(drawn(), design={"sampling": "case_control"})
    check(report)
    finding = report.numbers["findings"]["positive"]
    withheld = [
        finding["prevalence"],
        finding["average_precision"],
        finding["brier"],
        *finding["calibration"].values(),
    ]
    assert all(e["estimate"] is None and "sampled separately" in e["why"] for e in withheld)
    assert finding["auc"]["estimate"] is not None
    stated = evaluate(drawn(), design={"sampling": "case_control", "prevalence": 0.05}).numbers
    assert (
        stated["findings"]["positive"]["operating_points"][0]["predictive_at"][0]["prevalence"]
        == 0.05
    )


def test_scores_outside_the_unit_interval_are_ranked_but_not_calibrated() -> None:
    frame = drawn()
    logits = frame.assign(score=np.log(frame.score / (1 - frame.score)))
    report = evaluate(logits)
    check(report)
    finding = report.numbers["findings"]["positive"]
    assert finding["auc"]["estimate"] == pytest.approx(
        evaluate(frame).numbers["findings"]["positive"]["auc"]["estimate"]
    )
    assert "ranks" in finding["brier"]["why"]
    assert "no_calibration" in {w["code"] for w in report.numbers["warnings"]}


def test_refused_rows_are_counted_and_kept() -> None:
    frame = drawn().assign(status="scored")
    frame.loc[:4, "status"], frame.loc[:4, "score"] = "refused", np.nan
    n = evaluate(frame).numbers
    assert (n["flow"]["refused"], n["flow"]["scored"], n["findings"]["positive"]["n_refused"]) == (
        5,
        195,
        5,
    )
    point = n["findings"]["positive"]["operating_points"][0]
    positives = int(frame.label.sum())
    assert point["refused_as_error"]["sensitivity"]["denominator"] == positives
    assert "refused" in {w["code"] for w in n["warnings"]}


@pytest.mark.parametrize(("positive", "few"), [(19, True), (20, False)])
def test_a_threshold_that_few_tuning_patients_fix_is_warned_about(positive: int, few: bool) -> None:
    n = 100
    tune = pd.DataFrame(
        {
            "label": np.arange(n) < positive,
            "score": np.linspace(1, 0, n),
            "patient": [f"t{i}" for i in range(n)],
        }
    )
    numbers = evaluate(drawn(), tune=tune.astype({"label": int})).numbers
    texts = [w["text"] for w in numbers["warnings"] if w["code"] == "few_tuning_patients"]
    assert len(texts) == few
    assert all("19 tuning patients" in text and "20" in text for text in texts)
    (point,) = numbers["findings"]["positive"]["operating_points"]
    assert point["n_class_patients"] == positive


def test_warnings_say_what_is_weak() -> None:
    codes = {w["code"] for w in evaluate(drawn().drop(columns="patient")).numbers["warnings"]}
    assert codes >= {"small", "exploratory", "no_patient", "prevalence"}
    assert "below_half" in {
        w["code"] for w in evaluate(drawn().assign(score=lambda d: 1 - d.score)).numbers["warnings"]
    }
    assert "perfect" in {
        w["code"] for w in evaluate(drawn().assign(score=lambda d: d.label)).numbers["warnings"]
    }
    reversed_scores = evaluate(drawn().assign(score=lambda d: 1 - d.label)).numbers["warnings"]
    assert "perfect" not in {w["code"] for w in reversed_scores}
    assert next(w["text"] for w in reversed_scores if w["code"] == "below_half").startswith(
        "The AUC is 0: "
    )
    assert "exploratory" not in {
        w["code"] for w in evaluate(drawn(), tune=drawn(1)).numbers["warnings"]
    }
    guess = drawn().assign(score=np.random.default_rng(5).random(200))
    assert {"chance", "below_half"} & {w["code"] for w in evaluate(guess).numbers["warnings"]}


@pytest.mark.parametrize(
    ("n", "shift", "wide"), [(240, 3.4, True), (60, 3.4, False), (240, 1.0, False)]
)
def test_a_cell_in_which_the_interval_covers_too_much_is_warned_of(
    n: int, shift: float, wide: bool
) -> None:
    label = np.arange(n) % 2
    frame = pd.DataFrame(
        {
            "label": label,
            "score": np.random.default_rng(2).normal(size=n) + shift * label,
            "patient": range(n),
        }
    )
    report = evaluate(frame)
    assert report.numbers["findings"]["positive"]["auc"]["estimate"] < 1
    assert ("wide" in {w["code"] for w in report.numbers["warnings"]}) is wide


SCORES = st.one_of(
    st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1), st.floats(allow_nan=False)
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 0, 0, 1, 1, 1, -1, None]),
            SCORES,
            st.integers(0, 3),
            st.sampled_from([False] * 4 + [True]),
        ),
        min_size=1,
        max_size=14,
    )
)
def test_no_small_table_crashes_or_gives_nan_or_a_point_interval(rows) -> None:
    label, score, patient, refused = zip(*rows, strict=True)
    frame = pd.DataFrame(
        {"label": label, "patient": patient, "status": np.where(refused, "refused", "scored")}
    )
    check(evaluate(frame.assign(score=score), subgroups=["patient"], prevalence=0.2))


def test_probabilities_on_the_edges_do_not_crash() -> None:
    for label, score in (
        ([0, 1], [0, 1]),
        ([1, 1], [1, 1]),
        ([0, 0], [0, 0]),
        ([0, 1, 0, 1], [0, 0, 1, 1]),
    ):
        check(evaluate(pd.DataFrame({"label": label, "score": score}, dtype=float)))


def test_folds_are_averaged() -> None:
    frame = drawn().assign(fold=lambda d: np.arange(len(d)) // 2 % 2)
    frame["score"] = frame.score / 2 + 0.5 * frame.fold
    expected = np.mean([roc_auc_score(d.label, d.score) for _, d in frame.groupby("fold")])
    finding = evaluate(frame).numbers["findings"]["positive"]
    assert finding["auc"]["estimate"] == pytest.approx(expected)
    assert "mean over folds" in finding["auc_wald"]["method"]
    report = evaluate(frame)
    assert report.numbers["folds"] == 2
    assert "from 2 folds" in report.numbers["methods"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"level": 95}, "out_of_range"),
        ({"level": 0.0}, "out_of_range"),
        ({"margin": -0.1}, "out_of_range"),
        ({"prevalence": 1.0}, "out_of_range"),
        ({"prevalence": {"other": 0.1}}, "unknown_finding"),
        ({"design": {"sampling": "convenience"}}, "design"),
        ({"design": "absent.yaml"}, "no_file"),
        ({"unit": "study"}, "missing_column"),
        ({"subgroups": ["ward"]}, "missing_column"),
    ],
)
def test_options_out_of_range_are_refused(options, code: str) -> None:
    with raises_code(EvaluationError, code):
        evaluate(drawn(), **options)


def test_design_files(tmp_path) -> None:
    (tmp_path / "d.json").write_text('{"sampling": "case_control", "setting": "made up"}')
    assert evaluate(drawn(), design=tmp_path / "d.json").numbers["design"]["setting"] == "made up"
    pytest.importorskip("yaml", reason="PyYAML is not installed")
    (tmp_path / "d.yaml").write_text("sampling: cohort\nreference_standard: two readers\n")
    assert (
        evaluate(drawn(), design=tmp_path / "d.yaml").numbers["design"]["reference_standard"]
        == "two readers"
    )
    (tmp_path / "bad.yaml").write_text("a: [")
    with raises_code(EvaluationError, "design", "bad.yaml"):
        evaluate(drawn(), design=tmp_path / "bad.yaml")


def test_two_runs_differ_in_nothing_but_the_date() -> None:
    def dateless(report: DiagnosticReport) -> tuple[str, str]:
        stamp = re.compile(r"\d{4}-\d\d-\d\dT[\d:]+\+00:00")
        return stamp.sub("", report.to_json()), stamp.sub("", report.to_html())

    runs = [
        dateless(evaluate(drawn(), tune=drawn(1), subgroups=["sex"], compare=drawn()))
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_no_tensorflow_is_imported() -> None:
    code = (
        "import sys, pandas as pd; from medres.evaluate import evaluate;"
        "r = evaluate(pd.DataFrame({'label': [0, 1, 0, 1], 'score': [.1, .9, .3, .2]})); "
        "r.to_html();"
        "bad = {'tensorflow', 'keras', 'torch', 'matplotlib'} & set(sys.modules); "
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_exact_intervals_on_request_where_patients_do_not_repeat() -> None:
    frame = drawn().assign(patient=lambda d: np.arange(len(d)))
    point = evaluate(frame, thresholds=0.5, exact=True).numbers["findings"]["positive"][
        "operating_points"
    ][0]
    assert {
        point[k]["method"] for k in ("sensitivity", "specificity", "ppv", "npv", "accuracy")
    } == {"Clopper-Pearson"}
    clustered = evaluate(drawn(), thresholds=0.5, exact=True).numbers["findings"]["positive"][
        "operating_points"
    ][0]
    assert clustered["sensitivity"]["method"].startswith("Wilson on n / design effect")


def test_progress_counts_the_findings() -> None:
    labels = [0, 1] * 10
    table = pd.DataFrame(
        {f"{kind}:{name}": labels for name in ("a", "b", "c") for kind in ("label", "score")}
    )
    counts: list[tuple[int, int]] = []
    evaluate(table, progress=lambda done, total: counts.append((done, total)))
    assert counts == [(1, 3), (2, 3), (3, 3)]
