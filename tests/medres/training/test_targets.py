from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from data_pipelines.cache.tf_dataset import Targets
from medres.errors import TrainingError
from medres.training.config.recipe import recipe
from medres.training.targets import class_balance, class_order, training_targets

VALUES = {"a": [1, 0, -1, np.nan, -1], "b": [-1, 1, 0, -1, np.nan]}
TABLE = pd.DataFrame({f"label:{name}": values for name, values in VALUES.items()})


def findings() -> Targets:
    values = np.array(list(VALUES.values())).T
    known = (values == 0) | (values == 1)
    return Targets(
        "multilabel",
        ("a", "b"),
        np.where(known, values, 0).astype(np.float32),
        known.astype(np.float32),
    )


def classes(counts: list[int]) -> Targets:
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return Targets(
        "multiclass", tuple("abcdef"[: len(counts)]), labels, np.ones(len(labels), np.float32)
    )


@pytest.mark.parametrize(
    ("policy", "label", "weight"),
    [("ignore", 0, 0), ("zero", 0, 1), ("one", 1, 1), ("soft", 0.5, 1), (0.7, 0.7, 1)],
)
def test_each_finding_has_its_policy(policy: str | float, label: float, weight: float) -> None:
    made = training_targets(findings(), TABLE, np.arange(5), recipe(uncertain={"a": policy}))
    assert made.labels[:, 0] == pytest.approx([1, 0, label, 0, label])
    assert made.weights[:, 0].tolist() == [1, 1, weight, 0, weight]
    assert (
        made.weights[:, 1].tolist() == findings().weights[:, 1].tolist()
    )  # another finding is ignored, as by default


def test_a_policy_for_all_others() -> None:
    made = training_targets(
        findings(), TABLE, np.arange(5), recipe(uncertain={"*": "one", "a": "zero"})
    )
    assert made.labels.tolist() == [[1, 1], [0, 1], [0, 0], [0, 1], [0, 0]]
    assert made.weights.tolist() == [[1, 1], [1, 1], [1, 1], [0, 1], [1, 0]]


def test_only_the_training_rows_are_weighted() -> None:
    targets = classes([6, 3, 1])
    made = training_targets(targets, pd.DataFrame(), np.arange(6), recipe(class_weights={"a": 3.0}))
    assert made.weights.tolist() == [3.0] * 6 + [1.0] * 4


def test_balanced_classes_count_alike() -> None:
    rng = np.random.default_rng(3)
    targets = Targets(
        "multilabel",
        ("a", "b", "c"),
        rng.integers(0, 2, (20, 3)).astype(np.float32),
        rng.integers(0, 2, (20, 3)).astype(np.float32),
    )
    balanced = class_balance(targets)
    for i in range(3):
        known = targets.weights[:, i] > 0
        positive = balanced.weights[(balanced.labels[:, i] == 1) & known, i].sum()
        negative = balanced.weights[(balanced.labels[:, i] == 0) & known, i].sum()
        assert positive == pytest.approx(negative, rel=1e-5)
        assert balanced.weights[known, i].mean() == pytest.approx(1, rel=1e-5)
        assert (balanced.weights[~known, i] == 0).all()


def test_balanced_multiclass() -> None:
    targets = classes([6, 3, 1])
    weights = class_balance(targets).weights
    assert [weights[targets.labels == i].sum() for i in range(3)] == pytest.approx([10 / 3] * 3)


def test_named_weights_of_findings_multiply_positives() -> None:
    made = training_targets(findings(), TABLE, np.arange(5), recipe(class_weights={"b": 4.0}))
    assert made.weights.tolist() == [[1, 0], [1, 4], [0, 1], [0, 0], [0, 0]]


def test_the_order_of_ordinal_classes() -> None:
    assert class_order(classes([2, 2, 2]), ("c", "a", "b")) == (2, 0, 1)
    assert class_order(classes([2, 2]), ()) == ()
    for wrong in (("a", "b"), ("a", "b", "b"), ("a", "b", "z")):
        with raises_code(TrainingError, "bad_order"):
            class_order(classes([2, 2, 2]), wrong)
    with raises_code(TrainingError, "no_classes"):
        class_order(findings(), ("a", "b"))


@pytest.mark.parametrize("change", [{"uncertain": {"z": "one"}}, {"class_weights": {"z": 2.0}}])
def test_names_that_the_labels_do_not_have_are_refused(change: dict) -> None:
    with raises_code(TrainingError, "unknown_finding", "z"):
        training_targets(findings(), TABLE, np.arange(5), recipe(**change))


def test_classes_have_no_uncertain_label() -> None:
    with raises_code(TrainingError, "no_uncertain_labels", "uncertain"):
        training_targets(
            classes([2, 2]), pd.DataFrame(), np.arange(4), recipe(uncertain={"*": "one"})
        )
