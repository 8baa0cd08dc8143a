from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from medres.evaluate import evaluate
from medres.evaluate.analyses.paired_rates import (
    global_test,
    mcnemar,
    paired_difference_of_rates,
    paired_rates,
    tango,
)
from medres.evaluate.metrics.roc import placements
from medres.evaluate.metrics.sample_size import patients_for_half_width, sample_size_report
from medres.evaluate.metrics.thresholds import Threshold
from medres.evaluate.scores.sample import Sample
from medres.evaluate.serialization import to_plain
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import normal_quantile

Z = normal_quantile(0.95)


@pytest.mark.parametrize(("b", "c", "n"), [(12, 2, 44), (9, 4, 40), (1, 0, 20), (1, 0, 2)])
def test_tango_limits_are_where_the_score_test_just_rejects(b: int, c: int, n: int) -> None:
    """Oracle: maximise the likelihood under p12 - p21 = delta numerically, then the score
    statistic.
    """
    for delta in tango(b, c, n, Z):

        def minus(q: float, delta: float = delta) -> float:
            p12, p21 = q + delta, q
            return -(b * math.log(p12) + c * math.log(p21) + (n - b - c) * math.log(1 - p12 - p21))

        tiny = 1e-12
        found = optimize.minimize_scalar(
            minus,
            bounds=(max(tiny, -delta + tiny), (1 - delta) / 2 - tiny),
            method="bounded",
            options={"xatol": 1e-12},
        )
        score = (b - c - n * delta) / math.sqrt(n * (2 * found.x + delta * (1 - delta)))
        assert abs(score) == pytest.approx(Z, rel=1e-4)


@given(st.integers(1, 60), st.data())
def test_tango_contains_the_estimate_and_mirrors(n: int, data) -> None:
    b = data.draw(st.integers(0, n))
    c = data.draw(st.integers(0, n - b))
    low, high = tango(b, c, n, Z)
    assert -1 <= low <= (b - c) / n <= high <= 1
    assert high - low > 1e-3
    assert tango(c, b, n, Z) == pytest.approx((-high, -low), abs=1e-6)


def test_tango_without_discordant_pairs_is_wilson_like() -> None:
    # with b = c = 0 the score limit is z^2 / (n + z^2)
    low, high = tango(0, 0, 30, Z)
    assert high == pytest.approx(Z * Z / (30 + Z * Z), abs=1e-6)
    assert low == pytest.approx(-high, abs=1e-6)


def test_mcnemar_exact_and_large() -> None:
    assert mcnemar(8, 2) == pytest.approx(2 * sum(math.comb(10, k) for k in (0, 1, 2)) / 2**10)
    assert mcnemar(40, 20) == pytest.approx(stats.chi2.sf(400 / 60, 1))
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(14, 10) == pytest.approx(2 * sum(math.comb(24, k) for k in range(11)) / 2**24)
    assert mcnemar(15, 10) == pytest.approx(stats.chi2.sf(25 / 25, 1))


def test_clustered_difference_by_hand_and_copies() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(60) < 0.8, rng.random(60) < 0.6
    patient = np.arange(60)
    twice = paired_difference_of_rates(np.tile(a, 2), np.tile(b, 2), np.tile(patient, 2), 0.95)
    d = a.astype(float) - b
    error = d.std(ddof=1) / math.sqrt(60)
    assert twice[0].estimate == pytest.approx(d.mean())
    assert twice[0].ci_high - twice[0].estimate == pytest.approx(stats.t.ppf(0.975, 59) * error)
    assert twice[1] == pytest.approx(2 * stats.t.sf(d.mean() / error, 59))
    assert twice[0].estimate - twice[0].ci_low == pytest.approx(stats.t.ppf(0.975, 59) * error)
    assert twice[0] == Estimate(
        twice[0].estimate,
        twice[0].ci_low,
        twice[0].ci_high,
        0.95,
        "two",
        "paired difference, sandwich variance clustered by patient, t",
        n=120,
        n_clusters=60,
    )
    alone = paired_difference_of_rates(a, b, patient, 0.95)[0]
    assert (alone.method, alone.level, alone.sided, alone.n) == ("Tango 1998", 0.95, "two", 60)


