"""What watches a run: the monitor that chooses the saved epoch, Keras metrics on the tuning
(validation) split, and Keras callbacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.training.monitoring.best_epoch import LOSS, Monitor, monitor_named
    from medres.training.monitoring.callback_hooks import CallbackHooks, check_callbacks
    from medres.training.monitoring.split_metrics import SplitMetrics

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.training.monitoring.best_epoch": "LOSS Monitor monitor_named",
        "medres.training.monitoring.callback_hooks": "CallbackHooks check_callbacks",
        "medres.training.monitoring.split_metrics": "SplitMetrics",
    },
)
