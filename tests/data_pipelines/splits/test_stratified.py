from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import SplitError
from data_pipelines.splits.stratified import (
    allocate,
    check_fractions,
    check_no_overlap,
    connected_groups,
    group_folds,
    group_strata,
    row_strata,
    sample_tune_split,
    split_patients,
)

Cohort = tuple[np.ndarray, list[str]]


def connected(patients: list[str], links: list[str]) -> list[set[int]]:
    """Slow oracle of connected_groups: flood from each row."""
    rows = range(len(patients))
    touches = [
        {b for b in rows if patients[a] == patients[b] or (links[a] and links[a] == links[b])}
        for a in rows
    ]
    parts: list[set[int]] = []
    for row in rows:
        seen, todo = set(), {row}
        while todo:
            seen |= todo
            todo = set().union(*(touches[r] for r in todo)) - seen
        parts.append(seen)
    return parts


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["", "1", "2", "3", "4", "5"])),
        max_size=14,
    )
)
def test_connected_groups_are_the_connected_parts(rows: list[tuple[str, str]]) -> None:
    patients, links = [p for p, _ in rows], [p for _, p in rows]
    groups = connected_groups(patients, [links])
    for row, part in enumerate(connected(patients, links)):
        assert set(np.flatnonzero(groups == groups[row])) == part
    first_seen = list(dict.fromkeys(groups.tolist()))
    assert first_seen == list(range(len(first_seen)))


def test_rows_without_a_patient_are_not_lumped() -> None:
    assert connected_groups(["", "", "a"]).tolist() == [0, 1, 2]


def test_group_strata_takes_the_rarest_label() -> None:
    groups = np.array([0, 0, 1, 1, 2])
    assert group_strata(groups, ["absent", "sick", "absent", "absent", "absent"]) == [
        "sick",
        "absent",
        "absent",
    ]


def test_row_strata_of_findings_and_classes() -> None:
    labels = {"label:a": [0, 1, 1, -1, np.nan, 1], "label:b": [0, 0, 1, np.nan, np.nan, 0]}
    table = pd.DataFrame({"kind": ["ct"] * 5 + ["radiograph"], **labels})
    assert row_strata(table) == [
        "ct absent",
        "ct label:a",
        "ct label:b",
        "ct ",
        "ct ",
        "radiograph label:a",
    ]
    assert row_strata(pd.DataFrame({"kind": ["ct", "ct"], "class": ["x", ""]})) == ["ct x", "ct "]
    assert row_strata(pd.DataFrame({"kind": ["ct"]})) == ["ct "]


def test_row_strata_of_boxes() -> None:
    boxes = {"boxes:a": [0, 3, 1, np.nan], "boxes:b": [0, 2, 0, np.nan]}
    table = pd.DataFrame({"kind": ["rgb"] * 4, **boxes})
    expected = ["rgb absent", "rgb boxes:b", "rgb boxes:a", "rgb "]
    assert row_strata(table) == expected
    labeled = row_strata(table.assign(**{"label:x": [1, 0, 0, 1]}))
    assert labeled == ["rgb label:x", "rgb absent", "rgb absent", "rgb label:x"]


@st.composite
def cohorts(draw: st.DrawFn, least: int = 3) -> Cohort:
    sizes = draw(st.lists(st.integers(1, 4), min_size=least, max_size=60))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return groups, draw(
        st.lists(st.sampled_from("pqr"), min_size=len(groups), max_size=len(groups))
    )


@settings(deadline=None)
@given(cohorts(), st.integers(0, 5))
def test_splits_keep_patients_whole_and_reach_every_split(cohort: Cohort, seed: int) -> None:
    groups, labels = cohort
    splits = split_patients(groups, labels, seed=seed)
    assert all(len(set(splits[groups == g])) == 1 for g in set(groups.tolist()))
    assert set(splits) == {"train", "tune", "test"}
    assert (splits == split_patients(groups, labels, seed=seed)).all()


@settings(deadline=None)
@given(cohorts(), st.integers(0, 5))
def test_a_stratum_of_three_patients_reaches_every_split(cohort: Cohort, seed: int) -> None:
    groups, labels = cohort
    splits = split_patients(groups, labels, seed=seed)
    strata = group_strata(groups, labels)
    met = defaultdict(set)
    for row, group in enumerate(groups):
        met[strata[group]].add(splits[row])
    for stratum, count in Counter(strata).items():
        assert len(met[stratum]) == 3 or count < 3


@settings(deadline=None)
@given(st.integers(10, 300), st.integers(10, 300), st.integers(0, 3))
def test_shares_are_kept_in_every_stratum(a: int, b: int, seed: int) -> None:
    strata = ["a"] * a + ["b"] * b
    parts = allocate(strata, (0.7, 0.15, 0.15), seed)
    for name, count in (("a", a), ("b", b)):
        sizes = np.bincount(parts[np.array(strata) == name], minlength=3)
        assert np.abs(sizes - count * np.array([0.7, 0.15, 0.15])).max() < 1.5
    assert (
        np.abs(np.bincount(parts, minlength=3) - (a + b) * np.array([0.7, 0.15, 0.15])).max() < 1.5
    )


