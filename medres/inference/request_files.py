"""The sources of a request as paths and bytes, which travel to a decode worker. Nothing is decoded
here.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from data_pipelines.dicom.reader import (
    PARSER_ERRORS,
    DicomSource,
    silence_pydicom,
    transfer_syntax_of,
)
from data_pipelines.errors import DicomError, LimitExceeded, Unreadable
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.walk import walk_files

NOT_OPENED = "This is no regular file of the folder (a link, a pipe, a device); it was not opened."


class FilesBelow(NamedTuple):
    """The regular files of a folder, in a fixed order, and why each other entry was not opened."""

    files: list[Path]
    not_opened: list[tuple[Path, DicomError]]


def paths_of(paths: str | Path | Iterable[str | Path]) -> list[str | Path]:
    """The paths of files and folders; one path alone counts as a list of one. Raises TypeError for
    anything else, whose text could hold a patient's data.
    """
    if isinstance(paths, str | Path):
        return [paths]
    is_source = isinstance(paths, get_args(DicomSource))  # bytes and data sets can be iterated
    is_list = isinstance(paths, Iterable) and not is_source
    listed: list[str | Path] = [*paths] if is_list else [cast(Path, paths)]
    for path in listed:
        if not isinstance(path, str | Path):
            raise TypeError(
                f"paths are those of files and folders; received {type(path).__name__}. Give bytes "
                f"and data sets to predict(), one study at a time."
            )
    return listed


def files_below(path: str | Path) -> FilesBelow:
    """What is below a folder; a path that is no folder is taken as the only file."""
    if not Path(path).is_dir():
        return FilesBelow([Path(path)], [])
    walk = walk_files(path)
    return FilesBelow(
        [walk.root / file for file in walk.files],
        [(walk.root / other, Unreadable(NOT_OPENED, code=why)) for other, why in walk.others],
    )


def files_of(source: DicomSource) -> list[Any]:
    """The files below a folder, in a fixed order; any other source unchanged, as the only element.

    Raises TypeError for a value that is not a source; Unreadable, with the reason of `walk_files`,
    for a folder that does not hold regular files only, since an image could be missing.
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
        files, not_opened = files_below(source)
        for _, error in not_opened:
            raise error
        return files
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
