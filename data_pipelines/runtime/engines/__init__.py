"""Engines: where the parts of a long task are computed, in the workers of this machine or by tasks
on a Ray cluster. An engine only distributes; the functions that compute parts are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.runtime.engines.engine import LOCAL, Engine, map_files
    from data_pipelines.runtime.engines.opening import opened_engine

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.runtime.engines.engine": "LOCAL Engine map_files",
        "data_pipelines.runtime.engines.opening": "opened_engine",
    },
)
