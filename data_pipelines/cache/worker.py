"""What a decode worker does for a cache: planes of a file, and prepared integers of a few records.
Loads neither pandas nor TensorFlow.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from data_pipelines.dicom.header import Header, header_of
from data_pipelines.dicom.reader import parse
from data_pipelines.errors import CacheError
from data_pipelines.pixels.image import Image, image_of
from data_pipelines.preprocessing.samples import SampleSlices, prepare_units
from data_pipelines.preprocessing.spec import spec_from
from data_pipelines.sources.image_source import read_row
from data_pipelines.volumes.plane import Plane, planes_of

File = tuple[str, str, int, str, str, str]  # source, path, frame, form, kind, SHA-256
Item = tuple[
    tuple[File, ...], tuple[tuple[int, ...], ...], dict
]  # files, units of places among them, spec


def read_planes(path: str) -> list[Plane]:
    """Planes of a file's frames; run in a worker."""
    parsed = parse(path, pixels=False)
    return planes_of(parsed.dataset, header_of(parsed), 0)


def prepare_files(item: Item) -> list[np.ndarray]:
    """Prepared integers of one item, one array a unit; a file is parsed once for all its frames.
    Runs in a worker.

    Raises CacheError where a file is not the one that was ingested.
    """
    files, units, spec = item
    known, opened = lru_cache(maxsize=1)(read_planes), lru_cache(maxsize=1)(_opened)
    volume = spec["form"] == "volume"
    planes = (
        [known(str(Path(source) / path))[frame] for source, path, frame, *_ in files]
        if volume
        else []
    )

    def read(n: int) -> Image:
        source, path, frame, form, kind, digest = files[n]
        if form == "dicom":
            return image_of(*opened(Path(source) / path, digest), frame, digest=False)
        return read_row(source, path, frame, file_format=form, kind=kind, sha256=digest)

    return list(
        prepare_units([SampleSlices(members) for members in units], planes, read, spec_from(spec))
    )


def _opened(path: Path, digest: str) -> tuple[Dataset, Header]:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise CacheError(
            "a source file changed since it was ingested: run medres ingest again, into a new "
            "folder"
        )
    parsed = parse(data, pixels=True)
    return parsed.dataset, header_of(parsed)
