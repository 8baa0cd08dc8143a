"""Training: data, network, losses, the exact loop with its checkpoints, and the run that ends in an
artefact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.training.data import (
        POOL,
        CompiledModel,
        ScoredImages,
        TrainingData,
        conformal_holdout,
        fewest,
        load_data,
        tuning_holdout,
    )
    from medres.training.input_statistics import with_known
    from medres.training.losses import image_losses
    from medres.training.network import rebuild_on
    from medres.training.run import Run, train
    from medres.training.tuning_metrics import probabilities, units_auc

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.training.data": "CompiledModel POOL ScoredImages TrainingData conformal_holdout "
        "fewest load_data tuning_holdout",
        "medres.training.input_statistics": "with_known",
        "medres.training.losses": "image_losses",
        "medres.training.network": "rebuild_on",
        "medres.training.run": "Run train",
        "medres.training.tuning_metrics": "probabilities units_auc",
    },
)
