"""Frames out of fragments, with pydicom's generator as the oracle where the data are sound."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from data_pipelines.errors import DecodeFailed, DicomError, TruncatedPixelData
from data_pipelines.pixels.encapsulation import encapsulated_frames

START, END = b"\xff\xd8\xff", b"\xff\xd9"


def joined(data: bytes, count: int, extended: tuple[bytes, bytes] | None = None) -> list[bytes]:
    return [b"".join(fragments) for fragments in encapsulated_frames(data, count, extended)[0]]


def item(payload: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<L", len(payload)) + payload


EMPTY_TABLE = item(b"")
# As in entropy-coded data, no marker inside; long enough that no marker is split between fragments,
# which pydicom misses.
frames_strategy = st.lists(
    st.binary(min_size=60, max_size=90).map(lambda b: START + b.replace(b"\xff", b"\0") + END),
    min_size=1,
    max_size=5,
)


@given(frames=frames_strategy, fragments=st.integers(1, 4), table=st.booleans())
def test_sound_data_agree_with_pydicom(frames, fragments, table):
    data = encapsulate(frames, fragments_per_frame=fragments, has_bot=table)
    split_frames, repairs = encapsulated_frames(data, len(frames))
    assert [b"".join(f) for f in split_frames] == list(
        generate_frames(data, number_of_frames=len(frames))
    )
    assert [
        bytes(b"".join(f))[: len(original)]
        for f, original in zip(split_frames, frames, strict=True)
    ] == frames
    assert repairs == ()


@given(frames=frames_strategy)
def test_extended_offset_tables_give_each_frame_at_the_length_they_state(frames):
    data, offsets, _ = encapsulate_extended(frames)
    lengths = struct.pack(f"<{len(frames)}Q", *map(len, frames))
    assert joined(data, len(frames), (offsets, lengths)) == frames


def test_a_fragment_is_not_a_frame():
    parts = [START + b"ab", b"cd", b"ef" + END + b"\0", START + b"gh" + END]
    data = EMPTY_TABLE + b"".join(map(item, parts))
    assert joined(data, 2) == [b"".join(parts[:3]), parts[3]]
    assert joined(EMPTY_TABLE + b"".join(map(item, parts[:3])), 1) == [b"".join(parts[:3])]


def test_a_marker_split_between_fragments_still_ends_a_frame():
    parts = [START + b"ab\xff", b"\xd9", START + b"cd" + END]
    assert joined(EMPTY_TABLE + b"".join(map(item, parts)), 2) == [parts[0] + parts[1], parts[2]]


def test_an_empty_last_fragment_and_padding_after_the_delimiter_are_passed_over():
    data = (
        EMPTY_TABLE
        + item(START + b"ab" + END)
        + item(b"")
        + b"\xfe\xff\xdd\xe0\0\0\0\0"
        + b"\0" * 6
    )
    assert joined(data, 1) == [START + b"ab" + END]
    table = item(struct.pack("<L", 0)) + item(START + b"ab" + END) + item(b"") + b"\0" * 9
    assert joined(table, 1) == [START + b"ab" + END]


def test_a_wrong_offset_table_is_passed_over_and_named():
    data = item(struct.pack("<2L", 0, 999)) + item(START + b"ab" + END) + item(START + b"cd" + END)
    split_frames, repairs = encapsulated_frames(data, 2)
    assert [b"".join(f) for f in split_frames] == [START + b"ab" + END, START + b"cd" + END]
    assert repairs == ("wrong_offset_table",)


@pytest.mark.parametrize(
    "data",
    [
        EMPTY_TABLE + item(b"abcdef")[:-2],
        EMPTY_TABLE + item(START + b"ab" + END),
        EMPTY_TABLE,
        b"",
        b"\xfe\xff\x00\xe0",
    ],
)
def test_missing_bytes_and_missing_frames_are_truncation(data):
    with pytest.raises(TruncatedPixelData):
        encapsulated_frames(data, 2)


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (item(struct.pack("<2L", 0, 14)) + item(START + b"a" + END) + item(START + b"b" + END), 1),
        (EMPTY_TABLE + item(START + b"a" + END) * 3, 1),
        (EMPTY_TABLE + item(START + b"a" + END) * 3, 2),
    ],
)
def test_more_frames_than_the_header_says_are_an_error_and_never_dropped(data, count):
    with pytest.raises(DecodeFailed) as caught:
        encapsulated_frames(data, count)
    assert caught.value.code == "frame_count"


def test_extended_tables_are_checked():
    data, offsets, lengths = encapsulate_extended([START + b"ab" + END, START + b"cd" + END])
    with pytest.raises(DecodeFailed):
        encapsulated_frames(data, 1, (offsets, lengths))
    with pytest.raises(TruncatedPixelData):
        encapsulated_frames(data, 2, (struct.pack("<2Q", 0, 3), lengths))
    with pytest.raises(TruncatedPixelData):
        encapsulated_frames(data, 2, (offsets, struct.pack("<2Q", 4, 10**12)))


def test_junk_between_items_is_an_error():
    with pytest.raises(DecodeFailed):
        encapsulated_frames(EMPTY_TABLE + b"JUNKJUNK" + item(b"ab"), 1)


@given(data=st.binary(max_size=200), count=st.integers(1, 3), start=st.booleans())
def test_any_bytes_end_in_frames_or_in_a_named_reason(data, count, start):
    whole = (EMPTY_TABLE if start else b"") + data
    try:
        split_frames = joined(whole, count)
    except DicomError:
        return
    assert len(split_frames) == count
    assert sum(map(len, split_frames)) <= len(whole)


def test_a_frame_ends_at_its_marker_whatever_follows_it():
    first, second = b"\xff\xd8first", b"\xff\xd8other"
    end = b"\xff\xd9" + bytes(40)
    data = b"".join(map(item, (b"", first, b"rest" + end, second, b"rest" + end)))
    assert joined(data, 2) == [first + b"rest" + end, second + b"rest" + end]
