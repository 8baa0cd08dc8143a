"""medres: residual networks for medical images, from DICOM to a report and one Keras model.

Research use only; not a medical device. `import medres` loads no TensorFlow: each name is imported
when it is first used.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

from data_pipelines.runtime.lazy_exports import lazy_exports, redirect_modules

if TYPE_CHECKING:
    from medres import backbones, evaluate, experiments, losses, metrics
    from medres.backbones.model_summary import summary
    from medres.detection.decoding import decode
    from medres.evaluate.scores.scored import Scored
    from medres.fitting.adaptation import adapt
    from medres.fitting.batch_picture import show_batch
    from medres.fitting.fit_data import Data, data
    from medres.fitting.history import plot_history
    from medres.fitting.saving import save
    from medres.fitting.scoring import score
    from medres.fitting.worst_losses import worst
    from medres.inference.loading import load
    from medres.inference.prediction import Prediction
    from medres.inference.predictor import Predictor
    from medres.models.classification import classifier
    from medres.models.detection import detector
    from medres.models.segmentation import segmenter
    from medres.training.cross_validation.folds import CrossValidation, cross_validate
    from medres.training.rate_finder import RateSearch, find_learning_rate
    from medres.training.run import Run, train

__version__ = metadata.version("medres")

_PACKAGES = {
    "backbones": "medres.backbones",
    "evaluate": "medres.evaluate",
    "experiments": "medres.experiments",
    "losses": "medres.losses",
    "metrics": "medres.metrics",
    "study": "medres.experiments",  # its former name
}
_exported, _get, _ = lazy_exports(
    __name__,
    {
        "medres.backbones.model_summary": "summary",
        "medres.detection.decoding": "decode",
        "medres.evaluate.scores.scored": "Scored",
        "medres.fitting.adaptation": "adapt",
        "medres.fitting.batch_picture": "show_batch",
        "medres.fitting.fit_data": "Data data",
        "medres.fitting.history": "plot_history",
        "medres.fitting.saving": "save",
        "medres.fitting.scoring": "score",
        "medres.fitting.worst_losses": "worst",
        "medres.inference.loading": "load",
        "medres.inference.prediction": "Prediction",
        "medres.inference.predictor": "Predictor",
        "medres.models.classification": "classifier",
        "medres.models.detection": "detector",
        "medres.models.segmentation": "segmenter",
        "medres.training.cross_validation.folds": "CrossValidation cross_validate",
        "medres.training.rate_finder": "RateSearch find_learning_rate",
        "medres.training.run": "Run train",
    },
    needs_tensorflow=(
        "adapt",
        "classifier",
        "CrossValidation",
        "cross_validate",
        "Data",
        "data",
        "detector",
        "find_learning_rate",
        "plot_history",
        "RateSearch",
        "Run",
        "save",
        "score",
        "show_batch",
        "segmenter",
        "summary",
        "train",
        "worst",
    ),
)
__all__ = sorted([*_exported, *_PACKAGES])

redirect_modules(
    {
        "medres.card": "medres.artefact.card",
        "medres.domain": "medres.artefact.training_domain",
        "medres.export": "medres.inference.exporting",
        "medres.loading": "medres.inference.loading",
        "medres.model": "medres.models.classification",
        "medres.parity": "medres.inference.parity_report",
        "medres.predict": "medres.inference.predictor",
        "medres.scoring": "medres.inference.scoring",
        "medres.training.fit": "medres.training.run",
        "medres.training.folds": "medres.training.cross_validation.folds",
        "medres.training.recipes": "medres.training.config.recipe",
        "medres.training.settings": "medres.training.config.options",
        "medres.views": "medres.models.test_time_augmentation",
    }
)
redirect_modules({"medres.study": "medres.experiments"}, deprecated=False)


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(_PACKAGES[name])
    return _get(name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
