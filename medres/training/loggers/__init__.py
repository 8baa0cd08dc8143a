"""What a run writes for people: TensorBoard events, MLflow, the training page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.training.loggers.html import training_page, worst_images
    from medres.training.loggers.mlflow import Tracked
    from medres.training.loggers.tensorboard import Events

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.training.loggers.html": "training_page worst_images",
        "medres.training.loggers.mlflow": "Tracked",
        "medres.training.loggers.tensorboard": "Events",
    },
)
