"""Services of the machine: limits, isolated workers, atomic files, folder walks, whether TensorFlow
is installed.

Imports nothing from the other rooms except the errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.runtime.atomic_files import (
        csv_bytes,
        file_sha256,
        require_new,
        staged_folder,
        sync_folder,
        write_atomic,
    )
    from data_pipelines.runtime.backend import require_tensorflow
    from data_pipelines.runtime.csv_cells import escape_formula
    from data_pipelines.runtime.lazy_exports import redirect_modules
    from data_pipelines.runtime.limits import active_limits, limited, parse_limits
    from data_pipelines.runtime.walk import Walk, walk_files
    from data_pipelines.runtime.worker_pool import ProgressCallback, map_isolated

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.runtime.atomic_files": "csv_bytes file_sha256 require_new "
        "staged_folder sync_folder write_atomic",
        "data_pipelines.runtime.backend": "require_tensorflow",
        "data_pipelines.runtime.csv_cells": "escape_formula",
        "data_pipelines.runtime.lazy_exports": "redirect_modules",
        "data_pipelines.runtime.limits": "active_limits limited parse_limits",
        "data_pipelines.runtime.walk": "Walk walk_files",
        "data_pipelines.runtime.worker_pool": "ProgressCallback map_isolated",
    },
)
