from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from medres.evaluate.metrics.roc import (
    Placements,
    auc_covariance,
    auc_from_counts,
    disjoint_pairs,
    influence,
    placements,
)
from medres.evaluate.scores.sample import Sample, rank_counts


def sample_of(label, score, patient=None, fold=None) -> Sample:
    label = np.asarray(label, dtype=bool)
    n = label.size
    return Sample(
        label,
        np.asarray(score, dtype=float),
        np.arange(n) if patient is None else np.asarray(patient),
        np.zeros(n, dtype=np.int64) if fold is None else np.asarray(fold),
    )


def kernel(x, y):
    return np.where(x[:, None] > y[None, :], 1.0, np.where(x[:, None] == y[None, :], 0.5, 0.0))


def slow_auc(label, score) -> float:
    return float(kernel(score[label], score[~label]).mean())


def slow_delong(label, scores) -> np.ndarray:
    """DeLong, DeLong & Clarke-Pearson 1988, formula by formula, in O(n^2)."""
    v10 = np.stack([kernel(s[label], s[~label]).mean(axis=1) for s in scores])
    v01 = np.stack([kernel(s[label], s[~label]).mean(axis=0) for s in scores])
    return np.atleast_2d(np.cov(v10)) / label.sum() + np.atleast_2d(np.cov(v01)) / (~label).sum()


def slow_obuchowski(label, scores, patient) -> np.ndarray:
    """Obuchowski 1997, equations 4 to 9, with loops over clusters."""
    m, n = label.sum(), (~label).sum()
    clusters = np.unique(patient)
    i10 = len(np.unique(patient[label]))
    i01 = len(np.unique(patient[~label]))
    i = len(clusters)
    k = len(scores)
    out = np.zeros((k, k))
    psi = [kernel(s[label], s[~label]) for s in scores]
    theta = [p.mean() for p in psi]
    s10, s01, s11 = np.zeros((k, k)), np.zeros((k, k)), np.zeros((k, k))
    for c in clusters:
        pos, neg = patient[label] == c, patient[~label] == c
        dx = np.array([psi[r].mean(axis=1)[pos].sum() - pos.sum() * theta[r] for r in range(k)])
        dy = np.array([psi[r].mean(axis=0)[neg].sum() - neg.sum() * theta[r] for r in range(k)])
        s10 += np.outer(dx, dx) * i10 / ((i10 - 1) * m)
        s01 += np.outer(dy, dy) * i01 / ((i01 - 1) * n)
        s11 += np.outer(dx, dy) * i / (i - 1)
    out = s10 / m + s01 / n + (s11 + s11.T) / (m * n)
    return out


def drawn(seed: int, n: int = 80, digits: int = 1):
    rng = np.random.default_rng(seed)
    label = rng.random(n) < 0.4
    label[:3], label[3:6] = True, False
    scores = [np.round(rng.normal(size=n) + label * shift, digits) for shift in (0.5, 1.2)]
    return label, scores, rng.integers(0, n // 3, n)


def test_auc_worked_by_hand() -> None:
    # positives 3, 2; negatives 2, 1: pairs 3>2, 3>1, 2=2, 2>1 -> 3.5 of 4
    label, score = np.array([True, True, False, False]), np.array([3.0, 2.0, 2.0, 1.0])
    assert auc_from_counts(rank_counts(label, score)) == 3.5 / 4
    assert placements(sample_of(label, score)).auc == 3.5 / 4


def test_counts_are_cumulative_with_ties_together() -> None:
    counts = rank_counts(np.array([True, False, True, False]), np.array([0.9, 0.5, 0.5, 0.1]))
    assert counts.threshold.tolist() == [0.9, 0.5, 0.1]
    assert counts.tp.tolist() == [1, 2, 2]
    assert counts.fp.tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(8))
def test_auc_matches_pairs_and_scikit_learn(seed: int) -> None:
    label, (score, _), _ = drawn(seed)
    assert auc_from_counts(rank_counts(label, score)) == pytest.approx(
        slow_auc(label, score), abs=1e-14
    )
    assert placements(sample_of(label, score)).auc == pytest.approx(
        roc_auc_score(label, score), abs=1e-14
    )


