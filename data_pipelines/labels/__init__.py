"""Labels of images: the labels table, several raters, labels inside files and folders, and the join
with the images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.labels.csv_reader import read_csv
    from data_pipelines.labels.embedded import array_labels, folder_labels
    from data_pipelines.labels.join import join_labels
    from data_pipelines.labels.raters import Readers
    from data_pipelines.labels.table import (
        Labels,
        canonical_column,
        metadata_columns,
        normalise_key,
        read_labels,
    )

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.labels.csv_reader": "read_csv",
        "data_pipelines.labels.embedded": "array_labels folder_labels",
        "data_pipelines.labels.join": "join_labels",
        "data_pipelines.labels.raters": "Readers",
        "data_pipelines.labels.table": "Labels canonical_column metadata_columns normalise_key "
        "read_labels",
    },
)
