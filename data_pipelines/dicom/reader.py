"""Open a DICOM source: sniff, repair what a missing preamble or meta header costs, inflate with a
cap, parse.

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
from typing import BinaryIO

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

from data_pipelines.dicom.fast_reader import (
    PIXEL_TAGS,
    NonCanonicalEncoding,
    scan_dataset,
    scan_file,
)
from data_pipelines.errors import LimitExceeded, NotDicom, TruncatedPixelData, Unreadable
from data_pipelines.runtime.limits import active_limits

DicomSource = str | Path | bytes | bytearray | memoryview | Dataset

_DEFLATED_UID = str(DeflatedExplicitVRLittleEndian).encode()
_HEADER_BYTES = 1 << 16  # read at once: more than the header of most files
_KNOWN_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
_quiet_lock = threading.RLock()

#: What pydicom raises on bytes that are not what they claim to be. Never shown: such messages may
#: quote element values.
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
    """A data set and the codes of what had to be repaired to read it."""

    dataset: Dataset
    repairs: tuple[str, ...]


@contextmanager
def silence_pydicom() -> Iterator[list[warnings.WarningMessage]]:
    """Collect pydicom's warnings and stop its log: both may quote a patient's data. One thread at a
    time.
    """
    log = logging.getLogger("pydicom")
    with _quiet_lock, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        disabled, log.disabled = log.disabled, True
        try:
            yield caught
        finally:
            log.disabled = disabled


def parse(
    source: DicomSource, *, pixels: bool, tags: frozenset[int] | None = None
) -> ParsedDataset:
    """Parse a path, the bytes of a file, or pass a data set through.

    `pixels=False` stops before the pixel data; `tags` keeps only those elements. Raises NotDicom
    when there is no DICOM at all, Unreadable when the file cannot be opened or parsed,
    TruncatedPixelData when only the pixel data break off, and LimitExceeded over the limits of
    file, inflated data set or sequence depth (see limits).
    """
    if isinstance(source, Dataset):
        return ParsedDataset(source, ())
    if isinstance(source, bytes | bytearray | memoryview):
        return _parse_file(BytesIO(source), len(source), pixels, tags)
    try:
        with Path(source).open("rb") as file:
            return _parse_file(file, file.seek(0, 2), pixels, tags)
    except OSError as error:
        raise Unreadable(
            f"The file cannot be opened: {type(error).__name__}. Check the path and its rights."
        ) from None


def transfer_syntax_of(dataset: Dataset) -> str:
    """Transfer syntax UID; where the meta header lacks it, the uncompressed one that parsed (PS3.5
    section 10).
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
            f"The file has {size} bytes; the limit is {active_limits().file}. Split it, or leave "
            f"it out."
        )
    file.seek(0)
    head = file.read(1024)
    has_preamble = head[128:132] == b"DICM"
    if not has_preamble and head[:2] not in _KNOWN_GROUPS:
        raise NotDicom(
            "No DICOM file: neither the DICM mark at byte 128 nor a first element of group 0002 "
            "or 0008."
        )
    file.seek(0)
    with silence_pydicom() as caught:
        try:
            dataset = _read(file, head, pixels, tags)
            if any("end of file" in str(w.message).lower() for w in caught):
                raise EOFError
        except PARSER_ERRORS as error:
            raise _reading_failure(file, head, error, has_preamble, pixels, tags) from None
    if not has_preamble and not (
        "SOPClassUID" in dataset or ("Modality" in dataset and "Rows" in dataset)
    ):
        raise NotDicom(
            "No DICOM file: no DICM mark, and no SOP class, or modality and rows, could be parsed."
        )
    return ParsedDataset(dataset, _repairs(dataset, has_preamble, [str(w.message) for w in caught]))


def _read(file: BinaryIO, head: bytes, pixels: bool, tags: frozenset[int] | None) -> Dataset:
    if _DEFLATED_UID in head:
        return _read_deflated(file.read(), pixels, tags)
    try:
        data = file.read() if pixels else file.read(_HEADER_BYTES)
        return scan_file(data, pixels or len(data) < _HEADER_BYTES, pixels, tags)
    except NonCanonicalEncoding:
        file.seek(0)
    wanted = None if tags is None else [BaseTag(tag) for tag in tags]
    dataset = read_partial(file, _StopAtPixels(pixels), force=True, specific_tags=wanted)  # type: ignore[arg-type]
    _refuse_deep(dataset)
    return dataset


