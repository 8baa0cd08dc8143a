"""The targets of training: uncertain labels by policy, classes by weight. Pure NumPy. The targets
of tuning and test do not change.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from data_pipelines.cache.tf_dataset import Targets
from medres.errors import TrainingError
from medres.tasks import task_named
from medres.training.config.recipe import Recipe

MISSING = -1.0  # a label that a masked loss or metric leaves out
POLICY_VALUES = {"zero": 0.0, "one": 1.0, "soft": 0.5}


def training_targets(
    targets: Targets, table: pd.DataFrame, rows: np.ndarray, recipe: Recipe
) -> Targets:
    """The targets with the recipe's policies and with its class weights at `rows`; other rows keep
    their weights.

    table: the manifest's rows in the order of the targets. Raises TrainingError where the recipe
        names a finding or class that the data do not have.
    """
    targets = with_uncertain(targets, table, recipe)
    if recipe.class_weights == "none":
        return targets
    part = targets.take(rows)
    weighted = (
        class_balance(part)
        if recipe.class_weights == "balanced"
        else named_weights(part, recipe.class_weights)
    )
    weights = targets.weights.copy()
    weights[rows] = weighted.weights
    return dataclasses.replace(targets, weights=weights)


def with_uncertain(targets: Targets, table: pd.DataFrame, recipe: Recipe) -> Targets:
    """The targets with labels of -1 replaced according to the recipe's policies."""
    _require_known(set(recipe.uncertain) - {"*"}, targets, "uncertain")
    if not recipe.uncertain:
        return targets
    task = task_named(targets.task)
    if not task.has_uncertain_labels:
        raise TrainingError(
            "recipe, field uncertain: classes have no uncertain labels; remove the field",
            code="no_uncertain_labels",
        )
    labels, weights = targets.labels.copy(), targets.weights.copy()
    columns = task.manifest_labels(targets.names)
    for i, (name, column) in enumerate(zip(targets.names, columns, strict=True)):
        policy = recipe.uncertain.get(name, recipe.uncertain.get("*", "ignore"))
        if policy != "ignore":
            uncertain = table[column].to_numpy(np.float64) == -1
            labels[uncertain, i] = POLICY_VALUES[policy] if isinstance(policy, str) else policy
            weights[uncertain, i] = 1.0
    return dataclasses.replace(targets, labels=labels, weights=weights)


def class_balance(targets: Targets) -> Targets:
    """The same targets with weights that give every class the same total weight, within each
    finding or over the classes.

    Missing labels keep weight 0, and the mean weight of the labelled cells is 1. A label between 0
    and 1 counts partly as positive and partly as negative.
    """
    if task_named(targets.task).exclusive:
        one_hot = np.eye(len(targets.names))[targets.labels] * targets.weights[:, None]
        weights = one_hot @ _inverse(one_hot.sum(axis=0))
    else:
        positive = targets.labels * targets.weights
        negative = (1 - targets.labels) * targets.weights
        totals = zip(positive.sum(axis=0), negative.sum(axis=0), strict=True)
        scale = np.stack([_inverse(np.array(pair)) for pair in totals])
        weights = positive * scale[:, 0] + negative * scale[:, 1]
    return dataclasses.replace(targets, weights=weights.astype(np.float32))


def named_weights(targets: Targets, factors: dict[str, float]) -> Targets:
    """The same targets with the weight of each named class, or of the positives of each named
    finding, multiplied by its factor.
    """
    _require_known(set(factors), targets, "class_weights")
    factor = np.array([factors.get(name, 1.0) for name in targets.names])
    if task_named(targets.task).exclusive:
        weights = targets.weights * factor[targets.labels]
    else:
        weights = targets.weights * (targets.labels * factor + (1 - targets.labels))
    return dataclasses.replace(targets, weights=weights.astype(np.float32))


def for_fit(targets: Targets) -> Targets:
    """Targets with the weight of each image, float32 (rows,), and with -1 for the missing labels of
    findings. The weight of an image is the mean over its labeled findings.
    """
    if task_named(targets.task).exclusive:
        return targets
    labeled = targets.weights > 0
    weights = targets.weights.sum(axis=1) / np.maximum(labeled.sum(axis=1), 1)
    labels = np.where(labeled, targets.labels, MISSING)
    return dataclasses.replace(
        targets, labels=labels.astype(np.float32), weights=weights.astype(np.float32)
    )


def class_order(targets: Targets, ordinal: tuple[str, ...]) -> tuple[int, ...]:
    """Output indices of the classes from lowest to highest; () for an empty `ordinal`. Raises
    TrainingError unless `ordinal` names each class once.
    """
    if not ordinal:
        return ()
    if not task_named(targets.task).exclusive:
        raise TrainingError(
            f"recipe, field ordinal: it is for classes, and the labels are {targets.task}; remove "
            f"the field",
            code="no_classes",
        )
    if sorted(ordinal) != sorted(targets.names):
        raise TrainingError(
            f"recipe, field ordinal: name each of {', '.join(targets.names)} once, from lowest to "
            f"highest; received {', '.join(ordinal)}",
            code="bad_order",
        )
    return tuple(targets.names.index(name) for name in ordinal)


def _require_known(names: set[str], targets: Targets, field: str) -> None:
    if unknown := sorted(names - set(targets.names)):
        raise TrainingError(
            f"recipe, field {field}: {', '.join(unknown)} is not among the labels: use the names "
            f"{', '.join(targets.names)}",
            code="unknown_finding",
        )


def _inverse(counts: np.ndarray) -> np.ndarray:
    """The weight of each class from its count; 0 for a class that does not occur."""
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * np.where(present, counts, 1)), 0.0)
