"""What data sets say of their grey scale, with the defects that real ones have."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import raises_code
from pydicom.dataset import Dataset

from data_pipelines.dicom.reader import parse
from data_pipelines.errors import Unreadable
from data_pipelines.pixels.grayscale import window
from data_pipelines.pixels.grayscale_module import (
    frame_group,
    read_modality,
    read_padding,
    read_voi,
)

PIXELS = np.arange(48, dtype=np.int16).reshape(6, 8)
SIGNED, UNSIGNED = (-32768, 32767), (0, 65535)


def lut_item(
    descriptor: list[int], data: list[int] | bytes, *, vr: str = "US", signed: bool = False
) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "SS" if signed else "US", descriptor)
    item.add_new(0x00283006, vr, data)
    return item


def groups(**macros: dict[str, object]) -> Dataset:
    """A functional groups item: macro sequence keyword -> its elements."""
    group = Dataset()
    for sequence, elements in macros.items():
        item = Dataset()
        for keyword, value in elements.items():
            setattr(item, keyword, value)
        setattr(group, sequence, [item])
    return group


def reread(dataset: Dataset, to_bytes) -> Dataset:
    return parse(to_bytes(dataset), pixels=True).dataset


@pytest.mark.parametrize(
    ("elements", "slope", "intercept", "declared"),
    [
        ({}, 1, 0, False),
        ({"RescaleSlope": 2, "RescaleIntercept": -1024}, 2, -1024, True),
        ({"RescaleIntercept": -1024}, 1, -1024, True),
        ({"RescaleSlope": 0.5}, 0.5, 0, True),
        ({"RescaleSlope": "", "RescaleIntercept": "-1024"}, 1, -1024, True),
    ],
)
def test_rescale(grey, to_bytes, elements, slope, intercept, declared):
    modality = read_modality(reread(grey(PIXELS, **elements), to_bytes), 0, signed=True)
    assert (modality.slope, modality.intercept, modality.declared, modality.lut) == (
        slope,
        intercept,
        declared,
        None,
    )
    np.testing.assert_array_equal(modality.apply(PIXELS), PIXELS * slope + intercept)


@pytest.mark.parametrize("wrong", [b"nan ", b"inf ", b"a.0 ", b"0.0 "])
def test_a_rescale_without_meaning_is_an_error(grey, to_bytes, wrong):
    data = to_bytes(grey(PIXELS, RescaleSlope="2.0", RescaleIntercept="-100"))
    with raises_code(Unreadable, "bad_modality_transform", "RescaleSlope"):
        read_modality(parse(data.replace(b"2.0 ", wrong), pixels=True).dataset, 0, signed=True)


def test_a_modality_lut_wins_over_a_rescale(grey, to_bytes):
    item = lut_item([4, 1, 12], [0, 100, 200, 4095])
    item.ModalityLUTType = "OD"
    dataset = reread(grey(PIXELS, RescaleSlope=3, ModalityLUTSequence=[item]), to_bytes)
    modality = read_modality(dataset, 0, signed=True)
    assert modality.unit == "OD"
    assert modality.declared
    assert modality.apply(np.array([-5, 0, 1, 2, 3, 4, 99], np.int16)).tolist() == [
        0,
        0,
        0,
        100,
        200,
        4095,
        4095,
    ]


def test_the_first_value_of_a_modality_lut_follows_the_pixels_sign(grey, to_bytes):
    item = lut_item([2, -4, 8], [10, 20], signed=True)
    dataset = reread(grey(PIXELS, ModalityLUTSequence=[item]), to_bytes)
    assert read_modality(dataset, 0, signed=True).apply(np.array([-4, -3], np.int16)).tolist() == [
        10,
        20,
    ]
    assert read_modality(dataset, 0, signed=False).apply(
        np.array([65532, 65533], np.uint16)
    ).tolist() == [10, 20]


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
@pytest.mark.parametrize(
    "data",
    [([7, 8, 900], "US"), (np.array([7, 8, 900], "<u2").tobytes(), "OW")],
    ids=["words", "bytes"],
)
def test_lut_data_in_words_and_in_bytes(grey, to_bytes, syntax, data):
    item = lut_item([3, 0, 10], data[0], vr=data[1])
    dataset = reread(grey(PIXELS, syntax=syntax, ModalityLUTSequence=[item]), to_bytes)
    assert read_modality(dataset, 0, signed=True).apply(np.arange(3, dtype=np.int16)).tolist() == [
        7,
        8,
        900,
    ]


def test_lut_data_of_one_byte_an_entry(grey, to_bytes):
    item = lut_item([3, 0, 8], b"\x07\x08\xff\x00", vr="OW")
    dataset = reread(grey(PIXELS, ModalityLUTSequence=[item]), to_bytes)
    assert read_modality(dataset, 0, signed=True).apply(np.arange(3, dtype=np.int16)).tolist() == [
        7,
        8,
        255,
    ]


def test_lut_data_in_big_endian(grey, to_bytes):
    item = lut_item([3, 0, 16], np.array([7, 8, 900], ">u2").tobytes(), vr="OW")
    dataset = grey(
        PIXELS,
        syntax="1.2.840.10008.1.2.2",
        data=PIXELS.astype(">i2").tobytes(),
        ModalityLUTSequence=[item],
    )
    dataset["PixelData"].VR = "OW"
    modality = read_modality(reread(dataset, to_bytes), 0, signed=True)
    assert modality.apply(np.arange(3, dtype=np.int16)).tolist() == [7, 8, 900]
    del dataset.ModalityLUTSequence
    dataset.VOILUTSequence = [item]
    voi, _ = voi_of(reread(dataset, to_bytes))
    assert voi.lut is not None
    assert voi.lut.table.tolist() == [7, 8, 900]


def test_an_eight_bit_table_with_more_than_256_entries(grey, to_bytes):
    """pydicom's apply_voi wraps the indices of such a table."""
    item = lut_item([1000, 0, 8], [min(n // 4, 255) for n in range(1000)])
    dataset = reread(grey(PIXELS, Modality="CR", VOILUTSequence=[item]), to_bytes)
    voi, _ = read_voi(dataset, 0, read_modality(dataset, 0, signed=False), UNSIGNED)
    display, record = voi.apply(np.array([0, 400, 999, 2000], np.float32), None)
    np.testing.assert_allclose(display, [0, 100 / 255, 249 / 255, 249 / 255], atol=1e-6)
    assert record == {"kind": "lut", "entries": 1000, "bits": 8, "alternatives": 1}


@pytest.mark.parametrize(
    ("descriptor", "mention"), [([4, 0], "(0028,3002)"), ([9, 0, 8], "9 entries")]
)
def test_broken_tables_are_refused_by_name(grey, to_bytes, descriptor, mention):
    dataset = reread(
        grey(PIXELS, ModalityLUTSequence=[lut_item(descriptor, [1, 2, 3, 4])]), to_bytes
    )
    with raises_code(Unreadable, "bad_modality_transform", mention):
        read_modality(dataset, 0, signed=True)
    dataset = reread(grey(PIXELS, VOILUTSequence=[lut_item(descriptor, [1, 2, 3, 4])]), to_bytes)
    with raises_code(Unreadable, "bad_voi_lut", mention):
        voi_of(dataset)


def test_no_entries_mean_65536(grey, to_bytes):
    """C.11.1.1: the number does not fit its element. As bytes, one an entry, and as words."""
    for data, bits, last in (
        (bytes(range(256)) * 256, 8, 255),
        (np.arange(65536, dtype="<u2").tobytes(), 16, 65535),
    ):
        item = lut_item([0, 0, bits], data, vr="OW")
        modality = read_modality(
            reread(grey(PIXELS, ModalityLUTSequence=[item]), to_bytes), 0, signed=False
        )
        assert modality.apply(np.array([0, 200, 65535], np.uint16)).tolist() == [0, 200, last]


def test_a_lone_word_is_a_table_of_one(grey):
    dataset = grey(PIXELS, ModalityLUTSequence=[lut_item([1, 0, 16], 900)])
    assert read_modality(dataset, 0, signed=True).apply(np.arange(2, dtype=np.int16)).tolist() == [
        900,
        900,
    ]


@pytest.mark.parametrize(
    ("elements", "signed", "first"),
    [
        ({"RescaleSlope": 1, "RescaleIntercept": -1024}, False, -100),
        ({"RescaleSlope": 1, "RescaleIntercept": 0}, True, -100),
        ({"RescaleSlope": 1, "RescaleIntercept": 0}, False, 65436),
        ({"RescaleSlope": 1, "RescaleIntercept": 32768}, True, 65436),
        ({"RescaleSlope": -1, "RescaleIntercept": 65535}, False, 65436),
        ({"RescaleSlope": -1, "RescaleIntercept": 4095}, False, -100),
        ({}, True, -100),
        ({}, False, 65436),
    ],
)
def test_the_sign_of_a_voi_luts_first_value(grey, to_bytes, elements, signed, first):
    """C.11.2.1.1: signed where the modality output can be negative; PixelRepresentation only
    without a modality.
    """
    dataset = reread(
        grey(PIXELS, VOILUTSequence=[lut_item([2, 65436, 8], [0, 255])], **elements), to_bytes
    )
    voi, _ = read_voi(
        dataset, 0, read_modality(dataset, 0, signed=signed), SIGNED if signed else UNSIGNED
    )
    assert voi.lut is not None
    assert voi.lut.first == first


def voi_of(dataset: Dataset):
    return read_voi(dataset, 0, read_modality(dataset, 0, signed=True), SIGNED)


def test_a_voi_lut_wins_over_a_window_and_the_first_window_over_the_others(grey, to_bytes):
    windows = {"WindowCenter": [40, 400, 7], "WindowWidth": [400, 1500, 9]}
    voi, codes = voi_of(reread(grey(PIXELS, **windows), to_bytes))
    assert (voi.center, voi.width, voi.function, voi.alternatives, codes) == (
        40,
        400,
        "LINEAR",
        3,
        (),
    )
    tables = [lut_item([2, 0, 8], [0, 255]), lut_item([2, 0, 8], [255, 0])]
    voi, _ = voi_of(reread(grey(PIXELS, VOILUTSequence=tables, **windows), to_bytes))
    assert voi.lut is not None
    assert voi.lut.table.tolist() == [0, 255]
    assert voi.alternatives == 2


@pytest.mark.parametrize(
    ("elements", "expected", "codes"),
    [
        ({"WindowCenter": "", "WindowWidth": ""}, None, ()),
        ({"WindowCenter": "40"}, None, ()),
        ({"WindowCenter": "40", "WindowWidth": "0"}, None, ("unusable_window",)),
        (
            {"WindowCenter": ["40", "50"], "WindowWidth": ["0", "100"]},
            (50, 100, "LINEAR"),
            ("unusable_window",),
        ),
        ({"WindowCenter": "40", "WindowWidth": "1"}, (40, 1, "LINEAR"), ()),
        ({"WindowCenter": "40", "WindowWidth": "0.5"}, None, ("unusable_window",)),
        (
            {"WindowCenter": "40", "WindowWidth": "0.5", "VOILUTFunction": "SIGMOID"},
            (40, 0.5, "SIGMOID"),
            (),
        ),
        ({"WindowCenter": "40", "WindowWidth": "80", "VOILUTFunction": ""}, (40, 80, "LINEAR"), ()),
        (
            {"WindowCenter": "40", "WindowWidth": "80", "VOILUTFunction": "LINEAR_EXACT"},
            (40, 80, "LINEAR_EXACT"),
            (),
        ),
        (
            {"WindowCenter": "40", "WindowWidth": "80", "VOILUTFunction": "CUBIC"},
            (40, 80, "LINEAR"),
            ("unknown_VOILUTFunction",),
        ),
    ],
)
def test_windows_as_they_are_written(grey, to_bytes, elements, expected, codes):
    voi, problems = voi_of(reread(grey(PIXELS, **elements), to_bytes))
    assert problems == codes
    assert (None if not voi.alternatives else (voi.center, voi.width, voi.function)) == expected


def test_a_window_is_applied_with_its_function_and_recorded(grey):
    values = np.array([-500, 0, 39, 40, 41, 100, 900], np.float32)
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        voi, _ = voi_of(
            grey(PIXELS, WindowCenter=[40, 50], WindowWidth=[300, 80], VOILUTFunction=function)
        )
        display, record = voi.apply(values, None)
        np.testing.assert_array_equal(display, window(values, 40, 300, function))
        assert record == {
            "kind": "window",
            "center": 40,
            "width": 300,
            "function": function,
            "alternatives": 2,
        }


def test_a_window_that_is_no_number_is_passed_over_and_named(grey, to_bytes):
    data = to_bytes(grey(PIXELS, WindowCenter="40.0", WindowWidth="80.0"))
    voi, codes = voi_of(parse(data.replace(b"80.0", b"wide"), pixels=True).dataset)
    assert (voi.alternatives, codes) == (0, ("invalid_WindowWidth",))


def test_without_any_voi_the_unpadded_range_is_taken_and_recorded(grey):
    voi, _ = voi_of(grey(PIXELS))
    display, record = voi.apply(np.array([-99, 10, 20], np.float32), np.array([True, False, False]))
    assert record == {"kind": "min_max", "low": 10.0, "high": 20.0, "alternatives": 0}
    assert display.tolist() == [0, 0, 1]


def test_functional_groups_of_the_frame_win_over_the_shared_and_those_over_the_top(grey, to_bytes):
    transform = "PixelValueTransformationSequence"
    dataset = grey(
        np.stack([PIXELS] * 3),
        RescaleSlope=9,
        RescaleIntercept=9,
        SharedFunctionalGroupsSequence=[
            groups(
                FrameVOILUTSequence={"WindowCenter": 40, "WindowWidth": 400},
                PixelValueTransformationSequence={
                    "RescaleSlope": 1,
                    "RescaleIntercept": -1024,
                    "RescaleType": "HU",
                },
            )
        ],
        PerFrameFunctionalGroupsSequence=[
            groups(
                **{transform: {"RescaleSlope": 2, "RescaleIntercept": -10, "RescaleType": "US"}}
            ),
            Dataset(),
            groups(**{transform: {"RescaleSlope": 3, "RescaleIntercept": 0, "RescaleType": "HU"}}),
        ],
    )
    again = reread(dataset, to_bytes)
    transforms = [read_modality(again, frame, signed=True) for frame in range(3)]
    assert [(m.slope, m.intercept, m.unit) for m in transforms] == [
        (2, -10, "US"),
        (1, -1024, "HU"),
        (3, 0, "HU"),
    ]
    assert read_voi(again, 2, transforms[2], SIGNED)[0].center == 40
    assert frame_group(again, 0, "PlanePositionSequence").dataset is again


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, (None, None)),
        ({"PixelPaddingValue": -2000}, (-2000, None)),
        ({"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1500}, (-2000, -1500)),
    ],
)
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_padding(grey, to_bytes, elements, expected, syntax):
    assert read_padding(reread(grey(PIXELS, syntax=syntax, **elements), to_bytes)) == expected
