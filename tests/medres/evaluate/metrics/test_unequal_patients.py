"""Patients with unequal numbers of images: Kish's effective number, leverage, the headline."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medres.evaluate import evaluate
from medres.evaluate.metrics.auc import auc_estimates, newcombe_limits
from medres.evaluate.metrics.roc import (
    auc_covariance,
    leverage_covariance,
    placements,
    unequal_df,
)
from medres.evaluate.scores.sample import Sample, effective_number
from medres.evaluate.statistics.clusters import t_quantile
from medres.evaluate.statistics.intervals import design_effect, proportion_estimate, wilson


def drawn(sizes: list[int], positive: int, seed: int = 0, shift: float = 1.0) -> Sample:
    """The first `positive` patients have the finding; scores of a patient are correlated."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(len(sizes)), sizes)
    label = patient < positive
    score = (
        0.8 * rng.normal(size=len(sizes))[patient] + 0.6 * rng.normal(size=label.size)
    ) + shift * label
    return Sample(label, score, patient, np.zeros(label.size, dtype=np.int64))


def giant_table() -> pd.DataFrame:
    """Forty patients with 99 images, 60 of them of one patient, whom the model gets wrong."""
    rng = np.random.default_rng(4)
    sizes = [60] + [1] * 39
    patient = np.repeat(np.arange(40), sizes)
    label = (patient < 20).astype(int)
    score = rng.normal(size=99) + 1.5 * label
    score[patient == 0] -= 3.0
    return pd.DataFrame({"patient": patient, "label": label, "score": score})


def slow_parts(s: Sample) -> tuple[float, list[np.ndarray], list[np.ndarray]]:
    """AUC, and by class the patients' summed deviations and shares, by pairs."""
    p, n = np.flatnonzero(s.label), np.flatnonzero(~s.label)
    above = (s.score[p][:, None] > s.score[n]) + 0.5 * (s.score[p][:, None] == s.score[n])
    auc = above.mean()
    parts, shares = [], []
    for members, mean in ((p, above.mean(axis=1)), (n, above.mean(axis=0))):
        who = s.patient[members]
        parts.append(
            np.array([sum(mean[who == g] - auc) / members.size for g in range(s.n_patients)])
        )
        shares.append(np.array([np.mean(who == g) for g in range(s.n_patients)]))
    return auc, parts, shares


def test_kish_by_hand() -> None:
    assert effective_number(np.array([60, *[1] * 39])) == pytest.approx(99**2 / (3600 + 39))
    assert effective_number(np.array([5, 5, 5])) == 3.0
    s = drawn([4, 1, 1, 2, 2], 3)
    assert s.effective_patients(True) == pytest.approx(36 / 18)
    assert (s.effective_patients(False), s.unequal) == (2.0, True)
    assert not drawn([3, 3, 3, 3], 2).unequal


def test_variance_and_degrees_of_freedom_are_those_of_the_slow_way() -> None:
    s = drawn([6, 1, 1, 2, 3, 1, 4, 1, 1, 2], 5)
    auc, parts, shares = slow_parts(s)
    base = placements(s)
    by_class = [
        sum(part[g] ** 2 / (1 - share[g]) for g in range(10))
        for part, share in zip(parts, shares, strict=True)
    ]
    assert base.auc == pytest.approx(auc)
    assert leverage_covariance([base])[0, 0] == pytest.approx(sum(by_class))
    kish = [1 / float(share @ share) for share in shares]
    df = sum(by_class) ** 2 / sum(v * v / (k - 1) for v, k in zip(by_class, kish, strict=True))
    assert unequal_df([base]) == pytest.approx(df)


def test_with_equal_patients_nothing_changes() -> None:
    """The published variance, the normal quantile, no flag."""
    s = drawn([3] * 24, 12)
    base = placements(s)
    assert leverage_covariance([base])[0, 0] == pytest.approx(auc_covariance([base])[0, 0])
    found = auc_estimates(s, 0.95).auc_newcombe
    effect = found.design_effect
    expected = newcombe_limits(found.estimate, 36 / effect, 36 / effect, stats.norm.ppf(0.975))
    assert (found.ci_low, found.ci_high) == pytest.approx(expected)
    assert (found.effective_patients, found.flag) == (None, None)
    rate = proportion_estimate(s.score[s.label] > 0.5, s.patient[s.label], 0.95)
    assert (rate.effective_patients, rate.flag) == (None, None)
    effective = 36 / rate.design_effect
    assert (rate.ci_low, rate.ci_high) == pytest.approx(
        wilson(rate.estimate * effective, effective, t_quantile(0.95, 11))
    )


