from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from medres.errors import EvaluationError
from medres.evaluate import evaluate
from medres.evaluate.reporting.model_card import text

pytestmark = pytest.mark.usefixtures("few_replicates")


def frame(n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, n)
    return pd.DataFrame(
        {
            "image": [f"case-{k}" for k in range(n)],
            "patient": np.arange(n) // 2,
            "label": label,
            "age": np.arange(n) // 2 + 20,
            "sex": np.where(np.arange(n) % 4 < 2, "F", ""),
            "score": 1 / (1 + np.exp(-rng.normal(size=n) - label)),
        }
    )


def test_demographics_are_counted_by_patient() -> None:
    seen = evaluate(frame()).numbers["flow"]["demographics"]
    assert seen["sex"] == {"(unknown)": 30, "F": 30}
    assert seen["age"] == {"n": 60, "median": 49.5, "q1": 34.75, "q3": 64.25}
    assert evaluate(frame().drop(columns=["age", "sex"])).numbers["flow"]["demographics"] == {}


def test_worst_errors_are_the_farthest_by_hashed_id() -> None:
    data = frame()
    worst = evaluate(data, thresholds=0.5).numbers["findings"]["positive"]["worst_errors"]
    missed = data[(data.label == 1) & (data.score < 0.5)].sort_values("score").head(10)
    assert [e["score"] for e in worst["false_negatives"]] == missed.score.tolist()
    assert [e["id"] for e in worst["false_negatives"]] == [
        hashlib.sha256(k.encode()).hexdigest()[:12] for k in missed.image
    ]
    alarms = [e["score"] for e in worst["false_positives"]]
    assert alarms == sorted(alarms, reverse=True)
    assert min(alarms) >= 0.5
    assert "case-" not in evaluate(data, thresholds=0.5).to_html()


def test_model_card_holds_the_figures_and_no_markup_of_others() -> None:
    report = evaluate(frame(), design={"intended_use": "<b>x</b> | [y](z)"}, title="# T")
    card = report.to_card()
    auc = report.numbers["findings"]["positive"]["auc"]
    assert f"{auc['estimate']:.3f} ({auc['ci_low']:.3f} to {auc['ci_high']:.3f})" in card
    assert r"\<b\>x\</b\> \| \[y\](z)" in card
    assert card.startswith(r"# \# T")
    assert "Reference standard: not stated" in card
    assert text("a\nb") == "a b"


def test_plots_are_axes_with_the_numbers(tmp_path) -> None:
    plots = pytest.importorskip("medres.evaluate.reporting.matplotlib")
    pytest.importorskip("matplotlib")
    finding = evaluate(frame(), thresholds=0.5).numbers["findings"]["positive"]
    ax = plots.plot_roc(finding)
    curve = ax.lines[1].get_xydata()
    assert curve[0].tolist() == [0, 0]
    assert curve[-1].tolist() == [1, 1]
    assert plots.plot_roc(finding, ax) is ax
    band, (low, high) = (
        finding["curves"]["band"],
        [finding["auc"][k] for k in ("ci_low", "ci_high")],
    )
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert f"simultaneous {100 * band['level']:g}% band" in labels
    auc = finding["auc"]["estimate"]
    assert f"AUC {auc:.3f} (95% CI {low:.3f} to {high:.3f})" in labels
    edge = ax.patches[0].get_xy()
    assert edge[:, 1].max() == 1.0
    assert any(np.allclose(corner, [0.0, band["sensitivity"]]) for corner in edge)
    assert any(np.allclose(corner, [band["specificity"], 0.0]) for corner in edge)
    ap = finding["average_precision"]
    (label,) = plots.plot_precision_recall(finding).get_legend().get_texts()
    assert label.get_text() == (
        f"AP {ap['estimate']:.3f} (95% CI {ap['ci_low']:.3f} to {ap['ci_high']:.3f})"
    )
    drawn = [
        plots.plot_precision_recall(finding),
        plots.plot_calibration(finding),
        plots.plot_scores(finding),
        plots.plot_decision_curve(finding),
    ]
    for k, one in enumerate([ax, *drawn]):
        one.figure.savefig(tmp_path / f"{k}.pdf")
        assert (tmp_path / f"{k}.pdf").stat().st_size > 2000
    ranks = evaluate(frame().assign(score=lambda d: d.score * 9)).numbers["findings"]["positive"]
    with raises_code(EvaluationError, "no_calibration"):
        plots.plot_calibration(ranks)
    with raises_code(EvaluationError, "no_decision_curve"):
        plots.plot_decision_curve(ranks)
    one_class = evaluate(frame().assign(label=1)).report.findings["positive"]
    for plot in (plots.plot_roc, plots.plot_precision_recall, plots.plot_scores):
        with raises_code(EvaluationError, "no_curve"):
            plot(one_class)


