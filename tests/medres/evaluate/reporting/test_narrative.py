"""What the summary, the warnings and the page say about a report."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medres.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("few_replicates")


def cohort(n: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    return pd.DataFrame(
        {
            "patient": [f"{seed}-{k}" for k in range(n)],
            "label": label,
            "score": 1 / (1 + np.exp(-rng.normal(size=n) - 1.5 * label + 0.7)),
        }
    )


@pytest.mark.parametrize(
    ("options", "names", "words"),
    [
        (
            {"operating_points": {"screening": "sensitivity:0.95"}},
            ["screening", "default"],
            "the frozen threshold “screening” (sensitivity:0.95)",
        ),
        ({"thresholds": 0.3}, ["0.3", "default"], "the declared threshold “0.3”"),
        (
            {"thresholds": 0.3, "operating_points": {"rule-in": "specificity:0.9"}},
            ["rule-in", "0.3", "default"],
            "the frozen threshold “rule-in” (specificity:0.9)",
        ),
        ({}, ["default"], "the frozen threshold (Youden's point)"),
        (
            {"operating_points": {"default": "specificity:0.9"}},
            ["default"],
            "the frozen threshold “default” (specificity:0.9)",
        ),
    ],
)
def test_a_requested_threshold_leads_the_table_and_the_summary(options, names, words) -> None:
    report = evaluate(cohort(), tune=cohort(seed=1), **options)
    finding = report.report.findings["positive"]
    assert [point.name for point in finding.operating_points] == names
    assert finding.summary.startswith(f"At {words}, the model")
    first = finding.operating_points[0].table
    assert f'<span class="cell">{first.tp}</span>' in report.to_html().split("data-explore")[0]
    assert f"{first.tp} of {finding.n_positive}" in finding.summary


def test_the_page_says_why_a_finding_lacks_the_smooth_curve() -> None:
    assert "No flexible calibration curve is drawn: it needs at least 200" in (
        evaluate(cohort()).to_html()
    )
    enough = evaluate(cohort(1000)).to_html()
    assert "Line: flexible calibration curve." in enough
    assert "No flexible calibration curve" not in enough


def test_ppv_and_npv_at_the_stated_prevalence_stand_in_the_main_table() -> None:
    frame = cohort(400)
    report = evaluate(frame, thresholds=0.5, prevalence=0.02)
    finding, page = report.report.findings["positive"], report.to_html()
    point = finding.operating_points[0]
    (at,) = point.predictive_at
    sensitivity, specificity = point.rates.sensitivity.estimate, point.rates.specificity.estimate
    ppv = 0.02 * sensitivity / (0.02 * sensitivity + 0.98 * (1 - specificity))
    assert at.ppv.estimate == pytest.approx(ppv)
    table = page.split("data-explore")[0]
    assert f"<b>PPV {100 * ppv:.0f}%</b>" in table
    assert table.count("at a prevalence of 2%") == 2
    assert f"(in the sample {100 * point.rates.ppv.estimate:.0f}%)" in table
    assert f"At a prevalence of 2%, the PPV is {100 * ppv:.0f}%" in finding.summary
    assert "at the stated prevalence of 2%" in page.lower()
    (text,) = [w.text for w in report.report.warnings if w.code == "prevalence"]
    assert "stated prevalence of 2%" in text
    unstated = evaluate(frame, thresholds=0.5)
    assert "a prevalence of 5" in unstated.to_html().split("Decision curve</h3>")[1]
    assert "(in the sample)" in unstated.to_html().split("Decision curve</h3>")[1]


def probabilities(p: np.ndarray, seed: int = 1) -> pd.DataFrame:
    """Labels that the probabilities (n,) predict without error."""
    return pd.DataFrame({"label": np.random.default_rng(seed).random(p.size) < p, "score": p})


def warned(frame: pd.DataFrame) -> dict[str, str]:
    return {w.code: w.text for w in evaluate(frame.astype(float)).report.warnings}


def test_probabilities_that_are_too_high_or_too_extreme_are_warned_of() -> None:
    rng = np.random.default_rng(0)
    right = probabilities(1 / (1 + np.exp(-rng.normal(-1.0, 1.0, 2000))))
    calibration = {"miscalibrated", "calibration_slope"}
    assert not calibration & set(warned(right))
    doubled = warned(right.assign(score=np.minimum(1.0, 2 * right.score)))
    assert "too high on average" in doubled["miscalibrated"]
    halved = warned(right.assign(score=right.score / 2))
    assert "too low on average" in halved["miscalibrated"]
    logit = np.log(right.score / (1 - right.score))
    extreme = warned(right.assign(score=1 / (1 + np.exp(-3 * logit))))
    assert "too extreme" in extreme["calibration_slope"]
    flat = warned(right.assign(score=1 / (1 + np.exp(-(logit + 1) / 3 + 1))))
    assert "not extreme enough" in flat["calibration_slope"]


def test_hard_scores_have_no_calibration() -> None:
    frame = cohort()
    report = evaluate(frame.assign(score=(frame.score > 0.5).astype(float)))
    finding = report.report.findings["positive"]
    for estimate in (finding.brier, finding.calibration.slope, finding.calibration.oe_ratio):
        assert estimate.estimate is None
        assert "calibration means nothing" in estimate.why
    assert (
        "calibration means nothing"
        in {w.code: w.text for w in report.report.warnings}["no_calibration"]
    )
    assert finding.decision_curve.model is not None
    assert finding.decision_curve.recalibrated is None


def test_an_auc_near_zero_ranks_the_wrong_way_round() -> None:
    frame = cohort()
    text = warned(frame.drop(columns="patient").assign(score=1 - frame.score))["below_half"]
    assert "wrong way round" in text
    guess = frame.drop(columns="patient").assign(score=np.random.default_rng(3).random(200))
    assert "wrong way round" not in " ".join(warned(guess).values())
    assert "better than chance" in " ".join(warned(guess).values())


def test_the_page_has_the_band_the_interval_of_the_average_precision_and_a_table_of_thresholds(
    tmp_path,
) -> None:
    frame = cohort(200).assign(image=np.arange(200))
    report = evaluate(
        frame,
        compare={"other": frame.assign(score=1 - frame.score)},
        partial_auc="specificity:0.9:1",
    )
    page, finding = report.to_html(), report.report.findings["positive"]
    assert [(area.axis, area.low) for area in finding.partial_auc] == [("specificity", 0.9)]
    assert "Partial AUC, specificity 0.9 to 1.0" in page
    assert "simultaneous band" in page
    low, high = finding.average_precision.bounds
    assert f"95% CI {low:.3f} to {high:.3f}" in page.split("Precision-recall curve</h3>")[1]
    assert page.count('class="paper overlay o0"') == 1
    assert "PPCR" in page
    report.save(tmp_path / "R")
    curve = pd.read_csv(tmp_path / "R" / "tables" / "curves.csv")
    called = [(frame.score >= t).sum() for t in curve.threshold]
    np.testing.assert_allclose(curve.ppcr, np.array(called) / 200)
    np.testing.assert_allclose(curve.ppv, curve.tp / called)
    assert curve.fn.iloc[-1] == 0
