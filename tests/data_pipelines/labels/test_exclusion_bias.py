from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from data_pipelines.labels.exclusion_bias import (
    PERMUTATIONS,
    PatientCounts,
    association_p,
    exclusion_lines,
    exclusion_tests,
    exclusion_warnings,
    exclusions_by_label,
    holm,
)


def images(*entries: tuple[str, str, str, float]) -> pd.DataFrame:
    """Rows of (patient, split, reason, label)."""
    return pd.DataFrame(entries, columns=["patient", "split", "reason", "label:bleed"])


def slow_difference(labels: np.ndarray, patients: np.ndarray, excluded: np.ndarray) -> float:
    """The difference of the shares of patients with any excluded image, by definition."""
    shares = []
    for value in (True, False):
        units = {p for p, y in zip(patients, labels, strict=True) if y == value}
        lost = {p for p, y, e in zip(patients, labels, excluded, strict=True) if y == value and e}
        shares.append(len(lost) / len(units))
    return shares[0] - shares[1]


def slow_p(labels: np.ndarray, patients: np.ndarray, excluded: np.ndarray) -> float:
    """Every relabeling: whole patients with one value, and images within patients with both."""
    names = list(dict.fromkeys(patients))
    mixed = [n for n in names if len(set(labels[patients == n])) == 2]
    pure = [n for n in names if n not in mixed]
    n_positive = sum(bool(labels[patients == n][0]) for n in pure)
    choices = [list(itertools.combinations(pure, n_positive))]
    for name in mixed:
        own = np.flatnonzero(patients == name)
        choices.append(list(itertools.combinations(own, int(labels[own].sum()))))
    observed = abs(slow_difference(labels, patients, excluded))
    weights = []
    for positive, *within in itertools.product(*choices):
        relabeled = np.isin(patients, positive)
        for rows in within:
            relabeled[list(rows)] = True
        weights.append(abs(slow_difference(relabeled, patients, excluded)) >= observed - 1e-12)
    return float(np.mean(weights))


def counts_of(labels: np.ndarray, patients: np.ndarray, excluded: np.ndarray) -> list:
    return [
        PatientCounts(
            *(
                int((own & side & lost).sum())
                for lost, side in (
                    (np.ones_like(excluded), labels),
                    (np.ones_like(excluded), ~labels),
                    (excluded, labels),
                    (excluded, ~labels),
                )
            )
        )
        for own in (patients == name for name in dict.fromkeys(patients))
    ]


@pytest.mark.parametrize("seed", range(4))
def test_permutation_equals_the_enumeration_of_all_relabelings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = (3, 4, 2, 1, 1, 2, 1, 1)
    patients = np.repeat([f"p{n}" for n in range(len(sizes))], sizes)
    labels = rng.random(len(patients)) < 0.5
    labels[:3], labels[3:7] = [True, False, False], [True, True, False, False]
    for n in range(2, len(sizes)):
        own = patients == f"p{n}"
        labels[own] = n % 2 == 0
    excluded = rng.random(len(patients)) < np.where(labels, 0.7, 0.2)
    expected = slow_p(labels, patients, excluded)
    p = association_p(counts_of(labels, patients, excluded), seed=seed)
    assert p == pytest.approx(
        expected, abs=4 * math.sqrt(expected * (1 - expected) / PERMUTATIONS) + 2e-5
    )


def test_fisher_by_hand() -> None:
    """23 of 100 against 5 of 100: the tail of the hypergeometric distribution, both sides."""
    patients = (
        [PatientCounts(0, 2, 0, 1)] * 23
        + [PatientCounts(0, 1, 0, 0)] * 77
        + [PatientCounts(1, 0, 1, 0)] * 5
        + [PatientCounts(3, 0, 0, 0)] * 95
    )
    ways = [math.comb(100, k) * math.comb(100, 28 - k) for k in range(29)]
    expected = sum(w for w in ways if w <= ways[5]) / sum(ways)
    assert association_p(patients) == pytest.approx(expected, rel=1e-9)


def test_table_and_test_of_a_biased_cohort() -> None:
    rows = images(
        *((f"s{n}", "train", "colour" if n < 20 else "", 1.0) for n in range(40)),
        *((f"h{n}", "train" if n < 30 else "test", "", 0.0) for n in range(40)),
        ("h0", "train", "truncated_pixels", 0.0),
        ("u", "tune", "", math.nan),
    )
    table = exclusions_by_label(rows)
    assert table[0] == {
        "finding": "bleed",
        "value": "1",
        "split": "train",
        "patients": 40,
        "patients_excluded": 20,
        "images": 40,
        "images_excluded": 20,
        "codes": {"colour": 20},
    }
    assert [(r["value"], r["split"], r["images"], r["images_excluded"]) for r in table[1:]] == [
        ("0", "train", 31, 1),
        ("0", "test", 10, 0),
        ("not_assessed", "tune", 1, 0),
    ]
    (test,) = exclusion_tests(rows)
    assert (test["share_positive"], test["share_negative"]) == (0.5, 1 / 40)
    assert test["associated"]
    assert test["p_adjusted"] < 1e-5
    assert len(exclusion_warnings([test])) == 1
    lines = [line.split("  ") for line in exclusion_lines(table)]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[1:] == [
        ["bleed = 1", "20 of 40", "-", "-", "50.0%", "colour 20"],
        ["bleed = 0", "1 of 31", "-", "0 of 10", "2.4%", "truncated_pixels 1"],
        ["bleed = not_assessed", "-", "0 of 1", "-", "0.0%"],
    ]


def test_no_association_without_a_difference_of_five_points() -> None:
    rows = pd.DataFrame(
        {
            "patient": [f"p{n}" for n in range(20_000)],
            "split": "train",
            "reason": ["colour" if n % 25 == 0 and n < 10_000 else "" for n in range(20_000)],
            "label:x": [float(n < 10_000) for n in range(20_000)],
        }
    )
    (test,) = exclusion_tests(rows)
    assert test["p_adjusted"] < 1e-10
    assert not test["associated"]


def test_each_class_against_the_others() -> None:
    rows = pd.DataFrame(
        {
            "patient": [f"p{n}" for n in range(90)],
            "split": "train",
            "reason": ["colour" if n < 24 else "" for n in range(90)],
            "class": ["a"] * 30 + ["b"] * 30 + ["c"] * 29 + [""],
        }
    )
    tests = {test["finding"]: test for test in exclusion_tests(rows)}
    assert list(tests) == ["a", "b", "c"]
    assert tests["a"]["associated"]
    assert tests["a"]["share_negative"] == 0.0
    assert {row["value"] for row in exclusions_by_label(rows)} == {"a", "b", "c", "not_assessed"}


def test_one_value_only_has_no_test() -> None:
    (test,) = exclusion_tests(images(("a", "train", "", 1.0), ("b", "train", "colour", 1.0)))
    assert test["p_value"] is None
    assert not test["associated"]


def test_holm_is_monotone_and_at_most_one() -> None:
    assert holm([0.5, 0.001, 0.4]) == [0.8, 0.003, 0.8]