@pytest.mark.parametrize("seed", range(8))
def test_covariance_with_single_units_is_delong(seed: int) -> None:
    label, scores, _ = drawn(seed)
    fast = auc_covariance([placements(sample_of(label, s)) for s in scores])
    np.testing.assert_allclose(fast, slow_delong(label, scores), rtol=1e-10)


@pytest.mark.parametrize("seed", range(8))
def test_covariance_with_clusters_is_obuchowski(seed: int) -> None:
    label, scores, patient = drawn(seed)
    fast = auc_covariance([placements(sample_of(label, s, patient)) for s in scores])
    np.testing.assert_allclose(fast, slow_obuchowski(label, scores, patient), rtol=1e-10)


def test_influence_of_single_units_squares_to_the_variance() -> None:
    label, (score, _), _ = drawn(3)
    model = placements(sample_of(label, score))
    assert float(influence(model) @ influence(model)) == pytest.approx(
        auc_covariance([model])[0, 0], rel=1e-12
    )


def test_patient_weighted_auc_is_the_mean_over_pairs_of_patients() -> None:
    label, (score, _), patient = drawn(5)
    pairs = kernel(score[label], score[~label])
    by_pair = [
        pairs[np.ix_(patient[label] == g, patient[~label] == h)].mean()
        for g in np.unique(patient[label])
        for h in np.unique(patient[~label])
    ]
    weighted = placements(sample_of(label, score, patient), patient_weighted=True)
    assert weighted.auc == pytest.approx(np.mean(by_pair), abs=1e-13)
    assert weighted.positive.sum() == pytest.approx(0, abs=1e-12)


def test_folds_are_averaged_and_never_mixed() -> None:
    label, (score, _), patient = drawn(6)
    fold = np.arange(label.size) % 3
    shifted = score + 100.0 * fold
    expected = np.mean([roc_auc_score(label[fold == f], score[fold == f]) for f in range(3)])
    assert placements(sample_of(label, shifted, patient, fold)).auc == pytest.approx(
        expected, abs=1e-14
    )


def test_folds_are_averaged_patient_by_patient() -> None:
    label, (score, _), patient = drawn(8)
    fold = patient % 2  # whole patients
    whole = placements(sample_of(label, score, patient, fold), patient.max() + 3)
    parts = [
        placements(
            sample_of(label[fold == f], score[fold == f], patient[fold == f]), patient.max() + 3
        )
        for f in (0, 1)
    ]
    np.testing.assert_allclose(
        whole.positive, (parts[0].positive + parts[1].positive) / 2, atol=1e-15
    )
    np.testing.assert_allclose(
        whole.negative, (parts[0].negative + parts[1].negative) / 2, atol=1e-15
    )
    assert whole.positive.shape == (patient.max() + 3,)
    counts = whole.n_clusters_positive, whole.n_clusters_negative, whole.n_clusters
    of_class = [len(np.unique(patient[label])), len(np.unique(patient[~label]))]
    assert counts == (*of_class, len(np.unique(patient)))
    assert of_class[0] != of_class[1]


def test_a_sample_counts_patients_by_class_and_is_cut_with_its_folds() -> None:
    sample = sample_of([1, 1, 0, 0, 0], [1] * 5, [4, 4, 0, 1, 4], [0, 1, 0, 1, 1])
    assert (sample.patients_with(True), sample.patients_with(False)) == (1, 3)
    cut = sample.take(np.array([True, False, False, True, True]))
    assert (cut.fold.tolist(), cut.patient.tolist(), cut.label.tolist()) == (
        [0, 1, 1], [4, 1, 4], [True, False, False],
    )  # fmt: skip


def test_influence_of_patients_with_both_classes_squares_to_the_variance() -> None:
    rng = np.random.default_rng(4)
    label, patient = np.tile([True, False], 12), np.repeat(np.arange(12), 2)
    model = placements(sample_of(label, rng.normal(size=24) + 0.5 * label, patient))
    assert float(influence(model) @ influence(model)) == pytest.approx(
        auc_covariance([model])[0, 0], rel=1e-12
    )


def test_two_patients_of_each_class_are_enough_for_a_variance() -> None:
    model = placements(sample_of([1, 1, 0, 0], [3, 1.5, 1, 2]))
    assert float(influence(model) @ influence(model)) == pytest.approx(
        auc_covariance([model])[0, 0]
    )


