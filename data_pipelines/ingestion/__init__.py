"""From folders of files to a manifest: index, labels, patients, exclusions, splits, leakage audit
and summary.

`ingest` is the pipeline; `pipeline.build` calls the steps, which are the other files, in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.ingestion.manifest import SPLITS, Manifest
    from data_pipelines.ingestion.pipeline import ingest
    from data_pipelines.ingestion.test_access_log import log_test_access, read_openings

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.ingestion.manifest": "Manifest SPLITS",
        "data_pipelines.ingestion.pipeline": "ingest",
        "data_pipelines.ingestion.test_access_log": "log_test_access read_openings",
    },
)
