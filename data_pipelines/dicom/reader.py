"""Opens and parses a DICOM source. Missing preambles and meta headers are repaired, and deflated
data sets are inflated up to a limit.

PS3.10 section 7 (file format), PS3.5 sections 7, 10 and A.4 (encodings, default transfer syntax).
"""

from __future__ import annotations

import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from data_pipelines.dicom.byte_repairs import repaired_bytes
from data_pipelines.dicom.fast_reader import (
    PIXEL_TAGS,
    NonCanonicalEncoding,
    duplicate_element,
    scan_dataset,
    scan_file,
)
from data_pipelines.errors import LimitExceeded, NotDicom, TruncatedPixelData, Unreadable
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.storage import open_file

DicomSource = str | Path | bytes | bytearray | memoryview | Dataset

_DEFLATED_UID = str(DeflatedExplicitVRLittleEndian).encode()
_HEADER_BYTES = 1 << 16  # one read: more than the header of most files
_KNOWN_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
_pydicom_lock = threading.RLock()

#: What pydicom raises on damaged bytes. The messages are never shown: they may quote values.
PARSER_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    NameError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class ParsedDataset:
    """A data set, and the codes of the repairs that reading it needed."""

    dataset: Dataset
    repairs: tuple[str, ...]


@contextmanager
def silence_pydicom() -> Iterator[list[warnings.WarningMessage]]:
    """Collect pydicom's warnings and disable its log, since both may quote a patient's data. One
    thread at a time.
    """
    log = logging.getLogger("pydicom")
    with _pydicom_lock, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        disabled, log.disabled = log.disabled, True
        try:
            yield caught
        finally:
            log.disabled = disabled


def parse(
    source: DicomSource, *, pixels: bool, tags: frozenset[int] | None = None
) -> ParsedDataset:
    """Parse a path or the bytes of a file; a data set is returned as it is.

    pixels: False stops before the pixel data. tags: the elements to keep (None: all). Raises
    NotDicom when it is not a DICOM file, Unreadable when the file cannot be opened or its header
    cannot be parsed, TruncatedPixelData when only the pixel data end early, and LimitExceeded above
    the limits of file size, inflated size or sequence depth (see runtime/limits.py).
    """
    if isinstance(source, Dataset):
        return ParsedDataset(source, ())
    if isinstance(source, bytes | bytearray | memoryview):
        return _parse_file(BytesIO(source), len(source), pixels, tags)
    try:
        with open_file(source) as file:
            return _parse_file(file, file.seek(0, 2), pixels, tags)
    except OSError as error:
        raise Unreadable(
            f"The file cannot be opened ({type(error).__name__}). Check the path and its "
            f"permissions."
        ) from None


def transfer_syntax_of(dataset: Dataset) -> str:
    """The transfer syntax UID. Where the meta header has none, it is the uncompressed syntax in
    which the data set was parsed (PS3.5 section 10).
    """
    declared = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    if declared:
        return str(declared)
    implicit, little = getattr(dataset, "original_encoding", (None, None))
    if implicit is None or little is None:
        return str(ExplicitVRLittleEndian)
    if not little:
        return str(ExplicitVRBigEndian)
    return str(ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian)


def _parse_file(
    file: BinaryIO, size: int, pixels: bool, tags: frozenset[int] | None
) -> ParsedDataset:
    if size > active_limits().file:
        raise LimitExceeded(
            f"The file has {size} bytes; the limit is {active_limits().file}. Split the file, or "
            f"exclude it."
        )
    file.seek(0)
    head = file.read(1024)
    has_preamble = head[128:132] == b"DICM"
    if not has_preamble and head[:2] not in _KNOWN_GROUPS:
        raise NotDicom(
            "Not a DICOM file: there is neither DICM at byte 128 nor a first element of group "
            "0002 or 0008."
        )
    with silence_pydicom() as caught:
        codes: tuple[str, ...] = ()
        try:
            dataset = _read_whole(file, head, pixels, tags, caught)
        except PARSER_ERRORS as error:
            failure = _reading_failure(file, head, error, has_preamble, pixels, tags)
            file.seek(0)
            data, codes = repaired_bytes(file.read())
            if not codes:
                raise failure from None
            caught.clear()
            try:
                dataset = _read_whole(BytesIO(data), head, pixels, tags, caught)
            except PARSER_ERRORS:
                raise failure from None
    if not has_preamble and not (
        "SOPClassUID" in dataset or ("Modality" in dataset and "Rows" in dataset)
    ):
        raise NotDicom(
            "Not a DICOM file: there is no DICM at byte 128, and neither a SOP class nor a "
            "modality with rows could be parsed."
        )
    repairs = _repairs(dataset, has_preamble, [str(w.message) for w in caught])
    return ParsedDataset(dataset, tuple(dict.fromkeys((*repairs, *codes))))


def _read_whole(
    file: BinaryIO,
    head: bytes,
    pixels: bool,
    tags: frozenset[int] | None,
    caught: list[warnings.WarningMessage],
) -> Dataset:
    """As `_read`, from the beginning of the file. Raises EOFError where pydicom only warns."""
    file.seek(0)
    dataset = _read(file, head, pixels, tags)
    if any("end of file" in str(w.message).lower() for w in caught):
        raise EOFError
    return dataset


