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
