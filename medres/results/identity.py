"""The identity of a result: a key and UIDs that follow from its input, and the mark by which own
objects are recognized, so that they are never taken in again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from io import BytesIO
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from data_pipelines.dicom.elements import Elements
from data_pipelines.dicom.reader import DicomSource, parse, silence_pydicom, transfer_syntax_of
from data_pipelines.dicom.writer import derived_uid
from data_pipelines.runtime.storage import read_source
from medres.errors import ResultError

#: the Manufacturer (0008,0070) of the objects that medres writes
MANUFACTURER = "medres"
_META_START = 144  # bytes: preamble, DICM, and the element with the length of the meta header
_BLOCK = 1 << 20
Content = tuple[str, str]


def result_key(model_sha256: str, preprocessing_sha256: str, contents: Iterable[Content]) -> str:
    """The identity of a result, 64 hexadecimal digits. contents: see `content_of`, of each image,
    in any order.

    >>> images = [("1", "a"), ("2", "b")]
    >>> result_key("m", "p", images) == result_key("m", "p", images[::-1])
    True
    """
    parts = [model_sha256, preprocessing_sha256, sorted(contents)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def result_uid(key: str, role: str) -> str:
    """The UID of an object, a series or a finding of the result `key`: the same input gives the
    same UID. role: 'report', 'series report', ...
    """
    return str(derived_uid("medres.serve", key, role))


def content_of(source: DicomSource) -> Content:
    """(SOP Instance UID, `content_sha256`) of one image. A data set is encoded again, which gives
    the bytes of its file unless these were malformed.

    Raises DicomError; ResultError: missing_attribute where there is no SOP Instance UID.
    """
    dataset = parse(source, pixels=False).dataset
    uid = Elements(dataset).text("SOPInstanceUID")
    if not uid:
        raise ResultError("an image has no SOPInstanceUID (0008,0018)", code="missing_attribute")
    return uid, content_sha256(BytesIO(_file_bytes(source)), transfer_syntax_of(dataset))


def content_sha256(file: BinaryIO, transfer_syntax: str) -> str:
    """SHA-256 of the data set of an opened file and of its transfer syntax, without the preamble
    and the meta header: these name the program that sent the file, and differ between STOW and
    C-STORE.
    """
    digest = hashlib.sha256(f"{transfer_syntax}\n".encode())
    file.seek(_dataset_offset(file))
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def is_own_result(source: DicomSource) -> bool:
    """Whether medres has written the object: its Manufacturer is medres. Raises DicomError."""
    dataset = parse(source, pixels=False).dataset
    return Elements(dataset).text("Manufacturer").lower() == MANUFACTURER


def _file_bytes(source: DicomSource) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if not isinstance(source, Dataset):
        return read_source(source)
    buffer = BytesIO()
    with silence_pydicom():
        dcmwrite(buffer, source, enforce_file_format=True)
    return buffer.getvalue()


def _dataset_offset(file: BinaryIO) -> int:
    """Where the data set begins; 0 where the meta header does not state its length."""
    head = file.read(_META_START)
    if head[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00":
        return 0
    end = _META_START + int.from_bytes(head[140:_META_START], "little")
    file.seek(end)
    return 0 if file.read(2) in (b"", b"\x02\x00") else end
