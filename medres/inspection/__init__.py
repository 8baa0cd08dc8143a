"""Inspection before training: what this machine supports (`medres doctor`), and what a work folder
contains (`medres inspect`). Nothing here trains or changes data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.inspection.augmentation_preview import augmentation_section
    from medres.inspection.dataset_report import inspect
    from medres.inspection.environment import examine

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.inspection.augmentation_preview": "augmentation_section",
        "medres.inspection.dataset_report": "inspect",
        "medres.inspection.environment": "examine",
    },
)
