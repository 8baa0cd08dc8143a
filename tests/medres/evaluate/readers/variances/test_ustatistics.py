from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from medres.errors import EvaluationError
from medres.evaluate import reader_study
from medres.evaluate.readers.figures import PAIRS
from medres.evaluate.readers.table import load_ratings
from medres.evaluate.readers.variances.covariances import figure_covariance, figure_values
from medres.evaluate.readers.variances.obuchowski_rockette import (
    difference_scatter,
    variance_components,
)
from medres.evaluate.readers.variances.ustatistics import ustatistics


def slow_covariance(table: pd.DataFrame, a: str, b: str) -> float:
    """Of the values of two modalities: the product of the values minus the mean product of two
    kernels that share no reader and no case, weighed as the pairs of the study are."""
    kernels: dict[str, list[tuple[str, int, int, float]]] = {}
    for modality, part in table.groupby("modality"):
        found = kernels.setdefault(str(modality), [])
        for reader, rows in part.groupby("reader"):
            sick = rows[rows.truth == 1][["case", "rating"]].itertuples(index=False)
            well = list(rows[rows.truth == 0][["case", "rating"]].itertuples(index=False))
            found += [
                (str(reader), x.case, y.case, float(np.sign(x.rating - y.rating) + 1) / 2)
                for x, y in product(sick, well)
            ]
    # E(value_a value_b) by which of reader, diseased and healthy case the two kernels share
    groups: dict[tuple[bool, bool, bool], list[float]] = {}
    for p, q in product(kernels[a], kernels[b]):
        key = (p[0] == q[0], p[1] == q[1], p[2] == q[2])
        groups.setdefault(key, []).append(p[3] * q[3])
    n = len(kernels[a]) * len(kernels[b])
    square = sum(len(found) / n * np.mean(found) for found in groups.values())
    return float(square - np.mean(groups[False, False, False]))


def designs(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    first = table["reader"].isin(["R1", "R2"])
    return {
        "crossed": table,
        "unbalanced": table.drop(index=[1, 9, 30, 31, 58]),
        "split-plot": table[first == (table["case"] < 4)],
        "readers nested": table[first == (table["modality"] == "M1")],
    }


@pytest.mark.parametrize("design", ["crossed", "unbalanced", "split-plot", "readers nested"])
def test_variances_are_their_definition(rated, design: str) -> None:
    table = designs(rated(readers=4, cases=8))[design]
    found = ustatistics(PAIRS["auc"], load_ratings(table), 0.95, None)
    for (a, b), part in found.variance.items():
        expected = slow_covariance(table, f"M{a + 1}", f"M{b + 1}")
        assert part.covariance == pytest.approx(expected, abs=1e-12)


def test_a_crossed_study_has_the_f_of_obuchowski_and_rockette(rated) -> None:
    """With the unbiased covariances, and where Cov2 is above Cov3."""
    table = rated(readers=5, cases=80, seed=1)
    study = load_ratings(table)
    sigma = figure_covariance("unbiased", PAIRS["auc"], study)
    values = figure_values(PAIRS["auc"], study)
    components = variance_components(values, sigma)
    assert not components.bounded
    scatter = difference_scatter("rrrc", components, 2, 5)
    contrast = reader_study(table, method="ustat").report.reader_study.contrasts[0]
    assert contrast.f == pytest.approx((values[0] - values[1]).mean() ** 2 / scatter[0] ** 2)
    again = reader_study(table, covariance="unbiased").report.reader_study.contrasts[0]
    assert again.f == pytest.approx(contrast.f)


def test_a_study_in_which_each_reader_reads_in_one_modality(rated) -> None:
    table = designs(rated(readers=4, cases=60))["readers nested"]
    study = reader_study(table, method="ustat").report.reader_study
    assert study.design == "readers_nested_in_modalities"
    assert len(study.values) == 4
    assert study.per_reader == []
    means = [
        np.mean([v.estimate.estimate for v in study.values if v.modality == m.modality])
        for m in study.modalities
    ]
    assert [m.estimate.estimate for m in study.modalities] == pytest.approx(means)
    assert study.contrasts[0].df2 > 0
    assert study.components is None


def test_a_negative_variance_is_withheld(rated) -> None:
    """Two modalities that hardly differ, few cases: some draw has a negative estimate."""
    for seed in range(40):
        table = rated(readers=3, cases=14, seed=seed)
        study = reader_study(table, method="ustat").report.reader_study
        contrast = study.contrasts[0]
        if contrast.p_value is None:
            assert contrast.difference.bounds is None
            assert "not above zero" in contrast.why
            assert contrast.f is contrast.df2 is None
            return
    pytest.fail("no draw had a negative variance")


def test_marks_by_ustatistics(marked) -> None:
    table, lesions = marked(cases=60)
    study = reader_study(table, lesions=lesions, method="ustat").report.reader_study
    assert study.figure == "wafroc"
    expected = figure_values(PAIRS["wafroc"], load_ratings(table, lesions)).mean(axis=1)
    assert [m.estimate.estimate for m in study.modalities] == pytest.approx(expected)


@pytest.mark.parametrize(
    "options",
    [
        {"analysis": "frrc"},
        {"covariance": "jackknife"},
        {"figure": "pauc"},
    ],
)
def test_what_the_method_cannot_do_is_refused(rated, options: dict) -> None:
    with raises_code(EvaluationError, "not_for_ustat"):
        reader_study(rated(), method="ustat", **options)


def test_a_stand_alone_model_is_for_the_other_method(rated) -> None:
    table = rated()
    table.loc[table["reader"] == "R1", "rating"] = table["truth"] + table["case"] % 3
    reader_study(table, standalone="R1")
    with raises_code(EvaluationError, "not_for_ustat"):
        reader_study(table, standalone="R1", method="ustat")


def test_readers_and_patients_must_suffice(rated) -> None:
    table = rated(readers=3)
    one = table[(table["modality"] == "M1") | (table["reader"] == "R1")]
    with raises_code(EvaluationError, "one_reader", "M2"):
        reader_study(one, method="ustat")
    patients = table.assign(patient=lambda t: t["case"] // 2)
    with raises_code(EvaluationError, "covariance_not_for_clusters"):
        reader_study(patients, method="ustat")
    with raises_code(EvaluationError, "unknown_method"):
        reader_study(table, method="dbm")
