"""Slices as volumes: the plane of a slice, what makes a regular series, resampling,
`read_volume`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.volumes.plane import Plane, plane_of, planes_of
    from data_pipelines.volumes.resampling import spacing_of
    from data_pipelines.volumes.series import Group, classify_spacing, group_planes, series_verdict
    from data_pipelines.volumes.slice_grid import Resampling
    from data_pipelines.volumes.volume import ACCEPTED, Volume, assemble, read_volume, read_volumes

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.volumes.plane": "Plane plane_of planes_of",
        "data_pipelines.volumes.resampling": "spacing_of",
        "data_pipelines.volumes.series": "Group classify_spacing group_planes series_verdict",
        "data_pipelines.volumes.slice_grid": "Resampling",
        "data_pipelines.volumes.volume": "ACCEPTED Volume assemble read_volume read_volumes",
    },
)
