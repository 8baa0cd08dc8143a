"""Checks that the Huffman-coded data of a JPEG frame end where its last block ends.

JPEG decoders accept a stream in which a flipped bit has shifted all later blocks: they fill what is
missing, and ignore what is left over. This module reads the lengths of all Huffman codes without
computing pixels, and so finds the bit at which the last block ends.

ISO/IEC 10918-1: B.1-B.2 (markers), C (Huffman tables), F.1.2 (sequential), H.1.2 (lossless). A flip
that leaves a valid stream of the same length cannot be noticed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_pipelines.errors import DecodeFailed

DAMAGED = "damaged_codestream"
_SOF_SEQUENTIAL, _SOF_LOSSLESS = (0xC0, 0xC1), 0xC3
_DHT, _SOS, _DRI, _EOI, _DNL = 0xC4, 0xDA, 0xDD, 0xD9, 0xDC
_NO_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
#: a code has at most 16 bits, and at most 16 more bits follow it
_LONGEST = 32
_BLOCK = 64
_SIXTEEN_ZEROS = 0xF0
#: advances of the index in a block that no run of zeros can give
_END_OF_BLOCK, _NO_CODE = 100, 200
_WINDOWS = 1 << 16

Lengths = NDArray[np.uint8]


@dataclass(frozen=True)
class HuffmanTable:
    """Of each 16-bit window: the length of the code at its start (0: none), and its symbol."""

    length: Lengths
    symbol: Lengths


@dataclass
class _Scan:
    """The parameters of the only scan of a frame with one component."""

    process: int = 0
    blocks: int = 0
    restart_interval: int = 0
    tables: dict[int, HuffmanTable] = field(default_factory=dict)
    dc: int = 0
    ac: int = 0
    start: int = 0


def check_jpeg_scan(data: bytes) -> tuple[str, ...]:
    """Check a whole JPEG stream of one component. Returns `("codestream_padding",)` where the last
    byte is not padded with equal bits, as the standard says and as damage may also leave it.

    Raises DecodeFailed (`damaged_codestream`) where the data end before the last block, or where
    other data than padding follow it. Fill bytes (0 or 255) before the marker, and everything after
    the end of the image, are accepted. Progressive streams are not checked.
    """
    scan = _read_markers(data)
    if scan is None:
        return ()
    walk = _Walk(scan, _segments(np.frombuffer(data, np.uint8)[scan.start :], scan))
    codes: set[str] = set()
    for number, (first, last) in enumerate(walk.bounds):
        end = walk.end_of_segment(number, first)
        if end > last:
            raise _damaged("the entropy-coded data end before the last block")
        partial, rest = walk.after(end, last)
        if not all(_equal(byte) for byte in rest):
            raise _damaged(f"{len(rest)} bytes follow the last block")
        if not _equal(partial):
            codes.add("codestream_padding")
    return tuple(codes)


def _damaged(finding: str) -> DecodeFailed:
    return DecodeFailed(
        f"The codestream is damaged: {finding}. Fetch the file again.", code=DAMAGED
    )


def _read_markers(data: bytes) -> _Scan | None:
    """The parameters before the first scan; None where the process is not sequential or lossless
    Huffman coding of one component.
    """
    scan = _Scan()
    for marker, segment, end in _marker_segments(data):
        if marker in (*_SOF_SEQUENTIAL, _SOF_LOSSLESS):
            rows, columns, components = struct.unpack(">HHB", segment[1:6])
            side = 1 if marker == _SOF_LOSSLESS else 8
            scan.process = marker if components == 1 else 0
            scan.blocks = -(-rows // side) * -(-columns // side)
        elif marker == _DHT:
            scan.tables |= dict(_huffman_tables(segment))
        elif marker == _DRI:
            (scan.restart_interval,) = struct.unpack(">H", segment[:2])
        elif marker == _SOS:
            scan.dc, scan.ac, scan.start = segment[2] >> 4, 16 | segment[2] & 15, end
            break
    if not (scan.process and scan.blocks and scan.start):
        return None
    needed = {scan.dc} if scan.process == _SOF_LOSSLESS else {scan.dc, scan.ac}
    if not needed <= scan.tables.keys():
        raise _damaged("a Huffman table is missing")
    return scan


def _marker_segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Each marker before the entropy-coded data, the content of its segment (at least 6 bytes, with
    zeros at the end where it has fewer), and where the segment ends.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF or marker in _NO_LENGTH:
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack(">H", data[position + 2 : position + 4])
        end = position + 2 + length
        yield marker, data[position + 4 : end].ljust(6, b"\0"), end
        position = end


def _huffman_tables(segment: bytes) -> Iterator[tuple[int, HuffmanTable]]:
    """The tables of a DHT segment by class and identifier (B.2.4.2): 0..3 for DC, 16..19 for AC."""
    while len(segment) >= 17:
        counts = segment[1:17]
        symbols = np.frombuffer(segment[17 : 17 + sum(counts)], np.uint8)
        yield segment[0], _expand(np.repeat(np.arange(1, 17), list(counts)), symbols)
        segment = segment[17 + sum(counts) :]


def _expand(lengths: NDArray[np.integer], symbols: Lengths) -> HuffmanTable:
    """The codes of growing `lengths` as tables of all 16-bit windows (C.2)."""
    if len(symbols) < len(lengths) or (1 << 16 - lengths).sum() > _WINDOWS:
        raise _damaged("a Huffman table is not valid")
    repeats = 1 << 16 - lengths
    length, symbol = np.zeros(_WINDOWS, np.uint8), np.zeros(_WINDOWS, np.uint8)
    filled = int(repeats.sum())
    length[:filled], symbol[:filled] = np.repeat(lengths, repeats), np.repeat(symbols, repeats)
    return HuffmanTable(length, symbol)


def _segments(coded: Lengths, scan: _Scan) -> list[Lengths]:
    """The entropy-coded bytes without stuffing, split at the restart markers."""
    marks = np.flatnonzero((coded[:-1] == 0xFF) & (coded[1:] != 0) & (coded[1:] != 0xFF))
    bounds, start = [], 0
    for mark in marks.tolist():
        bounds.append((start, mark))
        marker = int(coded[mark + 1])
        start = mark + 2
        if not 0xD0 <= marker <= 0xD7:
            if marker not in (_EOI, _DNL):
                raise _damaged("a marker stands in the entropy-coded data")
            break
        if scan.restart_interval == 0 or marker != 0xD0 + (len(bounds) - 1) % 8:
            raise _damaged("a restart marker is out of place")
    else:
        raise _damaged("the entropy-coded data have no end")
    interval = scan.restart_interval or scan.blocks
    if len(bounds) != -(-scan.blocks // interval):
        raise _damaged("the number of restart intervals is wrong")
    return [_unstuffed(coded[first:last]) for first, last in bounds]


def _unstuffed(segment: Lengths) -> Lengths:
    stuffing = np.zeros(len(segment), np.bool_)
    stuffing[1:] = (segment[:-1] == 0xFF) & (segment[1:] == 0)
    return segment[~stuffing]


class _Walk:
    """Walks over the codes of all segments. Positions are bits in the joined segments."""

    def __init__(self, scan: _Scan, segments: list[Lengths]) -> None:
        joined = np.concatenate(segments)
        ends = np.cumsum([8 * len(segment) for segment in segments]).tolist()
        self.bounds = list(zip([0, *ends[:-1]], ends, strict=True))
        self.scan, self.bytes = scan, joined
        padded = np.concatenate([joined, np.full(2, 0xFF, np.uint8)]).astype(np.uint32)
        windows = (padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]).astype(np.uint32)
        self.dc = _steps(windows, scan.tables[scan.dc], scan)[0]
        self.ac, self.run = b"", b""
        if scan.process != _SOF_LOSSLESS:
            self.ac, self.run = _steps(windows, scan.tables[scan.ac], scan, ac=True)

    def end_of_segment(self, number: int, position: int) -> int:
        """The bit after the last block of a segment that starts at `position`; more than the end of
        the segment where its data end early.
        """
        interval = self.scan.restart_interval or self.scan.blocks
        blocks = min(interval, self.scan.blocks - number * interval)
        if self.ac:
            return self._end_of_blocks(blocks, position)
        dc = self.dc
        for _ in range(blocks - 1):
            position += dc[position]  # 0 where there is no code: the walk then stays there
        if not dc[position]:
            raise _damaged("it has a code that is in no table")
        return position + dc[position]

    def _end_of_blocks(self, blocks: int, position: int) -> int:
        dc, ac, run = self.dc, self.ac, self.run
        for _ in range(blocks):
            if not dc[position]:
                break
            position += dc[position]
            index = 1
            while index < _BLOCK:
                index += run[position]
                position += ac[position]
            if index != _BLOCK and not _END_OF_BLOCK <= index < _NO_CODE:
                break
        else:
            return position
        raise _damaged("it has a code that is in no table, or a block of more than 64 values")

    def after(self, first: int, last: int) -> tuple[Lengths, NDArray[np.uint8]]:
        """The bits from `first` to `last`: those of the last byte that was begun, and the whole
        bytes (bytes, 8).
        """
        bits = np.unpackbits(self.bytes[first // 8 : last // 8])[first % 8 :]
        partial = -first % 8
        return bits[:partial], bits[partial:].reshape(-1, 8)


def _equal(bits: Lengths) -> bool:
    return not len(bits) or bool((bits == bits[0]).all())


def _steps(
    windows: NDArray[np.uint32], table: HuffmanTable, scan: _Scan, *, ac: bool = False
) -> tuple[bytes, bytes]:
    """For each bit at which a code may start: the bits up to the next code; and for AC codes also
    by how much the code advances the index in its block.

    Where no code starts, the step is 0 and the index becomes _NO_CODE or more. Beyond the data, the
    step leads to a position that is greater than every end.
    """
    size = table.symbol & 15 if ac else np.minimum(table.symbol, 16)
    if scan.process == _SOF_LOSSLESS:
        size = np.where(size == 16, 0, size)
    valid = table.length > 0
    step = np.where(valid, table.length + size, 0).astype(np.uint8)
    beyond = range(_LONGEST, -1, -1)
    at_bit = np.empty((len(windows), 8), np.uint16)
    for bit in range(8):
        at_bit[:, bit] = windows >> (8 - bit)
    steps = step.take(at_bit).tobytes() + bytes(beyond)
    if not ac:
        return steps, b""
    run = np.where(table.symbol & 15 == 0, _END_OF_BLOCK, (table.symbol >> 4) + 1)
    run = np.where(table.symbol == _SIXTEEN_ZEROS, 16, run)
    run = np.where(valid, run, _NO_CODE).astype(np.uint8)
    return steps, run.take(at_bit).tobytes() + bytes([_BLOCK]) * len(beyond)
