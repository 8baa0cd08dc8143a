from __future__ import annotations

import numpy as np
import pytest

from data_pipelines.preprocessing.spec import spec_from
from medres.artefact.card import Card, ConformalQuantile, OperatingPoint
from medres.inference.decisions import decisions, describe, pooled, prediction_sets


def card(task: str, names: list[str], **fields: object) -> Card:
    defaults = {
        "preprocess": spec_from("xray-32"),
        "unit": "study",
        "pooling": "max",
        "calibration": {},
        "operating_points": [],
        "training": {},
        "versions": {},
    }
    return Card(task=task, names=names, **(defaults | fields))


def quantile(finding: str, label: int | str, value: float, alpha: float = 0.1) -> ConformalQuantile:
    return ConformalQuantile(
        finding=finding, label=label, alpha=alpha, quantile=value, n_patients=50
    )


def test_scores_are_pooled_as_the_card_says() -> None:
    scores = np.array([[0.1, 0.9], [0.4, 0.2]])
    assert pooled(scores, card("multilabel", ["a", "b"])) == {"a": 0.4, "b": 0.9}
    assert pooled(scores, card("multiclass", ["a", "b"], pooling="mean")) == pytest.approx(
        {"a": 0.25, "b": 0.55}
    )


def test_a_threshold_is_reached_by_equality() -> None:
    point = OperatingPoint(
        finding="a",
        name="default",
        threshold=0.4,
        criterion="youden",
        unit="study",
        split="tune",
        n_patients=9,
        sha256="",
    )
    made = card("binary", ["a"], operating_points=[point])
    assert decisions({"a": 0.4}, made) == {"a": True}
    assert decisions({"a": 0.3999}, made) == {"a": False}
    both = card("multilabel", ["a", "b"], operating_points=[point])
    assert decisions({"a": 0.5, "b": 0.9}, both) == {"a": True}
    assert decisions({"a": 0.3, "b": 0.7}, card("multiclass", ["a", "b"])) == {"class": "b"}


def test_the_conformal_set_holds_the_labels_that_are_not_ruled_out() -> None:
    made = card(
        "binary",
        ["a"],
        conformal=[quantile("a", 0, 0.3), quantile("a", 1, 0.6), quantile("a", 1, 0.1, 0.5)],
    )
    assert prediction_sets({"a": 0.2}, made) == {
        "a": [0]
    }  # 1 - p(0) = 0.2 <= 0.3; 1 - p(1) = 0.8 > 0.6
    assert prediction_sets({"a": 0.9}, made) == {"a": [1]}
    assert prediction_sets({"a": 0.3}, made) == {"a": [0]}
    assert prediction_sets({"a": 0.35}, made) == {"a": []}
    wide = card("binary", ["a"], conformal=[quantile("a", 0, 0.7), quantile("a", 1, 0.7)])
    assert prediction_sets({"a": 0.5}, wide) == {"a": [0, 1]}
    classes = card(
        "multiclass", ["a", "b"], conformal=[quantile("a", "a", 0.5), quantile("b", "b", 0.2)]
    )
    assert prediction_sets({"a": 0.6, "b": 0.4}, classes) == {"class": ["a"]}
    assert prediction_sets({"a": 0.6}, card("binary", ["a"])) == {}


def test_a_printed_decision_names_probability_threshold_label_and_uncertainty() -> None:
    point = OperatingPoint(
        finding="covid",
        name="default",
        threshold=0.82,
        criterion="youden",
        unit="study",
        split="tune",
        n_patients=9,
        sha256="",
    )
    both = [quantile("covid", 0, 0.9), quantile("covid", 1, 0.9)]
    uncertain = card("binary", ["covid"], operating_points=[point], conformal=both)
    text = "covid: p = 0.812, threshold 0.820: negative (uncertain)"
    assert describe({"covid": 0.812}, uncertain) == text
    certain = card("binary", ["covid"], operating_points=[point])
    assert describe({"covid": 0.82}, certain) == "covid: p = 0.820, threshold 0.820: positive"
    neither = [quantile("covid", 0, 0.1), quantile("covid", 1, 0.1)]
    empty = card("binary", ["covid"], operating_points=[point], conformal=neither)
    assert describe({"covid": 0.5}, empty).endswith("negative (atypical)")
    several = card("multilabel", ["covid", "mass"], operating_points=[point])
    assert describe({"covid": 0.9, "mass": 0.5}, several) == (
        "covid: p = 0.900, threshold 0.820: positive; mass: p = 0.500, no threshold"
    )
    both = [quantile("a", "a", 0.9), quantile("b", "b", 0.9)]
    classes = card("multiclass", ["a", "b"], conformal=both)
    assert describe({"a": 0.25, "b": 0.75}, classes) == "a 0.250, b 0.750: b (uncertain)"
    half = card("multiclass", ["a", "b"], conformal=both[:1])
    assert describe({"a": 0.25, "b": 0.75}, half) == "a 0.250, b 0.750: b"
