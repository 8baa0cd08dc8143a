"""medres: residual networks for medical images, from DICOM files to a diagnostic report and one portable Keras model.

Research use only; not a medical device. `import medres` loads no TensorFlow: each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medres import backbones, evaluate, study
    from medres.backbones.accounting import summary
    from medres.loading import load
    from medres.model import classifier
    from medres.predict import Prediction, Predictor
    from medres.training.fit import Run, train
    from medres.training.folds import CrossValidation, cross_validate

__version__ = metadata.version("medres")
__all__ = [
    "CrossValidation",
    "Prediction",
    "Predictor",
    "Run",
    "backbones",
    "classifier",
    "cross_validate",
    "evaluate",
    "load",
    "study",
    "summary",
    "train",
]

_HOME = {
    "classifier": "medres.model",
    "summary": "medres.backbones.accounting",
    "Prediction": "medres.predict",
    "Predictor": "medres.predict",
    "load": "medres.loading",
    "Run": "medres.training.fit",
    "train": "medres.training.fit",
    "CrossValidation": "medres.training.folds",
    "cross_validate": "medres.training.folds",
}


def __getattr__(name: str) -> Any:
    if name in ("backbones", "evaluate", "study"):
        return importlib.import_module(f"medres.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'medres' has no attribute {name!r}")
    if name in ("classifier", "summary") or _HOME[name].startswith("medres.training"):
        from data_pipelines.backend import require_tensorflow

        require_tensorflow()
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
