"""What training makes of the labels: uncertain ones by policy, classes by weight. Pure numpy;
tuning and test are untouched.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from data_pipelines.cache.tf_dataset import Targets
from medres.errors import TrainingError
from medres.training.config.recipe import Recipe

TARGET = {"zero": 0.0, "one": 1.0, "soft": 0.5}


def training_targets(
    targets: Targets, table: pd.DataFrame, rows: np.ndarray, chosen: Recipe
) -> Targets:
    """The targets with the recipe's policies and class weights at `rows`; the others keep theirs.

    table: the manifest's rows in the order of the targets. Raises TrainingError where the recipe
        names what the data do not hold.
    """
    made = with_uncertain(targets, table, chosen)
    if chosen.class_weights == "none":
        return made
    part = made.take(rows)
    weighted = (
        class_balance(part)
        if chosen.class_weights == "balanced"
        else named_weights(part, chosen.class_weights)
    )
    weights = made.weights.copy()
    weights[rows] = weighted.weights
    return Targets(made.task, made.names, made.labels, weights)


def with_uncertain(targets: Targets, table: pd.DataFrame, chosen: Recipe) -> Targets:
    """The targets with labels of -1 as the recipe's policies say."""
    _require_known(set(chosen.uncertain) - {"*"}, targets, "uncertain")
    if targets.task == "multiclass" and chosen.uncertain:
        raise TrainingError(
            "recipe, field uncertain: classes have no uncertain label; leave the field out"
        )
    labels, weights = targets.labels.copy(), targets.weights.copy()
    for i, name in enumerate(targets.names if targets.task != "multiclass" else ()):
        policy = chosen.uncertain.get(name, chosen.uncertain.get("*", "ignore"))
        if policy != "ignore":
            doubtful = table[f"label:{name}"].to_numpy(np.float64) == -1
            labels[doubtful, i] = TARGET[policy] if isinstance(policy, str) else policy
            weights[doubtful, i] = 1.0
    return Targets(targets.task, targets.names, labels, weights)


def class_balance(targets: Targets) -> Targets:
    """The same targets with weights so that, within each finding (or over the classes), every class
    counts alike.

    Missing labels keep weight 0, and the mean weight of the labelled cells is 1. A label between 0
    and 1 counts in part for both.
    """
    if targets.task == "multiclass":
        one_hot = np.eye(len(targets.names))[targets.labels] * targets.weights[:, None]
        weights = one_hot @ _inverse(one_hot.sum(axis=0))
    else:
        positive = targets.labels * targets.weights
        negative = (1 - targets.labels) * targets.weights
        scale = np.stack(
            [
                _inverse(np.array(pair))
                for pair in zip(positive.sum(axis=0), negative.sum(axis=0), strict=True)
            ]
        )
        weights = positive * scale[:, 0] + negative * scale[:, 1]
    return Targets(targets.task, targets.names, targets.labels, weights.astype(np.float32))


def named_weights(targets: Targets, wanted: dict[str, float]) -> Targets:
    """The same targets with the weight of each named class, or of each named finding's positives,
    multiplied.
    """
    _require_known(set(wanted), targets, "class_weights")
    factor = np.array([wanted.get(name, 1.0) for name in targets.names])
    if targets.task == "multiclass":
        weights = targets.weights * factor[targets.labels]
    else:
        weights = targets.weights * (targets.labels * factor + (1 - targets.labels))
    return Targets(targets.task, targets.names, targets.labels, weights.astype(np.float32))


def class_order(targets: Targets, wanted: tuple[str, ...]) -> tuple[int, ...]:
    """Output numbers of the classes from lowest to highest. Raises TrainingError unless `wanted`
    names each class once.
    """
    if not wanted:
        return ()
    if targets.task != "multiclass" or sorted(wanted) != sorted(targets.names):
        raise TrainingError(
            f"recipe, field ordinal: name each of {', '.join(targets.names)} once, from lowest to "
            f"highest; "
            f"received {', '.join(wanted)}"
            + (
                ""
                if targets.task == "multiclass"
                else f". The labels are {targets.task}, not classes"
            )
        )
    return tuple(targets.names.index(name) for name in wanted)


def _require_known(names: set[str], targets: Targets, field: str) -> None:
    if unknown := sorted(names - set(targets.names)):
        raise TrainingError(
            f"recipe, field {field}: {', '.join(unknown)} is none of {', '.join(targets.names)}: "
            f"write it as in the labels"
        )


def _inverse(counts: np.ndarray) -> np.ndarray:
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * np.where(present, counts, 1)), 0.0)
