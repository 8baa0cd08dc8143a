"""The sources of a request as paths and bytes, which travel to a decode worker. Nothing is decoded
here.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, get_args

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from data_pipelines.dicom.reader import (
    PARSER_ERRORS,
    DicomSource,
    silence_pydicom,
    transfer_syntax_of,
)
from data_pipelines.errors import LimitExceeded, Unreadable
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.walk import walk_files


def files_of(source: DicomSource) -> list[Any]:
    """The files below a folder, in a fixed order; any other source unchanged, as the only element.
    Raises TypeError for a value that is not a source.
    """
    if not isinstance(source, get_args(DicomSource)):
        raise TypeError(
            f"a study is a path, the bytes of a file, a pydicom Dataset or a list of these; "
            f"received {type(source).__name__}. For an open file or a stream, pass the result of "
            f"its read()."
        )
    if isinstance(source, bytearray | memoryview):
        return [bytes(source)]  # a buffer may change; a raster image is identified by its hash
    if isinstance(source, str | Path) and Path(source).is_dir():
        walk = walk_files(source)
        return [walk.root / file for file in walk.files]
    return [source]


def portable(source: DicomSource) -> str | bytes:
    """An absolute path, or the bytes of a file; of a pydicom Dataset, its encoding as a file.

    Raises LimitExceeded for bytes above the limit of file size, Unreadable for a data set that
    cannot be encoded and for a path that is neither a file nor missing, such as a pipe.
    """
    if isinstance(source, str | Path):
        path = Path(source).absolute()
        if path.exists() and not path.is_file():
            raise Unreadable("The path is a pipe, a socket or a device, not a file.")
        return str(path)
    data = _encoded(source) if isinstance(source, Dataset) else bytes(source)
    if len(data) > active_limits().file:
        raise LimitExceeded(
            f"The file has {len(data)} bytes; the limit is {active_limits().file}. Split the file, "
            f"or exclude it."
        )
    return data


def _encoded(dataset: Dataset) -> bytes:
    """The data set in the DICOM file format; it stays as it is."""
    meta, copy, buffer = FileMetaDataset(), Dataset(dataset), BytesIO()
    implicit, little = dataset.original_encoding
    try:
        with silence_pydicom():
            meta.update(getattr(dataset, "file_meta", None) or {})
            meta.TransferSyntaxUID = UID(transfer_syntax_of(dataset))
            meta.FileMetaInformationGroupLength = 0  # is computed where it is present
            copy.file_meta, copy.preamble = meta, b"\0" * 128
            copy.set_original_encoding(implicit, little, dataset.original_character_set)
            dcmwrite(buffer, copy)
    except PARSER_ERRORS as error:
        raise Unreadable(
            f"The data set cannot be encoded as a DICOM file ({type(error).__name__})."
        ) from None
    return buffer.getvalue()
