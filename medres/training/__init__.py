"""Training: data, models, losses, the training loop with its checkpoints, and the run that ends in
a model file. Public: `train` and `Run`; the other names are for cross-validation and inference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.training.data import (
        CompiledModel,
        ScoredImages,
        TrainingData,
        conformal_holdout,
        load_data,
        min_patients_for_quantile,
        tuning_holdout,
    )
    from medres.training.input_statistics import with_input_statistics
    from medres.training.losses import image_losses
    from medres.training.network import rebuild_on
    from medres.training.run import Run, train
    from medres.training.tuning_metrics import probabilities, units_auc

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.training.data": "CompiledModel ScoredImages TrainingData conformal_holdout "
        "load_data min_patients_for_quantile tuning_holdout",
        "medres.training.input_statistics": "with_input_statistics",
        "medres.training.losses": "image_losses",
        "medres.training.network": "rebuild_on",
        "medres.training.run": "Run train",
        "medres.training.tuning_metrics": "probabilities units_auc",
    },
)
