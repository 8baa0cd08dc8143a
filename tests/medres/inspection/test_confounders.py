from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pandas as pd
import pytest

from medres.inspection.confounders import (
    ComparedLabel,
    Subgroup,
    adjusted,
    clustered_p,
    cramers_v,
    independence_p,
    subgroup,
)


def compared(rows: list[tuple[str, str, float]]) -> Subgroup:
    """rows: patient, level, label of each image."""
    table = pd.DataFrame(rows, columns=["patient", "level", "label"])
    label = ComparedLabel("finding", table["label"] == 1, table["label"].notna())
    found = subgroup("site", table["level"], table["patient"], [label])
    assert found is not None
    return found


def test_patients_count_and_not_their_slices() -> None:
    """One patient of 500 positive slices at site A; by image the sites differ, by patient not."""
    rows = [("a0", "A", 1.0)] * 500
    rows += [(f"a{n}", "A", float(n < 5)) for n in range(1, 10)]
    rows += [(f"b{n}", "B", float(n < 5)) for n in range(10)]
    one = compared(rows)
    a, b = one.levels
    assert (a.name, a.images, a.patients) == ("A", 509, 10)
    assert a.shares == b.shares == (0.5,)
    (association,) = adjusted([one])[0].associations
    assert (association.cramers_v, association.p_value, association.test) == (0.0, 1.0, "Fisher")
    assert not one.marked


def test_a_site_with_all_positives_is_marked() -> None:
    rows = [(f"{site}{n}", site, float(site == "A")) for site in "AB" for n in range(10)]
    (one,) = adjusted([compared(rows)])
    (association,) = one.associations
    assert association.p_value == pytest.approx(2 / 184_756)  # 20 over 10, both tails
    assert association.cramers_v == 1.0
    assert association.difference == 1.0
    assert one.marked


def test_images_that_were_not_assessed_do_not_count() -> None:
    rows = [(f"a{n}", "A", 1.0) for n in range(6)] + [(f"b{n}", "B", np.nan) for n in range(6)]
    one = compared(rows)
    assert [level.shares for level in one.levels] == [(1.0,), (None,)]
    assert one.associations[0].p_value is None


def test_patients_at_several_levels_are_clusters() -> None:
    """Each patient has a positive AP and a negative PA view: the view tells the label."""
    rows = [(f"p{n}", view, float(view == "AP")) for n in range(12) for view in ("AP", "PA")]
    rows += [(f"q{n}", "AP", 0.0) for n in range(4)] + [(f"r{n}", "PA", 0.0) for n in range(4)]
    (one,) = adjusted([compared(rows)])
    assert one.in_several == 12
    assert one.associations[0].test == "clustered by patient"
    assert one.associations[0].p_value < 1e-3
    assert one.marked


@pytest.mark.parametrize("levels", [2, 3])
def test_the_clustered_test_keeps_its_level(levels: int) -> None:
    random = np.random.default_rng(1)
    p_values = []
    for _ in range(600):
        per_patient = random.integers(1, levels + 1, 40)
        patient = np.repeat(np.arange(40), per_patient)
        level = np.concatenate([random.permutation(levels)[:n] for n in per_patient])
        sick = random.random(40) < 0.5
        positive = np.where(random.random(patient.size) < 0.7, sick[patient], False)
        p_values.append(clustered_p(patient, level, positive))
    assert 0.02 < np.mean(np.array(p_values, float) < 0.05) < 0.08


def test_more_than_two_levels_are_tested_by_permutation() -> None:
    """Against all tables with these margins, each with its probability."""
    table = np.array([[4, 0], [0, 4], [2, 2]])
    assert independence_p(table) == pytest.approx(exact_p(table), abs=0.01)


def exact_p(table: np.ndarray) -> float:
    rows, positives = table.sum(axis=1), int(table[:, 1].sum())

    def chi(counts: tuple[int, ...]) -> float:
        share = positives / rows.sum()
        return sum((c - r * share) ** 2 / r for c, r in zip(counts, rows, strict=True))

    weights = {
        counts: float(np.prod([comb(int(r), c) for r, c in zip(rows, counts, strict=True)]))
        for counts in product(*(range(int(r) + 1) for r in rows))
        if sum(counts) == positives
    }
    observed = chi(tuple(int(c) for c in table[:, 1])) - 1e-9
    extreme = sum(w for counts, w in weights.items() if chi(counts) >= observed)
    return extreme / sum(weights.values())


def test_cramers_v_by_hand() -> None:
    """Phi squared .16 of 100; less 1 / 99; over 1 - 1 / 99 (Bergsma 2013)."""
    table = np.array([[35, 15], [15, 35]])
    assert cramers_v(table) == pytest.approx(((0.16 - 1 / 99) / (1 - 1 / 99)) ** 0.5)
