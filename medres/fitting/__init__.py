"""The Keras way: data sets for `Model.fit`, heads on backbones, and a model that was fitted by hand
as a medres file with the calibration, thresholds and checks that `medres.train` gives. What one
looks at while training: a batch as it enters the network, the images with the highest loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.fitting.adaptation import adapt
    from medres.fitting.batch_picture import BatchPicture, show_batch
    from medres.fitting.fit_data import Data, data
    from medres.fitting.history import HistoryPlot, plot_history
    from medres.fitting.saving import save
    from medres.fitting.scoring import score
    from medres.fitting.worst_losses import WorstLosses, worst

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.fitting.adaptation": "adapt",
        "medres.fitting.batch_picture": "BatchPicture show_batch",
        "medres.fitting.fit_data": "Data data",
        "medres.fitting.history": "HistoryPlot plot_history",
        "medres.fitting.saving": "save",
        "medres.fitting.scoring": "score",
        "medres.fitting.worst_losses": "WorstLosses worst",
    },
)
