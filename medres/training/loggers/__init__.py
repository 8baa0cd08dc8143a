"""Where the metrics of a run go: TensorBoard, MLflow, and the training page (HTML)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.training.loggers.html import training_page, worst_images
    from medres.training.loggers.mlflow import MlflowLogger
    from medres.training.loggers.tensorboard import TensorBoardLogger

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.training.loggers.html": "training_page worst_images",
        "medres.training.loggers.mlflow": "MlflowLogger",
        "medres.training.loggers.tensorboard": "TensorBoardLogger",
    },
)
