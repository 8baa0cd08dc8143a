"""Where a model looked: saliency maps, drawn on the original picture, and what they are worth."""

from __future__ import annotations

from medres.explain.checks import Curves, deletion_insertion, rank_correlation_with_shuffled_weights
from medres.explain.maps import METHODS, Explainer, saliency_map
from medres.explain.studies import Saliency, explain_study, pictures

__all__ = [
    "METHODS",
    "Curves",
    "Explainer",
    "Saliency",
    "deletion_insertion",
    "explain_study",
    "pictures",
    "rank_correlation_with_shuffled_weights",
    "saliency_map",
]
