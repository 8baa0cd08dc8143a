"""From the probabilities of a study's images to one answer: pooled, decided at the frozen
threshold, with its conformal set.
"""

from __future__ import annotations

import numpy as np

from medres.artefact.card import SERVED, Card
from medres.tasks import task_named

CLASS = "class"  # the key of a multi-class decision


def pooled(probabilities: np.ndarray, card: Card) -> dict[str, float]:
    """One probability a finding or class from (images, outputs): the largest, or for classes the
    mean, as the card says.
    """
    values = probabilities.max(axis=0) if card.pooling == "max" else probabilities.mean(axis=0)
    return {name: float(value) for name, value in zip(card.names, values, strict=True)}


def decisions(named: dict[str, float], card: Card) -> dict[str, bool | str]:
    """finding -> whether its probability reaches the operating point `default`; or {"class": the
    most probable}.

    A finding for which training found no such point is left out.
    """
    if not task_named(card.task).has_thresholds:
        return {CLASS: max(named, key=named.__getitem__)}
    known = {p.finding for p in card.operating_points if (p.name, p.unit) == ("default", SERVED)}
    return {
        name: value >= card.threshold(name, unit=SERVED)
        for name, value in named.items()
        if name in known
    }


def prediction_sets(named: dict[str, float], card: Card) -> dict[str, list[int] | list[str]]:
    """finding -> the labels, of 0 and 1, that cannot be ruled out; or {"class": those classes}.
    Empty without quantiles.

    A label is in the set where 1 - p(label) <= its quantile (label-conditional split conformal
    prediction, Vovk 2012): among patients like those of the tuning split, the true label is missing
    from the set with probability alpha at most. Of several alphas the smallest counts.
    """
    if not card.conformal:
        return {}
    alpha = min(record.alpha for record in card.conformal)
    quantiles = {(r.finding, r.label): r.quantile for r in card.conformal if r.alpha == alpha}
    if task_named(card.task).exclusive:
        return {
            CLASS: [
                name for name, p in named.items() if 1 - p <= quantiles.get((name, name), np.inf)
            ]
        }
    return {
        name: [
            label
            for label, misfit in ((0, value), (1, 1 - value))
            if misfit <= quantiles.get((name, label), np.inf)
        ]
        for name, value in named.items()
    }
