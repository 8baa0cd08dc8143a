"""The index of the files: every file is inspected once in an isolated worker. The files are cut
into parts, whose answers are kept until the ingest is complete: a run that was killed resumes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.ingestion.index.entries import IDENTIFIERS, FileIndex, RejectedFile
    from data_pipelines.ingestion.index.files import index_sources

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.ingestion.index.entries": "FileIndex IDENTIFIERS RejectedFile",
        "data_pipelines.ingestion.index.files": "index_sources",
    },
)