def test_two_patients_and_limits_that_stay_within_one() -> None:
    a, patient = np.array([True, True, True, True, True]), np.array([0, 0, 0, 1, 1])
    b = np.array([False, False, False, False, True])
    for left, right, sign in ((a, b, 1), (b, a, -1)):
        estimate, p_value = paired_difference_of_rates(left, right, patient, 0.95)
        assert estimate.estimate == pytest.approx(sign * 0.8)
        # deviations by patient: 3 (1 - .8) = .6 and .2 - .8 = -.6; shares of the units .6 and .4
        error = math.sqrt(0.36 / 0.4 + 0.36 / 0.6) / 5
        assert p_value == pytest.approx(2 * stats.t.sf(0.8 / error, 25 / 13 - 1))
        inner, outer = (estimate.ci_low, estimate.ci_high)[::sign]
        assert (inner, outer) == (pytest.approx(-sign), sign)


@pytest.mark.parametrize("patients", [1, 60])
def test_rates_of_two_models_by_hand(patients: int) -> None:
    rng = np.random.default_rng(5)
    label, step = np.arange(60) % 3 == 0, np.zeros(60, dtype=np.int64)
    patient = np.arange(60) if patients == 60 else np.zeros(60, dtype=np.int64)
    first, second = (np.round(rng.random(60), 1) for _ in range(2))
    assert ((first == 0.5) & label).any()
    assert ((first == 0.5) & ~label).any()
    found = paired_rates(
        *(Sample(label, score, patient, step) for score in (first, second)),
        Threshold("a", 0.5, "declared"),
        0.95,
    )
    assert (found.operating_point, found.threshold) == ("a", 0.5)
    for name, members in (("sensitivity", label), ("specificity", ~label)):
        right = [(score[members] >= 0.5) == label[members] for score in (first, second)]
        only_a, only_b = (int((x & ~y).sum()) for x, y in (right, right[::-1]))
        e = getattr(found, f"{name}_difference")
        assert e.estimate == pytest.approx((only_a - only_b) / members.sum())
        if patients == 60:
            assert getattr(found, f"{name}_p") == mcnemar(only_a, only_b)
            assert (e.ci_low, e.ci_high) == tango(only_a, only_b, int(members.sum()), Z)
        else:
            assert (e.ci_low, e.n, getattr(found, f"{name}_p")) == (None, members.sum(), None)


def test_edges_have_reasons() -> None:
    none = np.zeros(0, dtype=bool)
    empty = paired_difference_of_rates(none, none, np.zeros(0, dtype=int), 0.95)[0]
    assert (empty.why, empty.n) == ("no unit in the denominator", 0)
    same = np.ones(4, dtype=bool)
    estimate, p_value = paired_difference_of_rates(same, same, np.array([0, 0, 1, 1]), 0.95)
    assert (estimate.estimate, estimate.n) == (0.0, 4)
    assert estimate.why == "the estimated variance is zero: no interval of this kind"
    assert p_value is None


def drawn(n: int = 200) -> list[pd.DataFrame]:
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, n)
    base = pd.DataFrame({"image": np.arange(n), "label": label})
    latent = rng.normal(size=n) + label
    return [
        base.assign(score=1 / (1 + np.exp(-(latent + s * rng.normal(size=n)))))
        for s in (0.1, 0.8, 3.0)
    ]


def samples(frames: list[pd.DataFrame]) -> list[Sample]:
    n = len(frames[0])
    return [
        Sample(
            f.label.to_numpy() == 1, f.score.to_numpy(), np.arange(n), np.zeros(n, dtype=np.int64)
        )
        for f in frames
    ]


def test_global_test_of_two_is_the_square_of_the_paired_test(few_replicates) -> None:
    a, b, c = drawn()
    p = evaluate(a, compare=b).numbers["comparisons"][0]["p_value"]
    assert global_test(samples([a, b])).p_chi_square == pytest.approx(p)
    report = evaluate(a, compare={"b": b, "c": c.iloc[10:]})
    (row,) = report.numbers["global_comparisons"]
    assert (row["df"], row["n_common"], row["models"]) == (2, 190, ["scores", "b", "c"])
    assert row["p_value"] < 1e-4
    nothing = {"chi_square": None, "df": None, "p_value": None}
    assert to_plain(global_test(samples([a, a, b]))) == nothing | {
        "why": "two of the models rank the units identically"
    }
    for label in (0, 1):
        found = global_test(samples([f.assign(label=label) for f in (a, b)]))
        assert to_plain(found) == nothing | {"why": "one class only among the common units"}
    apart = [replace(s, fold=s.label.astype(np.int64)) for s in samples([a, b])]
    assert to_plain(global_test(apart)) == nothing | {"why": "no fold holds both classes"}