def test_plots_take_the_objects_and_report_json_alike() -> None:
    plots = pytest.importorskip("medres.evaluate.reporting.matplotlib")
    pytest.importorskip("matplotlib")
    site = {"site": np.where(np.arange(120) % 4 < 2, "a", "b")}
    result = evaluate(frame().assign(**site), thresholds=0.5, subgroups=["site"])
    finding, plain = result.report.findings["positive"], result.numbers["findings"]["positive"]

    def drawn(ax) -> list[object]:
        return [line.get_xydata().tolist() for line in ax.lines]

    for plot in (
        plots.plot_roc,
        plots.plot_precision_recall,
        plots.plot_calibration,
        plots.plot_scores,
        plots.plot_decision_curve,
        plots.plot_subgroups,
    ):
        assert drawn(plot(finding)) == drawn(plot(plain))
    assert drawn(plots.plot_findings(result.report)) == drawn(plots.plot_findings(result.numbers))
    aucs = {"a": finding.auc, "b": plain["auc"], "c": {}}
    assert len(drawn(plots.plot_forest(aucs))) == 3


def test_pictures_of_the_worst_errors_stand_on_the_page_only() -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(40)
    asked = []

    def pictures(finding: str, unit: str, key: str) -> bytes | None:
        asked.append((finding, unit, key))
        return None if key == asked[0][2] else png

    report = evaluate(frame(), thresholds=0.5, pictures=pictures)
    worst = report.numbers["findings"]["positive"]["worst_errors"]
    ids = [e["id"] for kind in ("false_negatives", "false_positives") for e in worst[kind]]
    assert [hashlib.sha256(k.encode()).hexdigest()[:12] for _, _, k in asked[:2]] == [
        ids[0],
        worst["false_positives"][0]["id"],
    ]
    assert {(f, u) for f, u, _ in asked} == {("positive", "image")}
    page = report.to_html()
    assert page.count('src="data:image/png;base64,') == len(ids) - 1
    assert "base64" not in report.to_json()
    assert "img-src data:" in page
    (claim,) = [walk for walk in report.numbers["crosswalks"] if walk["guideline"] == "CLAIM 2024"]
    assert "Saliency" in next(row["answer"] for row in claim["rows"] if row["item"] == "31")


def test_pictures_stop_at_their_share_of_the_page_and_must_be_png() -> None:
    large = b"\x89PNG\r\n\x1a\n" + bytes(300_000)
    report = evaluate(frame(), thresholds=0.5, pictures=lambda *one: large)
    assert sum(map(len, report.pictures.values())) == 2
    assert len(report.to_html()) < 3_000_000
    with raises_code(EvaluationError, "not_png"):
        evaluate(frame(), thresholds=0.5, pictures=lambda *one: b"<svg/>")


def test_forests_hold_each_auc_once(tmp_path) -> None:
    plots = pytest.importorskip("medres.evaluate.reporting.matplotlib")
    data = frame(200).assign(site=lambda d: np.where(np.arange(len(d)) % 50 < 2, "few", "many"))
    finding = evaluate(data, subgroups=["site"]).numbers["findings"]["positive"]
    ax = plots.plot_subgroups(finding)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["site: few", "site: many"]
    (drawn,) = [c for c in ax.containers if len(c)]
    assert drawn.lines[0].get_xydata().tolist() == [[finding["subgroups"][1]["auc"]["estimate"], 1]]
    with raises_code(EvaluationError, "no_subgroups"):
        plots.plot_subgroups(evaluate(data).numbers["findings"]["positive"])
    two = data.rename(columns={"label": "label:A", "score": "score:A"}).assign(
        **{"label:B": data.label, "score:B": data.score}
    )
    ax = plots.plot_findings(evaluate(two).numbers)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["A", "B", "mean of 2"]
    ax.figure.savefig(tmp_path / "forest.pdf")
