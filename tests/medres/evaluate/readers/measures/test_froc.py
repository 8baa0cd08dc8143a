from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medres.evaluate.readers.measures.froc import FALSE_MARKS, froc
from medres.evaluate.readers.ratings import Ratings
from medres.evaluate.readers.table import load_ratings


def slow(table: pd.DataFrame, lesions: int, images: int, at: float) -> float:
    """The highest share of lesions at a threshold with at most `at` false marks per image."""
    best = 0.0
    for threshold in sorted(set(table["rating"])):
        called = table[table["rating"] >= threshold]
        false = (called["lesion"] == "").sum() / images
        hits = called[called["lesion"] != ""].groupby(["case", "lesion"]).ngroups
        if false <= at + 1e-12:
            best = max(best, hits / lesions)
    return best


def marks_of(table: pd.DataFrame, modality: str, reader: int) -> pd.DataFrame:
    own = table[(table["modality"] == modality) & (table["reader"] == reader)].copy()
    own["rating"] = pd.to_numeric(own["rating"])
    return own.dropna(subset="rating")


def found_of(study: Ratings):
    return froc(study, study.lesions, ((0, 1),), 0.95)


def test_sensitivities_are_their_definition(marked) -> None:
    table, lesions = marked(readers=2)
    found = found_of(load_ratings(table, lesions))
    assert found.fp_per_image == list(FALSE_MARKS)
    first = found.values[0]
    assert (first.modality, first.reader, first.images) == ("A", "0", "all")
    own = marks_of(table, "A", 0)
    expected = [slow(own, len(lesions), 30, at) for at in FALSE_MARKS]
    assert [e.estimate for e in first.sensitivity] == pytest.approx(expected)
    assert first.froc_mean.estimate == pytest.approx(np.mean(expected))
    total = (own["lesion"] == "").sum() / 30
    assert first.carried_forward == [at > total for at in FALSE_MARKS]


def test_lesion_free_images_have_rows_of_their_own(marked) -> None:
    table, lesions = marked(readers=2)
    found = found_of(load_ratings(table, lesions))
    free = next(v for v in found.values if v.images == "lesion-free")
    own = marks_of(table, "A", 0)
    own = own[(own["truth"] == 0) | (own["lesion"] != "")]
    expected = [slow(own, len(lesions), 15, at) for at in FALSE_MARKS]
    assert [e.estimate for e in free.sensitivity] == pytest.approx(expected)


def test_means_and_differences_are_over_readers(marked) -> None:
    study = load_ratings(*marked(readers=3))
    found = found_of(study)
    of_all = {(v.modality, v.reader): v.froc_mean for v in found.values if v.images == "all"}
    single = [of_all["A", str(r)].estimate for r in range(3)]
    assert of_all["A", None].estimate == pytest.approx(np.mean(single))
    last = found.differences[-1]
    assert (last.a, last.b, last.reader) == ("A", "B", None)
    assert last.difference.estimate == pytest.approx(
        of_all["A", None].estimate - of_all["B", None].estimate
    )
    low, high = last.difference.bounds
    assert low < last.difference.estimate < high
    assert "30 patients" in last.difference.flag


def test_the_same_readings_differ_by_nothing(marked) -> None:
    table, lesions = marked(readers=2)
    first = table[table["modality"] == "A"]
    study = load_ratings(pd.concat([first, first.assign(modality="B")]), lesions)
    for item in found_of(study).differences:
        assert item.difference.estimate == 0
        assert item.difference.why


def test_the_bootstrap_covers_a_known_share(monkeypatch) -> None:
    """Without false marks the curve is one share of independent lesions, one in each case."""
    n = 200
    hit = np.random.default_rng(1).random(n) < 0.7
    truth = np.r_[np.ones(n), np.zeros(n)].astype(int)
    rows = pd.DataFrame(
        {"reader": 1, "modality": "A", "case": np.arange(2 * n), "truth": truth, "lesion": ""}
    )
    rows["rating"] = np.where(np.r_[hit, np.zeros(n, bool)], "1", "")
    rows["lesion"] = np.where(rows["rating"] == "1", "L", "")
    lesions = pd.DataFrame({"case": np.arange(n), "lesion": "L"})
    study = load_ratings(rows, lesions)
    value = froc(study, study.lesions, (), 0.95).values[0].froc_mean
    half = 1.96 * np.sqrt(hit.mean() * (1 - hit.mean()) / n)
    assert value.estimate == pytest.approx(hit.mean())
    assert value.ci_low == pytest.approx(hit.mean() - half, abs=0.012)
    assert value.ci_high == pytest.approx(hit.mean() + half, abs=0.012)
