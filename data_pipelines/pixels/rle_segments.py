"""Checks that each segment of an RLE frame gives the bytes of one plane, and no more.

PS3.5 Annex G. A decoder stops when its plane is full, so it does not notice that a flipped bit has
shifted all later runs.
"""

from __future__ import annotations

import struct

from data_pipelines.errors import DecodeFailed

_HEADER_BYTES = 64


def check_rle_segments(data: bytes, plane_bytes: int) -> None:
    """Check every segment of a frame of planes of `plane_bytes` each.

    Zeros and no-operation bytes (128) after the last run are padding. Raises DecodeFailed
    (`damaged_codestream`) where a segment gives fewer bytes, or where other data follow them.
    """
    if len(data) < _HEADER_BYTES:
        raise _damaged("its header is incomplete")
    count, *offsets = struct.unpack("<16L", data[:_HEADER_BYTES])
    starts = offsets[:count]
    ends = [*starts[1:], len(data)]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True), start=1):
        if not _HEADER_BYTES <= start < end <= len(data):
            raise _damaged("the offsets of its segments are out of order")
        n_bytes = _decoded_bytes(data[start:end])
        if n_bytes < plane_bytes:
            raise _damaged(f"segment {number} has {n_bytes} of {plane_bytes} bytes")
        if n_bytes > plane_bytes < _decoded_bytes(data[start:end].rstrip(b"\0")):
            raise _damaged(f"segment {number} goes on after its last byte")


def _decoded_bytes(segment: bytes) -> int:
    import imagecodecs

    try:
        return len(imagecodecs.packbits_decode(segment))
    except RuntimeError:
        raise _damaged("a run is longer than its segment") from None


def _damaged(finding: str) -> DecodeFailed:
    return DecodeFailed(
        f"The RLE data are damaged: {finding}. Fetch the file again.", code="damaged_codestream"
    )