def test_the_global_row_counts_what_all_models_can_be_judged_on(few_replicates) -> None:
    a, b, c = drawn()
    c = c.assign(label=c.label.astype(float))
    gone = {"a": 3, "b": 4, "c": 5}
    frames = {
        name: frame.assign(status=np.where(np.arange(200) == gone[name], "refused", "scored"))
        for name, frame in zip("abc", (a, b, c), strict=True)
    }
    report = evaluate(frames["a"], compare={"b": frames["b"], "c": frames["c"]})
    (row,) = report.numbers["global_comparisons"]
    left = [frame.drop(index=list(gone.values())) for frame in (a, b, c)]
    expected = {
        "finding": "positive",
        "models": ["scores", "b", "c"],
        "n_common": 197,
    } | to_plain(global_test(samples(left)))
    for key in ("df_denominator", "p_value"):
        assert row.pop(key) == pytest.approx(expected.pop(key), rel=1e-12)
    assert row == expected
    assert [one["n_common"] for one in report.numbers["comparisons"]] == [198, 198]


def test_rates_are_compared_at_a_declared_threshold_only(few_replicates) -> None:
    a, b, _ = drawn()
    assert "sensitivity_difference" not in evaluate(a, compare=b).numbers["comparisons"][0]
    row = evaluate(a, compare=b, thresholds=0.5).numbers["comparisons"][0]
    positive = a.label == 1
    expected = (a.score[positive] >= 0.5).mean() - (b.score[positive] >= 0.5).mean()
    assert row["sensitivity_difference"]["estimate"] == pytest.approx(expected)
    assert row["threshold"] == 0.5


def test_sample_size_by_hand_and_its_direction() -> None:
    # AUC .8, equal classes, half-width .05: a = 1.414 * .8416 = 1.190; V = .0099 e^-.708 (5*1.416+8
    # + 1.416+8) = .1195
    a = 1.414 * stats.norm.ppf(0.8)
    variance = 0.0099 * math.exp(-a * a / 2) * (6 * a * a + 16)
    assert patients_for_half_width(0.8, 1.0, 0.05, 0.95) == math.ceil(Z * Z * variance / 0.0025)
    assert variance == pytest.approx(0.1195, abs=5e-4)
    assert patients_for_half_width(0.8, 3.0, 0.05, 0.95) < patients_for_half_width(
        0.8, 1.0, 0.05, 0.95
    )


def test_precision_without_an_interval_has_a_reason() -> None:
    assert to_plain(sample_size_report(undefined("one class only"), 0, 5, None, 0.95)) == {
        "half_width": None,
        "why": "one class only",
    }
    e = Estimate(0.8, 0.7, 0.9, 0.95, "two", "m")
    assert to_plain(sample_size_report(e, 50, 50, None, 0.95)) == {"half_width": pytest.approx(0.1)}
    assert (
        sample_size_report(e, 50, 100, 0.05, 0.95).negatives_needed
        == 2 * sample_size_report(e, 50, 100, 0.05, 0.95).positives_needed
    )


def three_models(m: int, n: int, seed: int) -> list[Sample]:
    rng = np.random.default_rng(seed)
    label = np.arange(m + n) < m
    shared = rng.normal(size=m + n) + label
    zeros = np.zeros(m + n, dtype=np.int64)
    return [
        Sample(label, shared + rng.normal(size=m + n), np.arange(m + n), zeros) for _ in range(3)
    ]


def test_the_global_test_of_two_models_is_t_on_satterthwaites_degrees() -> None:
    a, b, _ = three_models(8, 30, 0)
    found = global_test([a, b])
    models = [placements(s) for s in (a, b)]
    parts = []
    for side, size in (("positive", 8), ("negative", 30)):
        difference = getattr(models[0], side) - getattr(models[1], side)
        parts.append((size / (size - 1) * float(difference @ difference), size - 1))
    df = sum(v for v, _ in parts) ** 2 / sum(v * v / f for v, f in parts)
    assert found.df_denominator == pytest.approx(df)
    t = math.sqrt(found.chi_square)
    assert found.p_value == pytest.approx(2 * stats.t.sf(t, found.df_denominator))


def test_the_global_test_of_few_positives_keeps_its_size() -> None:
    """With 5 + 95 patients the chi-square rejects about 10 to 16 % of equal models at 5 %."""
    found = [global_test(three_models(5, 95, seed)) for seed in range(300)]
    chi_square = np.mean([t.p_chi_square < 0.05 for t in found])
    assert chi_square > 0.08
    assert np.mean([(t.p_value or 1.0) < 0.05 for t in found]) < 0.07
    large = global_test(three_models(400, 400, 1))
    assert large.p_value == pytest.approx(large.p_chi_square, abs=0.005)


def test_two_patients_are_too_few_for_a_global_test() -> None:
    found = global_test(three_models(2, 2, 3))
    assert found.p_value is None
    assert found.why is not None
