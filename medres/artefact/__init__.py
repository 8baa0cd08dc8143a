"""The model file: the archive, its card, the checks before anything in it runs, the reference
outputs, and what the model was trained on.

This room may import models, data_pipelines and errors. Training writes artefacts; inference opens
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.artefact.archive import (
        Artefact,
        load,
        save,
        summary_hash,
        versions,
        with_probability,
    )
    from medres.artefact.card import SERVED, Calibration, Card, ConformalQuantile, OperatingPoint
    from medres.artefact.feature_distance import (
        FeatureGaussian,
        feature_tensors,
        fit_novelty,
        threshold_of,
    )
    from medres.artefact.orientation import (
        fit_orientation_model,
        orientation_ratios,
        thumbnails,
    )
    from medres.artefact.signature import require_signature
    from medres.artefact.training_domain import check_domain, domain_of, domain_violation, facts_of
    from medres.artefact.validation import CARD

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.artefact.archive": "Artefact load save summary_hash versions with_probability",
        "medres.artefact.card": "Calibration Card ConformalQuantile OperatingPoint SERVED",
        "medres.artefact.feature_distance": "FeatureGaussian feature_tensors fit_novelty "
        "threshold_of",
        "medres.artefact.orientation": "fit_orientation_model orientation_ratios thumbnails",
        "medres.artefact.signature": "require_signature",
        "medres.artefact.training_domain": "check_domain domain_of domain_violation facts_of",
        "medres.artefact.validation": "CARD",
    },
)