def _read_deflated(data: bytes, pixels: bool, tags: frozenset[int] | None) -> Dataset:
    """PS3.5 section A.5: everything after the meta header is one raw deflate stream."""
    (length,) = struct.unpack("<L", data[140:144])
    start = 144 + length
    meta = dcmread(BytesIO(data[:start]), force=True).file_meta
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    most = active_limits().inflated
    inflated = inflater.decompress(data[start:], most + 1)
    if len(inflated) > most:
        raise LimitExceeded(f"The deflated data set holds more than {most} bytes; it is not read.")
    if not inflater.eof:
        raise EOFError
    try:
        dataset = scan_dataset(inflated, 0, False, pixels, tags)
    except NonCanonicalEncoding:
        stop = _StopAtPixels(pixels)
        wanted = None if tags is None else [BaseTag(tag) for tag in tags]
        dataset = read_dataset(BytesIO(inflated), False, True, stop_when=stop, specific_tags=wanted)  # type: ignore[arg-type]
        dataset.set_original_encoding(False, True)
        _refuse_deep(dataset)
    dataset.file_meta = meta
    return dataset


def _refuse_deep(dataset: Dataset) -> None:
    """Raise LimitExceeded over the limit of sequences within sequences. What pydicom left unparsed
    is left so.
    """
    level = [dataset]
    for _ in range(active_limits().depth + 1):
        elements = (one.get_item(tag) for one in level for tag in one.keys())  # noqa: SIM118  get_item parses nothing
        level = [
            item
            for e in elements
            if isinstance(e, DataElement) and e.VR == "SQ"
            for item in e.value
        ]
        if not level:
            return
    raise LimitExceeded(
        f"Sequences lie within sequences, more than {active_limits().depth} deep; the file is not "
        f"read."
    )


class _StopAtPixels:
    """Sees each element of a data set go by: stops before the pixel data unless they are wanted,
    and raises Unreadable (`duplicate_element`) where one occurs twice before them, since nobody can
    tell which holds (PS3.5 section 7.1).
    """

    def __init__(self, pixels: bool) -> None:
        self.pixels, self.seen = pixels, set[int]()

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        probed = self.seen == {
            tag
        }  # pydicom looks at the first element twice where it doubts the encoding
        if tag in self.seen and not probed and tag >> 16 and not self.seen & PIXEL_TAGS:
            raise Unreadable(
                "An element occurs twice: which one holds is unknown.", code="duplicate_element"
            )
        self.seen.add(tag)
        return not self.pixels and tag in PIXEL_TAGS


def _reading_failure(
    file: BinaryIO,
    head: bytes,
    error: Exception,
    has_preamble: bool,
    pixels: bool,
    tags: frozenset[int] | None,
) -> NotDicom | Unreadable | TruncatedPixelData | LimitExceeded:
    if isinstance(error, RecursionError):
        return LimitExceeded("Sequences lie within sequences, deeper than can be read.")
    if pixels and has_preamble:
        file.seek(0)
        try:
            _read(file, head, False, tags)
        except PARSER_ERRORS:
            pass
        else:
            return TruncatedPixelData(
                "The header is sound, but the pixel data break off. Fetch the file again."
            )
    if not has_preamble:
        return NotDicom("No DICOM file: no DICM mark, and the content cannot be parsed as DICOM.")
    return Unreadable(
        f"The header cannot be parsed ({type(error).__name__}). Fetch the file again from its "
        f"source."
    )


def _repairs(dataset: Dataset, has_preamble: bool, messages: list[str]) -> tuple[str, ...]:
    meta: Dataset = getattr(dataset, "file_meta", None) or Dataset()
    found = {
        "missing_preamble": not has_preamble,
        "missing_meta": len(meta) == 0,
        "missing_transfer_syntax": len(meta) > 0 and "TransferSyntaxUID" not in meta,
        "wrong_vr_encoding": any(
            "found implicit VR" in m or "found explicit VR" in m for m in messages
        ),
    }
    return tuple(code for code, present in found.items() if present)
