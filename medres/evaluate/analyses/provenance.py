"""Where the numbers of a report come from: hashes of the inputs, versions, seeds."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from typing import Any

import numpy as np
import scipy

from medres.evaluate.metrics import calibration_curve
from medres.evaluate.options import ReportOptions
from medres.evaluate.schema import Provenance, TableSource
from medres.evaluate.scores.table import Table
from medres.evaluate.serialization import to_plain
from medres.evaluate.statistics import bootstrap


def provenance_of(
    table: Table,
    tune: Table | None,
    others: list[Table],
    options: ReportOptions,
    further: Mapping[str, Any] | None,
    disjoint_by: list[str],
) -> Provenance:
    """`created` and `test_openings` alone differ between two runs on the same input.

    further: what the caller adds, such as the hash of the model. disjoint_by: the levels (image,
    patient) at which the tuning table and the scores have nothing in common.
    """
    return Provenance(
        created=datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat(),
        scores=_source(table),
        tune=None if tune is None else replace(_source(tune), nothing_shared_by=disjoint_by),
        compared=[_source(other) for other in others],
        level=options.level,
        seeds={"bootstrap": bootstrap.SEED, "ici": calibration_curve.SEED},
        versions={
            "medres": _version("medres"),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        further=to_plain(further or {}),
    )


def _source(table: Table) -> TableSource:
    return TableSource(table.name, table.n_rows, table.sha256)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
