"""Saliency maps: where a change of the image would change the score of a model, drawn on the
original image, and tests of whether such a map depends on the model at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.explain.saliency import METHODS, Explainer, saliency_map
    from medres.explain.sanity_checks import (
        Curves,
        deletion_insertion,
        rank_correlation_with_shuffled_weights,
    )

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.explain.saliency": "Explainer METHODS saliency_map",
        "medres.explain.sanity_checks": "Curves deletion_insertion "
        "rank_correlation_with_shuffled_weights",
        "medres.inference.study_saliency": "Saliency explain_study pictures",
    },
    needs_tensorflow=(
        "Explainer",
        "METHODS",
        "saliency_map",
        "Curves",
        "deletion_insertion",
        "rank_correlation_with_shuffled_weights",
    ),
)
