from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from medres.evaluate.analyses import level_test as tests
from medres.evaluate.analyses.level_test import interaction, level_test, permutation_p
from medres.evaluate.metrics.roc import auc_covariance, placements
from medres.evaluate.scores.sample import Sample


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tests, "DRAWS", 400)


def drawn(shifts: dict[str, float], m: int = 15, n: int = 15, seed: int = 0, images: int = 1):
    """(sample, level): m patients with and n without the finding in each level."""
    rng = np.random.default_rng(seed)
    label = np.tile(np.repeat(np.arange(m + n) < m, images), len(shifts))
    level = np.repeat(list(shifts), (m + n) * images)
    score = rng.normal(size=label.size) + label * np.array([shifts[x] for x in level])
    patient = np.repeat(np.arange(label.size // images), images)
    return Sample(label, score, patient, np.zeros(label.size, dtype=np.int64)), level


def slow_q(sample: Sample, level: np.ndarray) -> float:
    auc, variance = [], []
    for one in np.unique(level):
        part = sample.take(level == one)
        base = placements(part)
        pairs = part.patients_with(True) * part.patients_with(False)
        wrong = 0.5 / (pairs + 1)
        floor = wrong * (1 - wrong) / min(part.patients_with(True), part.patients_with(False))
        auc.append(base.auc)
        variance.append(max(auc_covariance([base])[0, 0], floor))
    w = 1 / np.array(variance)
    return float(np.sum(w * (np.array(auc) - np.sum(w * auc) / np.sum(w)) ** 2))


@pytest.mark.parametrize("images", [1, 3])
def test_the_statistic_is_that_of_the_slow_way(images: int) -> None:
    sample, level = drawn({"a": 1.0, "b": 0.2, "c": 9.0}, 4, 5, images=images)
    sample = Sample(sample.label, np.round(sample.score, 1), sample.patient, sample.fold)
    table = tests._Table(sample)
    code = np.searchsorted(np.unique(level), level)
    _, first = np.unique(table.patient, return_index=True)
    found = table.heterogeneity(code[table.order][first][None], 3)[0]
    assert found == pytest.approx(slow_q(sample, level))


def test_the_statistic_of_patients_with_both_labels_is_that_of_the_slow_way() -> None:
    sample, level = drawn({"a": 1.0, "b": 0.2}, 6, 6, images=2)
    patient = sample.patient % 6 + 6 * (level == "b")  # each with and without the finding
    sample = Sample(sample.label, sample.score, patient, sample.fold)
    table = tests._Table(sample)
    assert table.heterogeneity(np.repeat([0, 1], 6)[None], 2)[0] == pytest.approx(
        slow_q(sample, level)
    )


def test_levels_that_are_not_compared_are_left_out() -> None:
    sample, level = drawn({"a": 1.0, "b": 3.0, "c": 0.0, "d": 1.0})
    use = level != "c"
    assert len(set(level[use])) == 3
    expected = level_test(sample.take(use), level[use], ["a", "b", "d"])
    assert level_test(sample, level, ["a", "b", "d"]) == expected
    code = np.searchsorted(["a", "b", "d"], level[use])
    assert expected.p_value == permutation_p(sample.take(use), code)


def test_the_more_units_the_fewer_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    sample, level = drawn({"a": 20.0, "b": 0.0})
    code = (level == "b").astype(np.int64)
    monkeypatch.setattr(tests, "MIN_DRAWS", 20)
    for work, draws in ((30, 30), (5, 20), (1000, 400)):
        monkeypatch.setattr(tests, "WORK", work * code.size * 2)
        assert permutation_p(sample, code) == 1 / (1 + draws)


def test_without_a_variance_there_is_no_wald_test() -> None:
    sample, level = drawn({"a": 20.0, "b": 0.5, "c": -20.0}, 100, 100)
    parts = {name: sample.take(level == name) for name in "abc"}
    assert [placements(parts[name]).auc for name in "ac"] == [1.0, 0.0]
    for name in "ac":
        assert interaction([parts["b"], parts[name]], 600) is None
    assert interaction([parts["b"]], 600) is None
    assert level_test(sample, level, ["a", "b"]).method == tests.PERMUTATION


def test_the_p_value_is_that_of_all_permutations() -> None:
    sample, level = drawn({"a": 2.0, "b": -0.5}, 3, 3, seed=3)
    code = (level == "b").astype(np.int64)
    observed = slow_q(sample, code)
    positive, negative = np.flatnonzero(sample.label), np.flatnonzero(~sample.label)
    as_large = []
    for p in set(permutations(code[positive])):
        for n in set(permutations(code[negative])):
            moved = code.copy()
            moved[positive], moved[negative] = p, n
            as_large.append(slow_q(sample, moved) >= observed * (1 - 1e-9))
    exact = np.mean(as_large)  # of 400 permutations
    assert 0 < exact < 0.9
    assert permutation_p(sample, code) == pytest.approx(exact, abs=0.08)


def test_perfect_against_chance_is_found() -> None:
    """AUC 1.00 against .43: where the difference is greatest there is a test."""
    sample, level = drawn({"a": 20.0, "b": 0.0})
    assert placements(sample.take(level == "a")).auc == 1.0
    assert placements(sample.take(level == "b")).auc < 0.6
    found = level_test(sample, level, ["a", "b"])
    assert found.p_value < 0.01
    assert (found.method, found.why) == (tests.PERMUTATION, None)
    both = drawn({"a": 20.0, "b": 20.0})
    assert level_test(*both, ["a", "b"]).p_value == 1.0


def test_many_patients_have_the_wald_test_and_agree_with_the_permutation() -> None:
    sample, level = drawn({"a": 1.0, "b": 1.6}, 100, 100, seed=1)
    found = level_test(sample, level, ["a", "b"])
    parts = [sample.take(level == one) for one in "ab"]
    assert found == tests.LevelTest(interaction(parts, 400), tests.WALD)
    by_permutation = permutation_p(sample, (level == "b").astype(np.int64))
    assert by_permutation == pytest.approx(found.p_value, abs=0.05)


def test_order_scale_and_names_do_not_matter() -> None:
    sample, level = drawn({"a": 1.0, "b": 2.0}, images=2)
    p_value = level_test(sample, level, ["a", "b"]).p_value
    rows = np.random.default_rng(0).permutation(level.size)
    moved = Sample(
        sample.label[rows], np.exp(sample.score[rows]), sample.patient[rows], sample.fold
    )
    assert level_test(moved, level[rows], ["b", "a"]).p_value == p_value


def test_levels_within_a_patient_have_the_clustered_test_or_the_reason() -> None:
    sample, level = drawn({"a": 1.0, "b": 1.5}, images=2)
    within = np.tile(["a", "b"], level.size // 2)
    found = level_test(sample, within, ["a", "b"])
    assert found.method == tests.WALD
    perfect = Sample(sample.label, sample.score + 50 * sample.label, sample.patient, sample.fold)
    none = level_test(perfect, within, ["a", "b"])
    assert none.p_value is None
    assert "exactly 0 or 1" in none.why
    assert "fewer than two levels" in level_test(sample, level, ["a"]).why


def test_equal_levels_with_unequal_case_mix_are_rarely_different() -> None:
    p_values = []
    for seed in range(40):
        a, level_a = drawn({"a": 1.2}, 10, 30, seed=seed)
        b, level_b = drawn({"b": 1.2}, 30, 10, seed=100 + seed)
        sample = Sample(
            np.append(a.label, b.label),
            np.append(a.score, b.score),
            np.append(a.patient, 40 + b.patient),
            np.append(a.fold, b.fold),
        )
        p_values.append(level_test(sample, np.append(level_a, level_b), ["a", "b"]).p_value)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.15
    assert 0.3 < np.mean(p_values) < 0.7