def test_a_fold_with_one_class_is_left_out_and_all_such_folds_raise() -> None:
    one = sample_of([1, 0, 1], [3, 1, 2], fold=[0, 0, 1])
    assert placements(one).auc == 1.0
    with pytest.raises(ValueError, match="both classes"):
        placements(sample_of([1, 0], [1, 2], fold=[0, 1]))


def test_perfect_separation_is_exactly_one_and_infinite_scores_rank() -> None:
    rng = np.random.default_rng(0)
    score = np.concatenate([rng.random(70) + 1.0, rng.random(131), [np.inf, -np.inf]])
    label = np.concatenate([np.ones(70), np.zeros(131), [1, 0]]).astype(bool)
    assert placements(sample_of(label, score)).auc == 1.0
    assert auc_from_counts(rank_counts(label, score)) == 1.0


def test_near_ties_in_float64_are_not_ties() -> None:
    score = np.array([0.5, np.nextafter(0.5, 1.0)])
    assert placements(sample_of([False, True], score)).auc == 1.0


def test_products_of_large_classes_do_not_overflow() -> None:
    n = 150_000
    label = np.arange(n) % 2 == 0
    score = (np.arange(n) // 2).astype(float)  # each positive ties with one negative
    assert placements(sample_of(label, score)).auc == pytest.approx(0.5, abs=1e-12)
    assert auc_from_counts(rank_counts(label, score)) == pytest.approx(0.5, abs=1e-12)


def test_variance_needs_two_patients_a_class() -> None:
    model = placements(sample_of([1, 0, 0], [3, 1, 2]))
    for raises in (lambda: auc_covariance([model]), lambda: influence(model)):
        with pytest.raises(ValueError, match="two patients"):
            raises()


def test_disjoint_pairs() -> None:
    assert disjoint_pairs(sample_of([1, 1, 1, 0, 0], [1] * 5)) == 2
    # one patient holds both classes: alone it makes no pair of different patients
    assert disjoint_pairs(sample_of([1, 0], [1, 0], patient=[0, 0])) == 0
    # patients 0 and 1 hold both classes: two disjoint pairs would need four patients
    assert disjoint_pairs(sample_of([1, 0, 1, 0], [1] * 4, patient=[0, 0, 1, 1])) == 1
    assert (
        disjoint_pairs(sample_of([1, 0, 0, 0, 0], [1] * 5))
        == disjoint_pairs(sample_of([0, 1, 1, 1, 1], [1] * 5))
        == 1
    )


cases = st.lists(
    st.tuples(st.booleans(), st.integers(-5, 5), st.integers(0, 6)), min_size=4, max_size=40
).filter(
    lambda rows: len({r[2] for r in rows if r[0]}) > 1 and len({r[2] for r in rows if not r[0]}) > 1
)


def split(rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label, score, patient = zip(*rows, strict=True)
    return np.array(label), np.array(score, dtype=float), np.array(patient)


def same(a: Placements, b: Placements) -> None:
    assert a.auc == pytest.approx(b.auc, abs=1e-12)
    assert auc_covariance([a])[0, 0] == pytest.approx(auc_covariance([b])[0, 0], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(cases, st.randoms())
def test_order_and_monotone_maps_change_nothing(rows, random) -> None:
    label, score, patient = split(rows)
    base = placements(sample_of(label, score, patient))
    random.shuffle(rows)
    same(base, placements(sample_of(*split(rows))))
    same(base, placements(sample_of(label, np.exp(score) * 3 - 1, patient)))


@settings(max_examples=60, deadline=None)
@given(cases)
def test_flipping_labels_or_scores_mirrors_the_auc(rows) -> None:
    label, score, patient = split(rows)
    base = placements(sample_of(label, score, patient))
    for flipped in (sample_of(~label, score, patient), sample_of(label, -score, patient)):
        other = placements(flipped)
        assert other.auc == pytest.approx(1 - base.auc, abs=1e-12)
        assert auc_covariance([other])[0, 0] == pytest.approx(
            auc_covariance([base])[0, 0], abs=1e-12
        )


@settings(max_examples=60, deadline=None)
@given(cases)
def test_copies_of_a_patients_units_change_nothing_when_clustered(rows) -> None:
    label, score, patient = split(rows)
    base = placements(sample_of(label, score, patient))
    same(base, placements(sample_of(np.tile(label, 2), np.tile(score, 2), np.tile(patient, 2))))
