"""What a compressed frame says of itself."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.pixels.codestream import Codestream, read_codestream

RAMP8 = np.arange(7 * 9, dtype=np.uint8).reshape(7, 9)
RAMP16 = (np.arange(7 * 9, dtype=np.uint16) * 900).reshape(7, 9)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (imagecodecs.jpeg8_encode(RAMP8), Codestream(7, 9, 8, None, 1, True)),
        (
            imagecodecs.jpeg8_encode(RAMP16 >> 4, bitspersample=12),
            Codestream(7, 9, 12, None, 1, True),
        ),
        (imagecodecs.jpeg8_encode(np.stack([RAMP8] * 3, -1)), Codestream(7, 9, 8, None, 3, True)),
        (imagecodecs.ljpeg_encode(RAMP16, bitspersample=16), Codestream(7, 9, 16, None, 1, True)),
        (imagecodecs.jpegls_encode(RAMP16), Codestream(7, 9, 16, None, 1, True)),
        (
            imagecodecs.jpeg2k_encode(RAMP16, codecformat="j2k"),
            Codestream(7, 9, 16, False, 1, True),
        ),
        (
            imagecodecs.jpeg2k_encode(RAMP16.view(np.int16), codecformat="j2k"),
            Codestream(7, 9, 16, True, 1, True),
        ),
        (
            imagecodecs.jpeg2k_encode(RAMP16, codecformat="jp2"),
            Codestream(7, 9, 16, False, 1, True),
        ),
        (imagecodecs.htj2k_encode(RAMP16), Codestream(7, 9, 16, False, 1, True)),
    ],
)
def test_parameters(data, expected):
    data = bytes(data)
    assert read_codestream(data) == expected
    assert read_codestream(data + b"\0") == expected
    assert read_codestream(data + b"\0" * 100) == expected
    cut = read_codestream(data[:-2])
    assert cut is not None
    assert not cut.complete


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x04", b"RIFF" * 9, b"\xff\x4f\xff\x51\x00"]
)
def test_what_is_no_stream_gives_none(data):
    assert read_codestream(data) is None


@given(
    data=st.binary(max_size=300), head=st.sampled_from([b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b""])
)
def test_any_bytes_are_answered(data, head):
    stream = read_codestream(head + data)
    assert stream is None or stream.precision > 0 or head == b"\xff\xd8\xff"
