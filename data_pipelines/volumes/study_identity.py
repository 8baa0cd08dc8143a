"""Which study UIDs identify no study: the one rule that reading, ingest and the cache share."""

from __future__ import annotations

from collections.abc import Iterable

from data_pipelines.volumes.plane import Plane

#: fewer slices than this, each in a study of its own, may really be from several studies
MIN_STUDIES = 3


def series_of_unreliable_studies(planes: Iterable[Plane]) -> set[tuple[str, str]]:
    """(patient, series) of three or more slices in which each slice has a study UID of its own: a
    study UID that no two slices share does not identify a study, and cannot divide a series.

    Copies of a slice count once. Planes that are not slices are left out, see `Plane.is_slice`.
    """
    slices: dict[tuple[str, str], set[tuple[str, object]]] = {}
    for plane in planes:
        if plane.is_slice and plane.series:
            of_series = slices.setdefault((plane.patient, plane.series), set())
            of_series.add((plane.study, plane.position))
    return {
        series
        for series, pairs in slices.items()
        if len(pairs) >= MIN_STUDIES and len({study for study, _ in pairs}) == len(pairs)
    }
