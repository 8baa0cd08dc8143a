"""Saliency maps: where a change of the image would change the score of a model, drawn on the
original image, and tests of whether such a map depends on the model at all.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.explain.saliency import METHODS, Explainer, saliency_map
    from medres.explain.sanity_checks import (
        Curves,
        deletion_insertion,
        rank_correlation_with_shuffled_weights,
    )

__all__, _get, __dir__ = lazy_exports(
    __name__,
    {
        "medres.explain.saliency": "Explainer METHODS saliency_map",
        "medres.explain.sanity_checks": "Curves deletion_insertion "
        "rank_correlation_with_shuffled_weights",
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

_MOVED = ("Saliency", "explain_study", "pictures")  # to medres.inference, which stands above


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        return _get(name)
    warnings.warn(
        f"medres.explain.{name} has moved to medres.inference; the next version removes the old "
        f"name",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(importlib.import_module("medres.inference.study_saliency"), name)
