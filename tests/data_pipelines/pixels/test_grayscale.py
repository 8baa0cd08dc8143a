"""The grey-scale functions against the standard's pseudo code, written out one value at a time."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from helpers import raises_code
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_pipelines.errors import InputError, Unreadable
from data_pipelines.pixels.grayscale import (
    UNDECLARED_FILL_HU,
    Lut,
    apply_lut,
    apply_polarity,
    is_window,
    lut_display,
    make_lut,
    min_max,
    mirror_stored_values,
    padding_mask,
    pixel_sha256,
    rescale,
    undeclared_fill,
    window,
)

values_strategy = hnp.arrays(np.float32, (2, 5), elements=st.integers(-4096, 4096).map(float))


def obvious_window(x: float, center: float, width: float, function: str) -> float:
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2 with an output range of 0 to 1."""
    if function == "LINEAR":
        if x <= center - 0.5 - (width - 1) / 2:
            return 0.0
        if x > center - 0.5 + (width - 1) / 2:
            return 1.0
        return (x - (center - 0.5)) / (width - 1) + 0.5
    if function == "LINEAR_EXACT":
        if x <= center - width / 2:
            return 0.0
        if x > center + width / 2:
            return 1.0
        return (x - center) / width + 0.5
    exponent = -4 * (x - center) / width
    return 0.0 if exponent > 300 else 1 / (1 + math.exp(exponent))


@given(
    values=values_strategy,
    center=st.integers(-4000, 8000).map(lambda n: n / 2),
    width=st.one_of(st.integers(1, 5000).map(float), st.sampled_from([1.0, 1.5, 2.0])),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_windows_against_the_standard(values, center, width, function):
    result = window(values, center, width, function)
    assert result.dtype == np.float32
    expected = [[obvious_window(float(x), center, width, function) for x in row] for row in values]
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6)


def test_a_window_of_width_one_is_a_step():
    values = np.array([9.0, 9.4, 9.5, 9.6, 10.0], np.float32)
    assert window(values, 10, 1).tolist() == [0, 0, 0, 1, 1]


def test_windows_worked_by_hand():
    values = np.array([-160, 40, 240, 239, 1000, -2000], np.float32)
    expected = [0.0, (40 - 39.5) / 399 + 0.5, 1.0, 239.5 / 399 + 0.5 - 40 / 399, 1.0, 0.0]
    np.testing.assert_allclose(window(values, 40, 400), expected, atol=1e-6)
    np.testing.assert_allclose(
        window(values, 40, 400, "LINEAR_EXACT"), [0, 0.5, 1, 0.9975, 1, 0], atol=1e-6
    )


@pytest.mark.parametrize(
    ("center", "width", "function", "usable"),
    [
        (0, 1, "LINEAR", True),
        (0, 0.9, "LINEAR", False),
        (0, 0.1, "LINEAR_EXACT", True),
        (0, 0, "LINEAR_EXACT", False),
        (0, -5, "SIGMOID", False),
        (math.nan, 5, "LINEAR", False),
        (0, math.inf, "LINEAR", False),
    ],
)
def test_what_is_a_window(center, width, function, usable):
    assert is_window(center, width, function) == usable
    if not usable:
        with raises_code(InputError, "bad_window", function):
            window(np.zeros(2), center, width, function)


@given(
    stored=hnp.arrays(np.int16, (2, 4)),
    slope=st.floats(-100, 100, allow_subnormal=False),
    intercept=st.floats(-5000, 5000, allow_subnormal=False),
)
def test_rescale_against_python_arithmetic(stored, slope, intercept):
    expected = [[float(np.float32(int(v) * slope + intercept)) for v in row] for row in stored]
    assert rescale(stored, slope, intercept).tolist() == expected


@given(
    stored=hnp.arrays(np.int16, (2, 4)),
    first=st.integers(-3000, 3000),
    table=hnp.arrays(np.uint16, st.integers(1, 40)),
)
def test_tables_against_the_standard(stored, first, table):
    """C.11.1.1: below the first value its entry, past the end the last entry."""
    expected = []
    for value in stored.ravel():
        index = int(value) - first
        expected.append(
            int(table[0] if index < 0 else table[-1] if index >= len(table) else table[index])
        )
    assert apply_lut(stored, Lut(first, table, 16)).ravel().tolist() == expected
    assert apply_lut(stored.astype(np.float32), Lut(first, table, 16)).ravel().tolist() == expected


def test_fractional_inputs_take_the_nearest_entry():
    table = Lut(10, np.array([1, 2, 3], np.uint16), 2)
    assert apply_lut(np.array([9.4, 10.6, 11.4, 11.6, 50.0]), table).tolist() == [1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("descriptor", "signed", "first", "entries"),
    [
        ((4, 10, 8), False, 10, 4),
        ((4, 65526, 8), True, -10, 4),
        ((4, 65526, 8), False, 65526, 4),
        ((4, -10, 8), True, -10, 4),
        ((4, -10, 8), False, 65526, 4),
        ((0, 0, 16), False, 0, 65536),
        ((65536, 0, 16), False, 0, 65536),
    ],
)
def test_descriptors(descriptor, signed, first, entries):
    lut = make_lut(descriptor, np.full(65536, 200, np.uint16), signed=signed)
    assert (lut.first, lut.table.size) == (first, entries)