def _read(file: BinaryIO, head: bytes, pixels: bool, tags: frozenset[int] | None) -> Dataset:
    if _DEFLATED_UID in head:
        return _read_deflated(file.read(), pixels, tags)
    try:
        data = file.read() if pixels else file.read(_HEADER_BYTES)
        return scan_file(data, pixels or len(data) < _HEADER_BYTES, pixels, tags)
    except NonCanonicalEncoding:
        file.seek(0)
    stop, keep = _StopAtPixels(pixels), _tags_to_keep(tags)
    dataset = read_partial(file, stop, force=True, specific_tags=keep)
    _refuse_deep(dataset)
    return dataset


def _read_deflated(data: bytes, pixels: bool, tags: frozenset[int] | None) -> Dataset:
    """PS3.5 section A.5: everything after the meta header is one raw deflate stream."""
    (length,) = struct.unpack("<L", data[140:144])
    start = 144 + length
    meta = dcmread(BytesIO(data[:start]), force=True).file_meta
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    limit = active_limits().inflated
    inflated = inflater.decompress(data[start:], limit + 1)
    if len(inflated) > limit:
        raise LimitExceeded(f"The data set inflates to more than {limit} bytes. It is not read.")
    if not inflater.eof:
        raise EOFError
    try:
        dataset = scan_dataset(inflated, 0, False, pixels, tags)
    except NonCanonicalEncoding:
        stop, keep = _StopAtPixels(pixels), _tags_to_keep(tags)
        dataset = read_dataset(BytesIO(inflated), False, True, stop_when=stop, specific_tags=keep)
        dataset.set_original_encoding(False, True)
        _refuse_deep(dataset)
    dataset.file_meta = meta
    return dataset


def _tags_to_keep(tags: frozenset[int] | None) -> Any:
    """As pydicom's `specific_tags`."""
    return None if tags is None else [BaseTag(tag) for tag in tags]


def _refuse_deep(dataset: Dataset) -> None:
    """Raise LimitExceeded above the limit of nested sequences. Elements that pydicom has not parsed
    stay unparsed.
    """
    level = [dataset]
    for _ in range(active_limits().depth + 1):
        # get_item, unlike iteration over the elements, parses nothing
        elements = (item.get_item(tag) for item in level for tag in item.keys())  # noqa: SIM118
        level = [
            item
            for element in elements
            if isinstance(element, DataElement) and element.VR == "SQ"
            for item in element.value
        ]
        if not level:
            return
    raise LimitExceeded(
        f"Sequences are nested more than {active_limits().depth} deep. The file is not read."
    )


class _StopAtPixels:
    """Called by pydicom for each element of a data set. Stops before the pixel data unless
    `pixels`, and raises Unreadable (`duplicate_element`) where an element occurs twice before them.
    """

    def __init__(self, pixels: bool) -> None:
        self.pixels, self.earlier_tags = pixels, set[int]()

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        earlier = self.earlier_tags
        probed = earlier == {tag}  # pydicom reads the first element twice to guess the encoding
        if tag in earlier and not probed and tag >> 16 and not earlier & PIXEL_TAGS:
            raise duplicate_element()
        earlier.add(tag)
        return not self.pixels and tag in PIXEL_TAGS


def _reading_failure(
    file: BinaryIO,
    head: bytes,
    error: Exception,
    has_preamble: bool,
    pixels: bool,
    tags: frozenset[int] | None,
) -> NotDicom | Unreadable | TruncatedPixelData | LimitExceeded:
    """The error for a file that pydicom cannot read: the header alone is parsed again, to tell a
    damaged header from pixel data that end early.
    """
    if isinstance(error, RecursionError):
        return LimitExceeded("Sequences are nested too deeply to be read.")
    if pixels and has_preamble:
        file.seek(0)
        try:
            _read(file, head, False, tags)
        except PARSER_ERRORS:
            pass
        else:
            return TruncatedPixelData(
                "The header is complete, but the pixel data end early. Fetch the file again."
            )
    if not has_preamble:
        return NotDicom(
            "Not a DICOM file: there is no DICM at byte 128, and the content cannot be parsed as "
            "DICOM."
        )
    return Unreadable(
        f"The header cannot be parsed ({type(error).__name__}). Fetch the file again from its "
        f"source."
    )


def _repairs(dataset: Dataset, has_preamble: bool, messages: list[str]) -> tuple[str, ...]:
    meta: Dataset = getattr(dataset, "file_meta", None) or Dataset()
    repairs = {
        "missing_preamble": not has_preamble,
        "missing_meta": len(meta) == 0,
        "missing_transfer_syntax": len(meta) > 0 and "TransferSyntaxUID" not in meta,
        "wrong_vr_encoding": any(
            "found implicit VR" in m or "found explicit VR" in m for m in messages
        ),
        "invalid_SpecificCharacterSet": any(
            "Unknown encoding" in m or "Incorrect value for Specific Character Set" in m
            for m in messages
        ),
    }
    return tuple(code for code, present in repairs.items() if present)
