"""Checks that the Huffman-coded data of a JPEG frame end where its last block ends.

JPEG decoders accept a stream in which a flipped bit has shifted all later blocks: they fill what is
missing, and ignore what is left over. This module reads the lengths of all Huffman codes without
computing pixels, and so finds the bit at which the last block ends.

ISO/IEC 10918-1: B.1-B.2 (markers), C (Huffman tables), F.1.2 (sequential), H.1.2 (lossless). A flip
that leaves a valid stream of the same length cannot be noticed.
"""

from __future__ import annotations

import functools
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
    """The parameters of the only scan of a frame.

    sampling: horizontal and vertical factor of each component, by its identifier. units: the DC and
    the AC table of each block (lossless: sample) of an MCU, in their order. mcus: their number.
    """

    process: int = 0
    size: tuple[int, int] = (0, 0)
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)
    units: tuple[tuple[int, int], ...] = ()
    mcus: int = 0
    restart_interval: int = 0
    tables: dict[int, HuffmanTable] = field(default_factory=dict)
    start: int = 0


def check_jpeg_scan(data: bytes) -> tuple[str, ...]:
    """Check a whole JPEG stream of one scan. Returns `("codestream_padding",)` where the last
    byte is not padded with equal bits, as the standard says and as damage may also leave it.

    Raises DecodeFailed (`damaged_codestream`) where the data end before the last block, or where
    other data than padding follow it. Fill bytes (0 or 255) before the marker, and everything after
    the end of the image, are accepted. Progressive streams, and those of several scans, are not
    checked.
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
    Huffman coding, or where the scan is not the only one.
    """
    scan = _Scan()
    for marker, segment, end in _marker_segments(data):
        if marker in (*_SOF_SEQUENTIAL, _SOF_LOSSLESS):
            scan.process, scan.size = marker, struct.unpack(">HH", segment[1:5])
            scan.sampling = _sampling(segment)
        elif marker == _DHT:
            scan.tables |= dict(_huffman_tables(segment))
        elif marker == _DRI:
            (scan.restart_interval,) = struct.unpack(">H", segment[:2])
        elif marker == _SOS:
            scan.start = end
            scan.units = _units(segment, scan.sampling)
            scan.mcus = _n_mcus(scan)
            break
    if not (scan.process and scan.mcus):
        return None
    is_lossless = scan.process == _SOF_LOSSLESS
    needed = {table for unit in scan.units for table in (unit[:1] if is_lossless else unit)}
    if not needed <= scan.tables.keys():
        raise _damaged("a Huffman table is missing")
    return scan


def _sampling(segment: bytes) -> dict[int, tuple[int, int]]:
    """The sampling factors in a frame header (B.2.2)."""
    triples = [segment[n : n + 3] for n in range(6, 6 + 3 * segment[5], 3)]
    if any(len(triple) < 3 or not (triple[1] >> 4 and triple[1] & 15) for triple in triples):
        raise _damaged("the frame header is not valid")
    return {number: (factors >> 4, factors & 15) for number, factors, _ in triples}


def _units(segment: bytes, sampling: dict[int, tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The tables of the blocks of an MCU, from a scan header (B.2.3, A.2.3); () where the frame has
    other components, so that there are more scans.
    """
    pairs = [segment[n : n + 2] for n in range(1, 1 + 2 * segment[0], 2)]
    if any(len(pair) < 2 for pair in pairs) or {pair[0] for pair in pairs} != sampling.keys():
        return ()
    tables = [(pair[1] >> 4, 16 | pair[1] & 15) for pair in pairs]
    if len(pairs) == 1:
        return tuple(tables)
    counts = [sampling[pair[0]][0] * sampling[pair[0]][1] for pair in pairs]
    return tuple(unit for unit, count in zip(tables, counts, strict=True) for _ in range(count))


def _n_mcus(scan: _Scan) -> int:
    if not scan.units:
        return 0
    side = 1 if scan.process == _SOF_LOSSLESS else 8
    is_single = len(scan.sampling) == 1  # its MCU is one block, whatever its factors are
    widest = 1 if is_single else max(h for h, _ in scan.sampling.values())
    tallest = 1 if is_single else max(v for _, v in scan.sampling.values())
    rows, columns = scan.size
    return -(-rows // (side * tallest)) * -(-columns // (side * widest))


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
        end = 17 + sum(segment[1:17])
        yield segment[0], _expand(segment[1:17], segment[17:end])
        segment = segment[end:]


@functools.lru_cache(maxsize=64)  # most files have the same tables
def _expand(counts: bytes, values: bytes) -> HuffmanTable:
    """The codes as tables of all 16-bit windows (C.2). counts: of each length from 1 to 16."""
    lengths, symbols = np.repeat(np.arange(1, 17), list(counts)), np.frombuffer(values, np.uint8)
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
    interval = scan.restart_interval or scan.mcus
    if len(bounds) != -(-scan.mcus // interval):
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
        dc = {n: _steps(windows, scan.tables[n], scan)[0] for n in {u[0] for u in scan.units}}
        self.dc = [dc[unit[0]] for unit in scan.units]
        self.blocks: list[tuple[bytes, bytes, bytes]] = []
        if scan.process != _SOF_LOSSLESS:
            tables = {unit[1] for unit in scan.units}
            ac = {n: _steps(windows, scan.tables[n], scan, ac=True) for n in tables}
            self.blocks = [(dc[first], *ac[rest]) for first, rest in scan.units]

    def end_of_segment(self, number: int, position: int) -> int:
        """The bit after the last block of a segment that starts at `position`; more than the end of
        the segment where its data end early.
        """
        interval = self.scan.restart_interval or self.scan.mcus
        mcus = min(interval, self.scan.mcus - number * interval)
        if self.blocks:
            return self._end_of_blocks(mcus, position)
        return self._end_of_samples(mcus, position)

    def _end_of_samples(self, mcus: int, position: int) -> int:
        step = 1
        if len(self.dc) == 1:
            (dc,) = self.dc
            for _ in range(mcus - 1):
                position += dc[position]  # 0 where there is no code: the walk then stays there
            step = dc[position]
            position += step
        else:
            for _ in range(mcus):
                for dc in self.dc:
                    step = step and dc[position]
                    position += dc[position]
        if not step:
            raise _damaged("it has a code that is in no table")
        return position

    def _end_of_blocks(self, mcus: int, position: int) -> int:
        blocks = self.blocks
        for _ in range(mcus):
            for dc, ac, run in blocks:
                index = 1 if dc[position] else _NO_CODE
                position += dc[position]
                while index < _BLOCK:
                    index += run[position]
                    position += ac[position]
                if index != _BLOCK and not _END_OF_BLOCK <= index < _NO_CODE:
                    raise _damaged(
                        "it has a code that is in no table, or a block of more than 64 values"
                    )
        return position

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
