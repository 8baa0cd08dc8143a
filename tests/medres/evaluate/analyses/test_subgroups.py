from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code
from scipy import stats

from medres.errors import EvaluationError
from medres.evaluate.analyses.level_test import interaction
from medres.evaluate.analyses.subgroups import holm, levels, subgroup_report
from medres.evaluate.metrics.roc import auc_covariance, placements
from medres.evaluate.metrics.thresholds import Threshold
from medres.evaluate.options import ReportOptions
from medres.evaluate.scores.sample import Sample
from medres.evaluate.scores.table import load
from medres.evaluate.scores.units import to_units


def drawn(seed: int, n: int = 200, gap: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label, sex = rng.integers(0, 2, n), rng.choice(["F", "M"], n)
    score = rng.normal(size=n) + label * (1.0 + gap * (sex == "F"))
    return pd.DataFrame(
        {
            "label": label,
            "score": score,
            "sex": sex,
            "patient": np.arange(n),
            "few": ["x"] * (n - 8) + ["y"] * 8,
        }
    )


def options(*columns: str) -> ReportOptions:
    return ReportOptions(design={"sampling": "cohort"}, subgroups=columns)


def rows_of(frame: pd.DataFrame, *columns: str):
    units = to_units(load(frame), None, "max", None)
    return subgroup_report(units, "positive", [Threshold("a", 0.5, "declared")], options(*columns))


def test_interaction_of_two_independent_groups_is_a_z_test_of_logits() -> None:
    frame = drawn(1)
    parts = []
    for sex in ("F", "M"):
        one = frame[frame.sex == sex]
        parts.append(
            Sample(
                one.label.to_numpy() == 1,
                one.score.to_numpy(),
                one.patient.to_numpy(),
                np.zeros(len(one), dtype=int),
            )
        )
    models = [placements(p, 200) for p in parts]
    auc = np.array([m.auc for m in models])
    variance = np.array([auc_covariance([m])[0, 0] for m in models]) / (auc * (1 - auc)) ** 2
    z = np.diff(np.log(auc / (1 - auc)))[0] / np.sqrt(variance.sum())
    assert interaction(parts, 200) == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-9)


def test_rows_hold_counts_and_small_levels_are_suppressed() -> None:
    rows = rows_of(drawn(2), "sex", "few")
    assert [(r.column, r.level, r.suppressed) for r in rows] == [
        ("sex", "F", False), ("sex", "M", False), ("few", "x", False), ("few", "y", True)
    ]  # fmt: skip
    assert rows[0].n + rows[1].n == 200
    assert rows[3].auc is None
    assert rows[0].operating_points[0].table.tp > 0
    assert rows[2].interaction_p is None
    assert rows[0].interaction_p is not None


def test_a_real_gap_is_found_and_no_gap_is_mostly_not() -> None:
    assert rows_of(drawn(3, n=600, gap=2.0), "sex")[0].p_holm < 0.001
    p = [rows_of(drawn(seed), "sex")[0].interaction_p for seed in range(20)]
    assert np.mean(np.array(p) < 0.05) < 0.2


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}


def test_age_bands_unknowns_and_endless_columns() -> None:
    columns = pd.DataFrame({"age": ["17", "18", "39.5", "90", ""], "note": list("abcde")})
    assert levels(columns, "age").tolist() == ["0-17", "18-39", "18-39", "80+", "(unknown)"]
    with raises_code(EvaluationError, "missing_column", "'ward'"):
        levels(columns, "ward")
    with raises_code(EvaluationError, "too_many_levels", "'id'", "20"):
        levels(pd.DataFrame({"id": [str(i) for i in range(20)]}), "id")


def test_one_class_in_a_subgroup_does_not_crash() -> None:
    frame = drawn(4).assign(site=lambda d: np.where(d.label == 1, "north", "south"))
    rows = rows_of(frame, "site")
    assert all(row.suppressed for row in rows)
    assert rows[0].interaction_p is None
