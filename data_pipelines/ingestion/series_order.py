"""The order of slices in their series, the verdict on the series, and how much of a volume would be
interpolated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.errors import DicomError
from data_pipelines.kinds import kinds_with_series
from data_pipelines.pixels.standardization import standards_of_groups
from data_pipelines.volumes.series import Group, group_planes, series_verdict
from data_pipelines.volumes.slice_grid import Resampling
from data_pipelines.volumes.volume import ACCEPTED, grid_of

#: columns of the manifest about the volume that a slice would be part of, where there are slices
VOLUME_COLUMNS: Mapping[str, str] = {
    "interpolated_share": "float64",
    "gap_mm": "float64",
    "gap_slices": "int32",
    "volume_exclusion": "str",
}
#: columns of slices of volumes that are standardized: mean and standard deviation of the volume
STANDARD_COLUMNS = ("volume_mean", "volume_deviation")
_LIMITS = Resampling()
_NAMED_SERIES = 3


def in_series_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `order`, the index of each slice along the normal of its series, and `verdict` (see
    volumes.series). Images of a kind without series get 0 and SINGLE.

    Where a row is a slice, also VOLUME_COLUMNS, of the volume that a preset with the default limits
    would make of its group: `interpolated_share` (0..1; missing where it would make none), the
    longest gap in `gap_mm` and in missing `gap_slices`, and `volume_exclusion`, the code of the
    limit that is exceeded (gap_too_large, too_interpolated), else ''. Slices with `moments` also
    have STANDARD_COLUMNS.
    """
    is_slice = rows["kind"].isin(kinds_with_series())
    order = pd.Series(0, index=rows.index)
    verdict = pd.Series("SINGLE", index=rows.index, dtype=object)
    columns = pd.DataFrame(
        {"interpolated_share": np.nan, "gap_mm": 0.0, "gap_slices": 0, "volume_exclusion": ""},
        index=rows.index,
    )
    has_moments = "moments" in rows
    standard = pd.DataFrame(np.nan, rows.index, list(STANDARD_COLUMNS))
    for _, series in rows[is_slice].groupby("series"):
        groups = group_planes(
            [replace(plane, source_index=n) for n, plane in enumerate(series["plane"])]
        )
        numbers = [[plane.source_index for plane in group.planes] for group in groups]
        sorted_rows = series.index[[n for group in numbers for n in group]]
        order[sorted_rows] = np.arange(len(sorted_rows))
        verdict[sorted_rows] = series_verdict(groups)
        for group, members in zip(groups, numbers, strict=True):
            columns.loc[series.index[members], list(VOLUME_COLUMNS)] = _volume_of(group)
        if has_moments and series["moments"].notna().all():
            standards = standards_of_groups(groups, list(series["moments"]))
            for n, found in standards.items():
                if not isinstance(found, DicomError):
                    standard.loc[series.index[n]] = list(found)
    rows = rows.assign(order=order, verdict=verdict)
    rows = rows.join(standard) if has_moments else rows
    return rows.join(columns.astype(dict(VOLUME_COLUMNS))) if is_slice.any() else rows


def _volume_of(group: Group) -> tuple[float, float, int, str]:
    """The values of VOLUME_COLUMNS for one group."""
    if group.verdict not in ACCEPTED["resample"]:
        return np.nan, 0.0, 0, ""
    if group.verdict in ACCEPTED["reject"]:  # it is taken as it is
        return 0.0, 0.0, 0, ""
    grid = grid_of(group, _LIMITS)
    return grid.interpolated_share, grid.gap_mm, grid.gap_slices, grid.refusal(_LIMITS)


def volume_counts(images: pd.DataFrame) -> dict[str, Any]:
    """Return, for ingest.json: how many volumes have interpolated slices, the greatest share, the
    longest gap, and how many a preset with the default limits leaves out, by code. {} without
    slices.
    """
    if "interpolated_share" not in images:
        return {}
    volumes = _volumes(images)
    excluded = volumes["volume_exclusion"].value_counts().sort_index()
    return {
        "interpolated": int((volumes["interpolated_share"] > 0).sum()),
        "max_interpolated_share": round(
            float(np.nan_to_num(volumes["interpolated_share"]).max()), 4
        ),
        "max_gap_mm": round(float(volumes["gap_mm"].max()), 3),
        "max_gap_slices": int(volumes["gap_slices"].max()),
        "excluded": {str(code): int(count) for code, count in excluded.items() if code},
    }


def gap_warnings(images: pd.DataFrame) -> list[str]:
    """Return one sentence about volumes with interpolated slices and one about those beyond the
    limits; [] where there are none.
    """
    counts = volume_counts(images)
    if not counts or not counts["interpolated"]:
        return []
    volumes = _volumes(images).sort_values("interpolated_share", ascending=False, kind="stable")
    volumes = volumes[volumes["interpolated_share"] > 0]
    warnings = [
        f"{counts['interpolated']} volumes would have interpolated slices, up to "
        f"{counts['max_interpolated_share']:.0%} of a volume; the largest gap is "
        f"{counts['max_gap_mm']:.1f} mm ({counts['max_gap_slices']} slices). Series: "
        f"{_names(volumes)}; see interpolated_share in the manifest"
    ]
    if counts["excluded"]:
        codes = ", ".join(f"{code} {count}" for code, count in counts["excluded"].items())
        beyond = volumes[volumes["volume_exclusion"] != ""]
        warnings.append(
            f"{len(beyond)} of these exceed the limits ({_LIMITS.max_gap_mm:g} mm, "
            f"{_LIMITS.max_gap_slices} slices, {_LIMITS.max_interpolated:.0%} interpolated) and "
            f"are left out by presets for volumes unless a limit is raised: {codes}. Series: "
            f"{_names(beyond)}"
        )
    return warnings


def _volumes(images: pd.DataFrame) -> pd.DataFrame:
    """One row per volume: the slices of a series that have the same VOLUME_COLUMNS."""
    return images[["series", *VOLUME_COLUMNS]].drop_duplicates()


def _names(volumes: pd.DataFrame) -> str:
    names = list(dict.fromkeys(volumes["series"]))
    return ", ".join(names[:_NAMED_SERIES]) + " ..." * (len(names) > _NAMED_SERIES)
