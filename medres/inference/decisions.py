"""From the probabilities of a study's images to one prediction: pooling, the decision at the frozen
threshold, and the conformal prediction set.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medres.artefact.card import SERVED, Card
from medres.errors import RefusedInput
from medres.tasks import task_named

CLASS = "class"  # the key of the decision and the set of a model of exclusive classes


def pooled(probabilities: np.ndarray, card: Card) -> dict[str, float]:
    """One probability per finding or class from those of the images (images, outputs): the largest,
    or the mean, as the card states.
    """
    values = probabilities.max(axis=0) if card.pooling == "max" else probabilities.mean(axis=0)
    return {name: float(value) for name, value in zip(card.names, values, strict=True)}


def decisions(probabilities: dict[str, float], card: Card) -> dict[str, bool | str]:
    """Finding -> whether its probability reaches the operating point `default`; for exclusive
    classes {"class": the most probable class}. A finding without such an operating point is left
    out.
    """
    if task_named(card.task).exclusive:
        return {CLASS: max(probabilities, key=probabilities.__getitem__)}
    return {
        name: probabilities[name] >= threshold
        for name, threshold in default_thresholds(card).items()
    }


def prediction_sets(
    probabilities: dict[str, float], card: Card
) -> dict[str, list[int] | list[str]]:
    """Finding -> the labels, of 0 and 1, in its prediction set; for exclusive classes {"class": the
    classes in the set}. A finding without a quantile for both labels has no set, and classes have
    none where one of them lacks its quantile: such a label could never be left out.

    A label is in the set if 1 - p(label) <= its quantile (label-conditional split conformal
    prediction, Vovk 2012): among patients like those of the tuning split, the true label is missing
    from the set with probability alpha at most. Of several alphas, the smallest counts.
    """
    if not card.conformal:
        return {}
    alpha = _alpha(card)
    quantiles = {(q.finding, q.label): q.quantile for q in card.conformal if q.alpha == alpha}
    if task_named(card.task).exclusive:
        if any((name, name) not in quantiles for name in card.names):
            return {}
        return {CLASS: [n for n, p in probabilities.items() if 1 - p <= quantiles[n, n]]}
    return {
        name: [label for label, apart in ((0, p), (1, 1 - p)) if apart <= quantiles[name, label]]
        for name, p in probabilities.items()
        if {(name, 0), (name, 1)} <= {*quantiles}
    }


def conformal_answer(probabilities: dict[str, float], card: Card) -> dict[str, Any] | None:
    """What `medres predict --json` says of the prediction sets: alpha, the sets, and the findings
    that are uncertain (several labels) or atypical (no label). None if the card offers no set.
    """
    sets = prediction_sets(probabilities, card)
    if not sets:
        return None
    return {
        "alpha": _alpha(card),
        "sets": sets,
        "uncertain": [name for name, labels in sets.items() if len(labels) > 1],
        "atypical": [name for name, labels in sets.items() if not labels],
    }


def unlike_training(distance: float | None, limit: float | None) -> RefusedInput | None:
    """The refusal (out_of_distribution) of a study whose greatest distance from the training images
    is above the limit of the card; None where it is not, or cannot be told.
    """
    if distance is None or limit is None or distance <= limit:
        return None
    return RefusedInput(
        f"an image is out of distribution: unlike the training images (distance {distance:.3g}, "
        f"limit {limit:.3g})",
        code="out_of_distribution",
    )


def describe(probabilities: dict[str, float], card: Card) -> str:
    """The prediction for one study as text, one part per finding:
    `covid: p = 0.812, threshold 0.820: negative (uncertain)`.

    "(uncertain)": the prediction set has both labels, or several classes. "(atypical)": it is
    empty.
    """
    sets = prediction_sets(probabilities, card)
    if task_named(card.task).exclusive:
        named = ", ".join(f"{name} {p:.3f}" for name, p in probabilities.items())
        return f"{named}: {decisions(probabilities, card)[CLASS]}{_uncertainty(sets.get(CLASS))}"
    thresholds = default_thresholds(card)
    parts = []
    for name, p in probabilities.items():
        text = f"{name}: p = {p:.3f}, no threshold"
        if name in thresholds:
            label = "positive" if p >= thresholds[name] else "negative"
            text = f"{name}: p = {p:.3f}, threshold {thresholds[name]:.3f}: {label}"
        parts.append(text + _uncertainty(sets.get(name)))
    return "; ".join(parts)


def _alpha(card: Card) -> float:
    return min(entry.alpha for entry in card.conformal)


def default_thresholds(card: Card) -> dict[str, float]:
    """Finding -> the threshold of its operating point `default`, in the order of the card."""
    with_default = {
        point.finding
        for point in card.operating_points
        if (point.name, point.unit) == ("default", SERVED)
    }
    return {name: card.threshold(name, unit=SERVED) for name in card.names if name in with_default}


def _uncertainty(labels: list[int] | list[str] | None) -> str:
    if labels is None or len(labels) == 1:
        return ""
    return " (uncertain)" if labels else " (atypical)"
