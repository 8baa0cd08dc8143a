"""Masks as label maps: readers of PNG, NIfTI, DICOM SEG and RTSTRUCT, the match with images, the
exact copy onto their grid, and the files of a WORK folder.

`joining` takes the steps: find, match, place, write. `prepare_label_map` then takes a label map to
the grid of a preset, in step with its image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.annotations.label_map import ClassNames, LabelMap
    from data_pipelines.annotations.preparation import prepare_label_map
    from data_pipelines.annotations.store import read_label_map

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.annotations.label_map": "ClassNames LabelMap",
        "data_pipelines.annotations.preparation": "prepare_label_map",
        "data_pipelines.annotations.store": "read_label_map",
    },
)
