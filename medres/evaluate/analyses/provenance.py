"""Where the numbers of a report come from: hashes of the inputs, versions, seeds."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any, TypedDict

import numpy as np
import scipy

from medres.evaluate.metrics import calibration_curve
from medres.evaluate.options import ReportOptions
from medres.evaluate.schema import Provenance, TableSource
from medres.evaluate.scores.ids import count_similar
from medres.evaluate.scores.table import LEVELS, Table
from medres.evaluate.serialization import to_plain
from medres.evaluate.statistics import bootstrap


def provenance_of(
    table: Table,
    tune: Table | None,
    compared: list[TableSource],
    options: ReportOptions,
    further: Mapping[str, Any] | None,
    disjoint_by: list[str],
    not_comparable: dict[str, str],
) -> Provenance:
    """`created` and `test_openings` alone differ between two runs on the same input.

    further: what the caller adds, such as the hash of the model. disjoint_by: the levels (image,
    patient) at which the tuning table and the scores have nothing in common. not_comparable: the
    levels at which this cannot be said, with the reason.
    """
    made = made_now()
    return Provenance(
        created=made["created"],
        scores=table_source(table),
        tune=None if tune is None else table_source(tune, disjoint_by, not_comparable),
        compared=compared,
        level=options.level,
        seeds={"bootstrap": bootstrap.SEED, "ici": calibration_curve.SEED},
        versions=made["versions"],
        further=to_plain(further or {}),
    )


class Made(TypedDict):
    """When a report was made, and by what."""

    created: str
    versions: dict[str, str | None]


def made_now() -> Made:
    """The time in UTC, and the versions of medres, Python, NumPy and SciPy."""
    return {
        "created": datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat(),
        "versions": {
            "medres": _version("medres"),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
    }


def table_source(
    table: Table,
    disjoint_by: list[str] | None = None,
    not_comparable: dict[str, str] | None = None,
) -> TableSource:
    """What the report says about a table; disjoint_by, not_comparable: as in `TableSource`."""
    counts = {
        level: count_similar(table.columns[level]) for level in LEVELS if level in table.columns
    }
    similar = {level: count for level, count in counts.items() if count}
    return TableSource(
        table.name,
        table.n_rows,
        table.sha256,
        disjoint_by,
        not_comparable or None,
        similar or None,
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
