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
    """One image: its number in the request, its identity (see `content_of`; None where it was not
    asked for), and its header with what objects take over.
    """

    number: int
    content: Content | None
    header: Dataset


class SourceRequest(NamedTuple):
    """Paths or bytes of files, and the SOP Instance UIDs of the images that are wanted; None: of
    all files that can be read and are images. has_contents: whether their identity is computed.
    """

    files: tuple[str | bytes, ...]
    sop_instance_uids: frozenset[str] | None
    has_contents: bool = True


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
    for number, file in enumerate(request.files):
        try:
            source = _source(request, number, file)
        except DicomError:
            if request.sop_instance_uids is not None:
                raise
            continue
        if source is not None:
            sources.append(source)
    if not sources:
        raise DicomError("none of the images is a DICOM file", code="no_dicom_image")
    return sources


def _source(request: SourceRequest, number: int, file: str | bytes) -> SourceFile | None:
    data = file if isinstance(file, bytes) else read_source(file)
    if file_format_of(data) != "dicom":
        return None
    dataset = parse(data, pixels=False).dataset
    uid, wanted = str(dataset.get("SOPInstanceUID", "")), request.sop_instance_uids
    is_wanted = uid in wanted if wanted is not None else _is_image(dataset)
    if not is_wanted:
        return None
    header = source_study([dataset]).header(uid)
    return SourceFile(number, content_of(data) if request.has_contents else None, header)


def _is_image(dataset: Dataset) -> bool:
    return bool(dataset.get("Rows") and dataset.get("Columns"))
