"""Splits encapsulated pixel data into frames. Every byte must be accounted for, and a fragment is
never mistaken for a frame.

PS3.5 section A.4 and PS3.3 section C.7.6.3.1.8. Pure functions over memory views: nothing is copied
before the fragments of a frame are joined.
"""

from __future__ import annotations

import struct
from itertools import pairwise

from data_pipelines.errors import DecodeFailed, TruncatedPixelData

_ITEM = b"\xfe\xff\x00\xe0"
_DELIMITER = b"\xfe\xff\xdd\xe0"
#: first bytes of a codestream: SOI of the JPEG family, SOC of JPEG 2000, a JP2 box
_STARTS = (b"\xff\xd8", b"\xff\x4f", b"\0\0\0\x0c")
_END = b"\xff\xd9"

Fragments = list[memoryview]


def encapsulated_frames(
    data: bytes, count: int, extended: tuple[bytes, bytes] | None = None
) -> tuple[list[Fragments], tuple[str, ...]]:
    """The fragments of each of `count` frames, and the codes of repairs.

    extended: the Extended Offset Table and its lengths (7FE0,0001 and 7FE0,0002). Raises
    TruncatedPixelData when an item ends early or frames are missing, and DecodeFailed
    (`frame_count`) when there are more frames than NumberOfFrames says.
    """
    table, items = _items(memoryview(data))
    if extended is not None:
        return _by_extended_table(items, extended, count), ()
    if table and len(table) != count:
        raise _frame_count(count, f"the basic offset table has {len(table)} entries")
    if table:
        frames = _by_table(items, table)
        return (frames, ()) if frames else (_without_table(items, count), ("wrong_offset_table",))
    return _without_table(items, count), ()


def _items(view: memoryview) -> tuple[list[int], list[tuple[int, memoryview]]]:
    """The basic offset table, and every later item with its offset from the first one."""
    position, items = 0, []
    while position + 8 <= len(view):
        tag = view[position : position + 4]
        if tag == _DELIMITER:
            break
        if tag != _ITEM:
            if any(view[position:]):
                raise DecodeFailed(
                    f"There is no item at byte {position} of the encapsulated pixel data. Fetch "
                    f"the file again."
                )
            break
        (length,) = struct.unpack("<L", view[position + 4 : position + 8])
        end = position + 8 + length
        if end > len(view):
            raise TruncatedPixelData(
                f"A fragment of {length} bytes ends after {len(view) - position - 8} bytes. Fetch "
                f"the file again."
            )
        items.append((position, view[position + 8 : end]))
        position = end
    if not items:
        raise TruncatedPixelData("The encapsulated pixel data have no items. Fetch the file again.")
    raw, start = items[0][1], 8 + len(items[0][1])
    table = list(struct.unpack(f"<{len(raw) // 4}L", raw[: len(raw) // 4 * 4]))
    return table, [(offset - start, item) for offset, item in items[1:]]


def _by_extended_table(
    items: list[tuple[int, memoryview]], extended: tuple[bytes, bytes], count: int
) -> list[Fragments]:
    """C.7.6.3.1.8: each frame is one fragment; the table has its offset and its length without
    padding.
    """
    offsets, lengths = (
        struct.unpack(f"<{len(raw) // 8}Q", raw[: len(raw) // 8 * 8]) for raw in extended
    )
    if len(offsets) != count or len(lengths) != count:
        raise _frame_count(count, f"the extended offset table has {len(offsets)} entries")
    by_offset = dict(items)
    frames = []
    for offset, length in zip(offsets, lengths, strict=True):
        if offset not in by_offset or length > len(by_offset[offset]):
            raise TruncatedPixelData(
                "The extended offset table points past the fragments. Fetch the file again."
            )
        frames.append([by_offset[offset][:length]])
    return frames


def _by_table(items: list[tuple[int, memoryview]], table: list[int]) -> list[Fragments]:
    """The frames between the offsets of the table; empty when an offset is not that of an item."""
    item_offsets = {offset for offset, _ in items}
    if (
        table[0] != 0
        or any(offset not in item_offsets for offset in table)
        or any(b <= a for a, b in pairwise(table))
    ):
        return []
    ends = [*table[1:], items[-1][0] + 1]
    return [
        [item for offset, item in items if start <= offset < end and len(item)]
        for start, end in zip(table, ends, strict=True)
    ]


def _without_table(items: list[tuple[int, memoryview]], count: int) -> list[Fragments]:
    """Frames without an offset table: one fragment per frame; or else a new frame starts where one
    codestream ends and the next one starts.
    """
    fragments = [item for _, item in items if len(item)]
    if len(fragments) < count:
        raise TruncatedPixelData(
            f"There are {len(fragments)} fragments for {count} frames. Fetch the file again."
        )
    if len(fragments) == count:
        return [[fragment] for fragment in fragments]
    frames: list[Fragments] = []
    for fragment in fragments:
        if not frames or (bytes(fragment[:4]).startswith(_STARTS) and _ended(frames[-1])):
            frames.append([fragment])
        else:
            frames[-1].append(fragment)
    if len(frames) != count:
        raise _frame_count(count, f"the {len(fragments)} fragments have {len(frames)} images")
    return frames


def _ended(frame: Fragments) -> bool:
    """Whether an end-of-image marker is there; anything may follow it."""
    return _END in b"".join(frame)


def _frame_count(count: int, finding: str) -> DecodeFailed:
    return DecodeFailed(
        f"NumberOfFrames is {count}, but {finding}. Correct the header.", code="frame_count"
    )