@pytest.mark.parametrize(
    ("declared", "largest", "bits"),
    [
        (8, 255, 8),
        (12, 4095, 12),
        (12, 2040, 12),
        (16, 65535, 16),
        (16, 40000, 16),
        (16, 8000, 16),
        (16, 1023, 10),
        (8, 65535, 16),
        (10, 4095, 12),
        (0, 255, 8),
        (99, 255, 8),
    ],
)
def test_the_real_bit_range(declared, largest, bits):
    assert make_lut((2, 0, declared), np.array([0, largest], np.uint16), signed=False).bits == bits


def test_display_values_of_a_table():
    lut = make_lut((3, 0, 12), np.array([0, 2048, 4095], np.uint16), signed=False)
    np.testing.assert_allclose(
        lut_display(np.array([0, 1, 2]), lut), [0, 2048 / 4095, 1], rtol=1e-6
    )


def test_a_table_without_its_entries_is_refused():
    with raises_code(Unreadable, "bad_lut", "4", "3"):
        make_lut((4, 0, 8), np.arange(3), signed=False)


@given(values=values_strategy)
def test_min_max(values):
    display, low, high = min_max(values, None)
    assert (low, high) == (values.min(), values.max())
    if low == high:
        assert not display.any()
    else:
        expected = [(float(v) - low) / (high - low) for v in values.ravel()]
        np.testing.assert_allclose(display.ravel(), expected, atol=1e-6)


def test_min_max_leaves_padding_out():
    values = np.array([[-2000.0, 10, 20, 30]], np.float32)
    display, low, high = min_max(values, values == -2000)
    assert (low, high) == (10, 30)
    assert display.tolist() == [[0, 0, 0.5, 1]]
    assert min_max(values, np.ones_like(values, bool))[1] == -2000


@pytest.mark.parametrize(
    ("dtype", "value", "limit", "masked"),
    [
        ("i2", -2000, None, [-2000]),
        ("i2", 63536, None, [-2000]),
        ("i2", -2000, -1500, [-2000, -1600]),
        ("i2", 63536, 64036, [-2000, -1600]),
        ("i2", -1500, -2000, [-2000, -1600]),
        ("i2", 5, None, []),
        ("u2", 65535, None, [65535]),
        ("u2", -1, None, [65535]),
        ("u1", 255, None, [255]),
        ("u2", 0, 10, [0, 7]),
    ],
)
def test_padding_is_masked_in_the_sign_of_the_stored_values(dtype, value, limit, masked):
    signed = [-2000, -1600, -1, 0, 7, 30000]
    unsigned = [0, 7, 255] if dtype == "u1" else [0, 7, 30000, 65535]
    stored = np.array(signed if dtype == "i2" else unsigned, dtype)
    mask = padding_mask(stored, value, limit)
    assert ([] if mask is None else stored[mask].tolist()) == masked


def test_an_undeclared_fill_is_found_only_where_it_is_one():
    image = np.full((10, 20), 40.0, np.float32)
    assert undeclared_fill(image) is None
    image[0, 0] = -3000
    assert undeclared_fill(image) is None
    image[0, :2] = [-3000, -2990]
    np.testing.assert_array_equal(undeclared_fill(image), image < -1500)
    image[image < 0] = -1400
    assert undeclared_fill(image) is None


@given(stored=hnp.arrays(np.uint16, (2, 3), elements=st.integers(0, 1023)))
def test_inversion_mirrors_in_the_stored_range_and_undoes_itself(stored):
    assert mirror_stored_values(stored, 10).tolist() == [
        [1023 - int(v) for v in row] for row in stored
    ]
    assert mirror_stored_values(mirror_stored_values(stored, 10), 10).tolist() == stored.tolist()


@given(stored=hnp.arrays(np.int16, (2, 3), elements=st.integers(-2048, 2047)))
def test_inversion_of_signed_values(stored):
    assert mirror_stored_values(stored, 12).tolist() == [
        [-1 - int(v) for v in row] for row in stored
    ]


def test_only_monochrome1_is_inverted_and_display_values_stay_in_range():
    display = np.array([[0.0, 0.25, 1.0]], np.float32)
    inverted = apply_polarity(display, "MONOCHROME1")
    assert inverted.tolist() == [[1.0, 0.75, 0.0]]
    assert inverted.dtype == np.float32
    assert apply_polarity(display, "MONOCHROME2") is display


def test_equal_pixels_hash_equal_whatever_holds_them():
    values = np.arange(12).reshape(3, 4)
    hashes = {
        pixel_sha256(values.astype(dtype)) for dtype in ("u1", "i1", "u2", "i2", "u4", "i4", ">u2")
    }
    assert hashes == {hashlib.sha256(b"(3, 4)<u2" + values.astype("<u2").tobytes()).hexdigest()}
    assert pixel_sha256(values.astype("u1").T) not in hashes
    assert pixel_sha256(np.asfortranarray(values)) in hashes
    assert pixel_sha256(-values.astype("i2")) == pixel_sha256(-values.astype("i4"))
    assert pixel_sha256(values.reshape(4, 3)) not in hashes
    assert pixel_sha256(values + 2**40) != pixel_sha256(values)


