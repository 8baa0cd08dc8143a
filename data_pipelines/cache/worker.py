"""What a decode worker does for a cache: planes of a file, and prepared integers of a few samples.
Loads neither pandas nor TensorFlow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from data_pipelines.cache.annotations import AnnotationSource, prepare_annotated
from data_pipelines.dicom.header import Header, header_of
from data_pipelines.dicom.reader import parse
from data_pipelines.errors import CacheError
from data_pipelines.pixels.image import Image, image_of
from data_pipelines.pixels.standardization import Standard, standardized
from data_pipelines.preprocessing.samples import SampleSlices, prepare_samples
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.runtime.object_stores import joined
from data_pipelines.runtime.storage import read_file
from data_pipelines.sources.image_source import file_format_of, read_row
from data_pipelines.sources.nifti import nifti_planes
from data_pipelines.volumes.plane import Plane, planes_of


class FileRef(NamedTuple):
    """Where one image of the manifest lies: one row of it. path is relative to source; sha256 is
    that of the file when it was ingested. standard: mean and standard deviation of its volume, of a
    kind whose volumes are standardized.
    """

    source: str
    path: str
    frame: int
    file_format: str
    kind: str
    sha256: str
    standard: Standard | None = None


@dataclass(frozen=True)
class WorkItem:
    """Samples that one worker prepares together; their slice indices are indices into `files`.
    annotations: label maps or boxes of the files, where they are stored too.
    """

    files: tuple[FileRef, ...]
    samples: tuple[SampleSlices, ...]
    spec: PreprocessSpec
    annotations: AnnotationSource | None = None


def read_planes(path: str) -> list[Plane]:
    """Planes of the frames of a DICOM file, or of the slices of a NIfTI file. Runs in a worker."""
    if file_format_of(path) == "nifti":
        return nifti_planes(path)
    parsed = parse(path, pixels=False)
    return planes_of(parsed.dataset, header_of(parsed), 0)


def prepare_files(item: WorkItem) -> list[tuple[np.ndarray, ...]]:
    """Prepared integers (*spec.prepared_shape) of each sample of one work item, followed by its
    annotation if the item has any; a file is parsed once for all its frames. Runs in a worker.

    Raises CacheError (code source_changed) if a file is not the one that was ingested, and the
    errors of `prepare_annotated`.
    """
    planes = planes_of_files(item.files) if item.spec.layout == "volume" else []
    read = image_reader(item.files)
    if item.annotations is not None:
        return list(prepare_annotated(item.samples, planes, read, item.spec, item.annotations))
    return [(pixels,) for pixels in prepare_samples(item.samples, planes, read, item.spec)]


def planes_of_files(files: Sequence[FileRef]) -> list[Plane]:
    """The plane of each image, from the headers. Raises DicomError if a header cannot be read."""
    planes_of_file = lru_cache(maxsize=1)(read_planes)
    return [planes_of_file(joined(f.source, f.path))[f.frame] for f in files]


def image_reader(files: Sequence[FileRef]) -> Callable[[int], Image]:
    """A function that reads the image of an index into `files`; a file is parsed once for all its
    frames, if they follow one another. It raises CacheError (code source_changed) if a file is not
    the one that was ingested.
    """
    opened = lru_cache(maxsize=1)(_opened)

    def read(index: int) -> Image:
        file = files[index]
        if file.file_format == "dicom":
            dataset, header = opened(joined(file.source, file.path), file.sha256)
            image = image_of(dataset, header, file.frame, digest=False, color="luminance")
            return image if file.standard is None else standardized(image, file.standard)
        return read_row(
            file.source,
            file.path,
            file.frame,
            file_format=file.file_format,
            kind=file.kind,
            sha256=file.sha256,
            standard=file.standard,
        )

    return read


def _opened(path: str, digest: str) -> tuple[Dataset, Header]:
    data = read_file(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise CacheError(
            "a source file changed since it was ingested: run medres ingest again, into a new "
            "folder",
            code="source_changed",
        )
    parsed = parse(data, pixels=True)
    return parsed.dataset, header_of(parsed)
