"""From logits to probabilities and decisions, on the tuning (validation) split: probability
calibration, conformal sets and thresholds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.training.calibration.finalize import (
        Finalized,
        after_calibration,
        calibrate,
        card_of,
        finalized,
    )
    from medres.training.calibration.scaling import identity

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.training.calibration.finalize": "Finalized after_calibration calibrate card_of "
        "finalized",
        "medres.training.calibration.scaling": "identity",
    },
)