def test_an_order_of_patients_or_rows_does_not_matter() -> None:
    s = drawn([9, 1, 2, 1, 1, 3, 1, 1, 1, 1], 5)
    rows = np.random.default_rng(1).permutation(s.label.size)
    other = Sample(s.label[rows], s.score[rows], 9 - s.patient[rows], s.fold)
    for a, b in zip(vars(auc_estimates(s, 0.95)).values(), vars(auc_estimates(other, 0.95)).values(), strict=True):  # fmt: skip # noqa: E501
        assert (a.estimate, a.ci_low, a.ci_high) == pytest.approx((b.estimate, b.ci_low, b.ci_high))


def test_a_proportion_of_unequal_patients_by_hand() -> None:
    # patients with 2 of 4, 1 of 1, 0 of 1: p .5; deviations 0, .5, -.5; shares 2/3, 1/6, 1/6
    hit = np.array([1, 1, 0, 0, 1, 0], dtype=bool)
    patient = np.array([0, 0, 0, 0, 1, 2])
    variance = (0.25 / (5 / 6) + 0.25 / (5 / 6)) / 36
    assert design_effect(hit.astype(float), patient) == max(1.0, variance / (0.25 / 6))
    found = proportion_estimate(hit, patient, 0.95)
    assert found.effective_patients == pytest.approx(36 / 18)
    assert (found.ci_low, found.ci_high) == pytest.approx(wilson(3, 6, t_quantile(0.95, 1.0)))
    every = proportion_estimate(np.ones(6, dtype=bool), patient, 0.95)
    assert every.n_effective == pytest.approx(2.0)


@pytest.mark.parametrize(("giant", "flag"), [(10, None), (14, "fewer than 10 effective patients")])
def test_the_flag_comes_below_ten_effective_patients(giant: int, flag: str | None) -> None:
    s = drawn([giant] + [1] * 59, 30)
    kish = (29 + giant) ** 2 / (29 + giant**2)
    assert (kish < 10) == (flag is not None)
    found = auc_estimates(s, 0.95)
    assert found.auc.effective_patients == pytest.approx(kish)
    assert {found.auc.flag, found.auc_newcombe.flag, found.auc_logit.flag} == {flag}
    assert found.auc_patient_weighted.flag is None
    rate = proportion_estimate(s.score[s.label] > 0.5, s.patient[s.label], 0.95)
    assert rate.flag == flag


def test_a_giant_makes_the_interval_wide() -> None:
    """One patient of ten with 40 images is most of what is known of the class."""
    widths = []
    for sizes in ([1] * 20, [40] + [1] * 19):
        found = [auc_estimates(drawn(sizes, 10, seed), 0.95).auc_newcombe for seed in range(12)]
        widths.append(np.mean([e.ci_high - e.ci_low for e in found]))
    assert widths[1] > 1.2 * widths[0]


def test_intervals_of_unequal_patients_cover_the_truth() -> None:
    """A tiny version of benchmarks/coverage.py: 30 + 30 patients, one with 10 images."""
    found = [auc_estimates(drawn([10] + [1] * 59, 30, seed), 0.95).auc for seed in range(200)]
    true = stats.norm.cdf(1 / np.sqrt(2))
    assert np.mean([e.ci_low <= true <= e.ci_high for e in found]) > 0.91


def test_the_card_shows_the_leading_auc(few_replicates) -> None:
    report = evaluate(giant_table())
    leading = report.report.findings["positive"].auc_patient_weighted.estimate
    assert f"{leading:.3f}" in report.to_card()


