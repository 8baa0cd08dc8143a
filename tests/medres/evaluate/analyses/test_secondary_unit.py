from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medres.evaluate import evaluate
from medres.evaluate.statistics.intervals import normal_quantile, wilson

pytestmark = pytest.mark.usefixtures("few_replicates")


def frame(n: int = 240) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, n)
    return pd.DataFrame(
        {"image": np.arange(n), "patient": np.arange(n) // 3, "label": label,
         "score": 1 / (1 + np.exp(-rng.normal(size=n) - 1.5 * label + 1))}
    )  # fmt: skip


def finding(data: pd.DataFrame, **options) -> dict:
    return evaluate(data, **options).numbers["findings"]["positive"]


def test_by_patient_is_what_pooling_by_patient_gives() -> None:
    other = finding(frame(), thresholds=0.5)["other_unit"]
    pooled = frame().groupby("patient", as_index=False).agg({"label": "max", "score": "max"})
    straight = finding(pooled.rename(columns={"patient": "image"}), thresholds=0.5)
    assert (other["unit"], other["n"], other["pooling"]) == (
        "patient",
        80,
        {"score": "max", "label": "any"},
    )
    assert other["auc"]["estimate"] == pytest.approx(straight["auc"]["estimate"], abs=1e-12)
    point, same = other["operating_points"][0], straight["operating_points"][0]
    assert [point[k] for k in ("tp", "fp", "fn", "tn")] == [
        same[k] for k in ("tp", "fp", "fn", "tn")
    ]
    limits = wilson(point["tp"], point["tp"] + point["fn"], normal_quantile(0.95))
    assert (point["sensitivity"]["ci_low"], point["sensitivity"]["ci_high"]) == pytest.approx(
        limits
    )


def test_by_image_where_patients_were_evaluated() -> None:
    data = frame().assign(label=lambda d: d.patient % 2)
    other = finding(data, unit="patient", thresholds=0.5)["other_unit"]
    assert (other["unit"], other["n"]) == ("image", 240)
    called = data.score >= 0.5
    assert other["operating_points"][0]["tp"] == int((called & (data.label == 1)).sum())


def test_absent_where_nothing_would_differ() -> None:
    assert "other_unit" not in finding(frame().drop(columns="patient"))
    assert "other_unit" not in finding(frame().assign(patient=lambda d: d.image))
    classes = pd.DataFrame({"label": list("ab") * 6, "patient": np.arange(12) // 2})
    classes = classes.assign(**{"score:a": np.linspace(0, 1, 12), "score:b": np.linspace(1, 0, 12)})
    assert "other_unit" not in evaluate(classes).numbers["findings"]["a"]


def test_patients_of_one_class_leave_the_page_whole() -> None:
    data = frame().assign(label=lambda d: (d.image % 3 == 0).astype(int))
    report = evaluate(data)
    assert report.numbers["findings"]["positive"]["other_unit"]["auc"]["estimate"] is None
    assert 'data-view="0"' not in report.to_html()
