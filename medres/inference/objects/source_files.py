"""The images of a prediction, read again for the objects that refer to them. Runs in a decode
worker, and loads no TensorFlow.
"""

from __future__ import annotations

from typing import NamedTuple

from pydicom.dataset import Dataset

from data_pipelines.dicom.reader import parse
from data_pipelines.errors import DicomError
from data_pipelines.runtime.storage import read_source
from data_pipelines.sources.image_source import file_format_of
from medres.errors import ResultError
from medres.results.identity import Content, content_of
from medres.results.source_study import source_study


class SourceFile(NamedTuple):
    """One image: its identity (see `content_of`), and its header with what objects take over."""

    content: Content
    header: Dataset


class SourceRequest(NamedTuple):
    """Paths or bytes of files, and the SOP Instance UIDs of the images that are wanted."""

    files: tuple[str | bytes, ...]
    sop_instance_uids: frozenset[str]


def read_sources(request: SourceRequest) -> list[SourceFile] | ResultError:
    """The images of a request, in the order of its files; files that are no DICOM images of it are
    left out. Returns ResultError (missing_attribute) for an image to which no object can refer,
    since a worker passes on the codes of DicomError alone. Raises DicomError.
    """
    try:
        return _sources(request)
    except ResultError as error:
        return error


def _sources(request: SourceRequest) -> list[SourceFile]:
    sources = []
    for file in request.files:
        data = file if isinstance(file, bytes) else read_source(file)
        if file_format_of(data) != "dicom":
            continue
        dataset = parse(data, pixels=False).dataset
        if str(dataset.get("SOPInstanceUID", "")) not in request.sop_instance_uids:
            continue
        content = content_of(data)
        header = source_study([dataset]).header(content[0])
        sources.append(SourceFile(content, header))
    if not sources:
        raise DicomError("none of the images is a DICOM file", code="no_dicom_image")
    return sources