def test_one_patient_with_most_images_does_not_lead_the_report(few_replicates) -> None:
    report = evaluate(giant_table()).report
    finding = report.findings["positive"]
    assert (report.headline, report.largest_patient_share) == ("patient", pytest.approx(60 / 99))
    assert finding.auc.estimate < 0.5 < 0.75 < finding.auc_patient_weighted.estimate
    assert finding.auc_patient_weighted.ci_low > 0.5
    assert finding.effective_positive_patients == pytest.approx(79**2 / (3600 + 19))
    assert finding.effective_negative_patients == 20
    codes = {warning.code for warning in report.warnings}
    assert {"dominant_patient", "unequal_patients"} <= codes
    assert "below_half" not in codes
    assert "equal weight per patient" in finding.summary
    numbers = json.loads(evaluate(giant_table()).to_json())
    assert numbers["headline"] == "patient"
    assert numbers["findings"]["positive"]["auc"]["flag"] == "fewer than 10 effective patients"


def test_the_headline_depends_on_cluster_sizes_alone(few_replicates) -> None:
    table = giant_table()
    other = table.assign(score=-table.score, label=1 - table.label)
    site = np.where(table.patient % 2, "a", "b")
    compared = evaluate(table.assign(image=np.arange(99), site=site), subgroups=("site",),
                        compare=other.assign(label=table.label, image=np.arange(99)))  # fmt: skip
    assert evaluate(other).report.headline == compared.report.headline == "patient"
    (row,) = compared.report.comparisons
    weighted = compared.report.findings["positive"].auc_patient_weighted.estimate
    assert row.auc_difference_patient_weighted.estimate == pytest.approx(2 * weighted - 1)
    assert row.p_value_patient_weighted < 0.001
    groups = {g.level: g for g in compared.report.findings["positive"].subgroups}
    assert groups["b"].auc_patient_weighted.estimate > 0.7  # with the giant
    assert groups["a"].auc_patient_weighted is None  # one image per patient: the same as `auc`
    even = table.assign(patient=np.arange(99) // 3)
    assert evaluate(even).report.headline == "image"
    assert evaluate(table.drop(columns="patient")).report.headline == "image"


def test_unequal_comparisons_have_wider_intervals_by_t(few_replicates) -> None:
    s = drawn([12] + [1] * 39, 20)
    frame = pd.DataFrame(
        {"image": np.arange(51), "patient": s.patient, "label": s.label * 1, "score": s.score}
    )
    b = frame.assign(score=frame.score + np.random.default_rng(2).normal(size=51))
    row = evaluate(frame, compare=b).report.comparisons[0].auc_difference
    assert row.method == "paired Obuchowski, Wald, t for unequal patients"
    other = Sample(s.label, b.score.to_numpy(), s.patient, s.fold)
    models = [placements(s), placements(other)]
    c = auc_covariance(models)
    wald = stats.norm.ppf(0.975) * np.sqrt(c[0, 0] + c[1, 1] - 2 * c[0, 1])
    assert (row.ci_high - row.ci_low) / 2 > wald


def test_a_patient_with_both_labels_counts_once_in_each_class() -> None:
    # patient 0: positives 3 and 1, negative 2; patient 1: positive 4; patient 2: negatives 0 and 5
    score, label = [3.0, 1.0, 2.0, 4.0, 0.0, 5.0], [1, 1, 0, 1, 0, 0]
    sample = Sample(
        np.array(label) == 1, np.array(score), np.array([0, 0, 0, 1, 2, 2]), np.zeros(6, dtype=int)
    )
    weight = {3.0: 0.5, 1.0: 0.5, 4.0: 1.0, 2.0: 1.0, 0.0: 0.5, 5.0: 0.5}
    positive, negative = (3.0, 1.0, 4.0), (2.0, 0.0, 5.0)
    expected = sum(weight[p] * weight[n] * (p > n) for p in positive for n in negative) / 4
    assert auc_estimates(sample, 0.95).auc_patient_weighted.estimate == pytest.approx(expected)


def test_mildly_unequal_patients_are_no_warning(few_replicates) -> None:
    sizes = [2] * 30 + [1] * 30
    s = drawn(sizes, 20)
    rows = np.random.default_rng(0).permutation(60)[s.patient]
    table = pd.DataFrame({"patient": rows, "label": s.label * 1, "score": s.score})
    report = evaluate(table.assign(label=(rows % 2))).report
    assert report.findings["positive"].effective_positive_patients is not None
    assert not {"unequal_patients", "dominant_patient"} & {w.code for w in report.warnings}
