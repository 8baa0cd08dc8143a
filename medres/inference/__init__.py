"""The saved model in use: prediction for a study or for folders of studies, scoring of a split,
exports to other runtimes, and the check that all of them give the same probabilities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.inference.batch import predict_all
    from medres.inference.exporting import export
    from medres.inference.loading import load
    from medres.inference.prediction import Prediction
    from medres.inference.predictor import Predictor
    from medres.inference.scoring import score_split
    from medres.inference.sliding_windows import sliding_window
    from medres.inference.study_saliency import Saliency, explain_study, pictures
    from medres.runtimes.formats import FORMATS

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.inference.batch": "predict_all",
        "medres.inference.exporting": "export",
        "medres.inference.loading": "load",
        "medres.inference.prediction": "Prediction",
        "medres.inference.predictor": "Predictor",
        "medres.inference.scoring": "score_split",
        "medres.inference.sliding_windows": "sliding_window",
        "medres.inference.study_saliency": "Saliency explain_study pictures",
        "medres.runtimes.formats": "FORMATS",
    },
)