def test_bounds_of_the_rules():
    lut = make_lut((2, 0x8000, 8), np.array([1, 255]), signed=True)
    assert (lut.first, lut.bits) == (-32768, 8)
    assert make_lut((2, 0x7FFF, 8), np.array([1, 255]), signed=True).first == 32767
    assert (
        make_lut((2, 0, 16), np.array([0, 4095]), signed=False).bits == 12
    )  # 12 bits, declared as the word's 16
    assert make_lut((2, 0, 16), np.array([0, 4096]), signed=False).bits == 16
    assert make_lut((2, 0, 17), np.array([0, 255]), signed=False).bits == 8  # no table has 17
    assert make_lut((2, 0, 0), np.array([0, 0]), signed=False).bits == 1
    assert lut_display(np.array([[0, 1]]), lut).dtype == np.float32
    stored = np.array([[-3, -2, -1, 0]], np.int16)
    assert padding_mask(stored, -2, 0).tolist() == [
        [False, True, True, True]
    ]  # both bounds belong to it
    assert padding_mask(stored, 5, None) is None
    at = np.full((10, 10), UNDECLARED_FILL_HU, np.float32)  # -1500 HU itself is no fill
    assert undeclared_fill(at) is None
    at[0, 0] -= 1
    assert undeclared_fill(at).sum() == 1  # 1 % of the image is enough
    at[0, 0] += 1
    at = np.concatenate([at, at])
    at[0, 0] -= 1
    assert undeclared_fill(at) is None


def test_pixel_hashes_of_the_largest_values_stay_what_they_were():
    """The manifest keeps them: another release must find the same."""
    expected = hashlib.sha256(b"(1, 2)<u2" + np.array([0, 65535], "<u2").tobytes()).hexdigest()
    assert (
        pixel_sha256(np.array([[0, 65535]], np.uint16))
        == pixel_sha256(np.array([[0, 65535]], np.int32))
        == expected
    )
    expected = hashlib.sha256(b"(1, 2)<i2" + np.array([-32768, 32767], "<i2").tobytes()).hexdigest()
    assert pixel_sha256(np.array([[-32768, 32767]], np.int16)) == expected


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept"),
    [
        ("int16", 1, -1024),
        ("uint16", 2, -1024),
        ("int16", -3, 7),
        ("uint16", 256, 255),
        ("uint16", 257, 3),
        ("uint16", 0.5, 1),
    ],
)
def test_rescale_is_the_exact_value_rounded_once(
    dtype: str, slope: float, intercept: float
) -> None:
    """Also just below and above 2^24, where whole numbers stop being exact in float32."""
    info = np.iinfo(dtype)
    stored = np.array([[info.min, info.min + 1, 0, 1, 1234, info.max - 1, info.max]], dtype)
    result = rescale(stored, slope, intercept)
    assert result.dtype == np.float32
    assert result.tolist() == [[float(np.float32(int(v) * slope + intercept)) for v in stored[0]]]


def test_display_values_are_float32_and_stay_in_range() -> None:
    values = np.array([[0, 5, 10, 100, -100]], np.int16)
    padding = np.array([[False, False, False, True, True]])
    display, low, high = min_max(values, padding)
    assert (display.dtype, low, high) == (np.float32, 0.0, 10.0)
    assert display.tolist() == [[0.0, 0.5, 1.0, 1.0, 0.0]]
    assert min_max(np.ones((2, 2), np.int16), None)[0].dtype == np.float32
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        result = window(np.array([[-1e30, 0.0, 1e30]], np.float32), 0.0, 100.0, function)
        assert result.dtype == np.float32
        assert (result[0, 0], result[0, 2]) == (pytest.approx(0, abs=1e-30), 1.0)


def test_tables_round_fractions_and_keep_whole_numbers_beyond_float32() -> None:
    lut = Lut(0, np.arange(4), 8)
    assert apply_lut(np.array([0.4, 1.6, 2.5]), lut).tolist() == [0, 2, 2]
    far = Lut((1 << 24) + 1, np.array([7, 8]), 8)
    assert apply_lut(np.array([(1 << 24) + 1, (1 << 24) + 2], np.int64), far).tolist() == [7, 8]


def test_rescale_looks_at_the_product_before_the_intercept_takes_it_down() -> None:
    """65535 x 257 is above 2^24 and odd, what is left after the intercept is not above: float32
    would be off by one.
    """
    assert rescale(np.array([[65535]], np.uint16), 257.0, -100000.0).tolist() == [[16742495.0]]


def test_rescale_is_infinite_without_a_warning_where_float32_ends() -> None:
    assert rescale(np.array([[65535, 0]], np.uint16), 1e300, 0.5).tolist() == [[math.inf, 0.5]]