def test_seeds_draw_different_splits() -> None:
    drawn = {tuple(split_patients(np.arange(30), ["a"] * 30, seed=seed)) for seed in range(5)}
    assert len(drawn) == 5


def test_every_patient_is_equally_likely_to_test() -> None:
    tested = sum(
        split_patients(np.arange(20), ["a"] * 20, seed=seed) == "test" for seed in range(400)
    )
    assert tested.sum() == 400 * 3
    assert np.abs(tested / 400 - 0.15).max() < 5 * np.sqrt(0.15 * 0.85 / 400)


def test_a_fraction_of_zero_gets_no_patient() -> None:
    assert Counter(split_patients(np.arange(10), ["a"] * 10, seed=0, fractions=(0.8, 0.2, 0))) == {
        "train": 8,
        "tune": 2,
    }


def test_too_few_patients() -> None:
    with raises_code(SplitError, "too_few_patients", "2 patients", "3 splits"):
        split_patients(np.array([0, 0, 1]), ["a"] * 3, seed=0)


@pytest.mark.parametrize(
    "fractions",
    [(0.5, 0.5), (0.5, 0.2, 0.2), (-0.1, 0.6, 0.5), (0, 0.5, 0.5), (float("nan"), 0, 1)],
)
def test_bad_fractions(fractions: tuple[float, ...]) -> None:
    with raises_code(SplitError, "fractions"):
        check_fractions(fractions)


@settings(deadline=None)
@given(cohorts(), st.integers(0, 3))
def test_tune_is_drawn_from_train_alone(cohort: Cohort, seed: int) -> None:
    groups, labels = cohort
    given_splits = np.where(groups < 2, "train", "test").tolist()
    splits = sample_tune_split(groups, labels, given_splits, seed=seed)
    assert set(splits[groups < 2]) == {"train", "tune"}
    assert set(splits[groups >= 2]) == {"test"}
    assert all(len(set(splits[groups == g])) == 1 for g in set(groups.tolist()))


def test_tune_takes_its_share_of_train() -> None:
    splits = sample_tune_split(np.arange(120), ["a"] * 120, ["train"] * 100 + ["test"] * 20, seed=0)
    assert Counter(splits) == {"train": 82, "tune": 18, "test": 20}  # 100 * 0.15 / 0.85 = 17.6


@pytest.mark.parametrize(
    "names", [["train", "tune", "test"], ["train", "tune", "train"], ["test"] * 3]
)
def test_other_given_splits_stay(names: list[str]) -> None:
    assert sample_tune_split(np.arange(3), ["a"] * 3, names, seed=0).tolist() == names


def test_tune_needs_a_second_patient() -> None:
    with raises_code(SplitError, "too_few_patients"):
        sample_tune_split(np.array([0, 0, 1]), ["a"] * 3, ["train", "train", "test"], seed=0)


def manifest_like(
    patients: list[str], pixels: list[str], splits: list[str] | None = None
) -> pd.DataFrame:
    return pd.DataFrame(
        {"patient": patients, "pixel_sha256": pixels, "kind": "ct", "split": splits or "train"}
    )


def test_check_no_overlap_counts_patients_and_pixels() -> None:
    check_no_overlap(manifest_like(["a", "a", "b"], ["1", "2", "3"], ["train", "train", "test"]))
    table = manifest_like(
        ["a", "a", "b", "c"], ["1", "2", "3", "1"], ["train", "test", "train", "test"]
    )
    with raises_code(SplitError, "split_leak", "1 patients and 1 images"):
        check_no_overlap(table)


def test_folds_keep_patients_and_identical_pixels_together() -> None:
    table = manifest_like(
        list("aabbccddee"), list("1234567819")
    )  # d and e share the pixels 1 with a: a, e are linked
    folds = group_folds(table, 2, seed=0)
    assert set(folds) == {0, 1}
    by_patient = {p: set(folds[table["patient"] == p]) for p in "abcde"}
    assert all(len(patient_splits) == 1 for patient_splits in by_patient.values())
    assert by_patient["a"] == by_patient["e"]


@pytest.mark.parametrize("k", [1, 4])
def test_folds_need_patients(k: int) -> None:
    with raises_code(SplitError, "folds", "3 patients"):
        group_folds(manifest_like(list("abc"), list("123")), k, seed=0)


def test_folds_keep_linked_patients_together() -> None:
    table = pd.DataFrame(
        {
            "patient": [f"p{n}" for n in range(12)],
            "pixel_sha256": [f"h{n}" for n in range(12)],
            "kind": "ct",
            "group": [n // 2 for n in range(12)],
        }
    )
    for seed in range(5):
        folds = group_folds(table, 3, seed)
        assert (folds[::2] == folds[1::2]).all()
