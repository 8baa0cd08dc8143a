"""One image in model units, end to end, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from data_pipelines.errors import ColourImage, Ineligible, InputError, NoPixelData, Unreadable
from data_pipelines.kinds import AIR_HU
from data_pipelines.pixels.image import read_image

RAMP = (np.arange(100 * 8, dtype=np.int16) % 2000).reshape(100, 8)
SMALL = np.array([[0, 10, 20, 30], [40, 50, 60, 100]], np.uint16)


def macro(sequence: str, **elements) -> Dataset:
    group, item = Dataset(), Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    setattr(group, sequence, [item])
    return group


def test_ct_in_hounsfield_units(grey, to_bytes):
    image = read_image(
        to_bytes(
            grey(
                RAMP,
                RescaleSlope=1,
                RescaleIntercept=-1024,
                PixelSpacing=[0.7, 0.6],
                WindowCenter=40,
                WindowWidth=80,
            )
        )
    )
    assert (
        image.units,
        image.kind,
        image.spacing_mm,
        image.padding,
        image.repairs,
        image.frame,
    ) == (
        "HU",
        "ct",
        (0.7, 0.6),
        None,
        (),
        0,
    )
    assert image.pixels.dtype == np.float32
    np.testing.assert_array_equal(image.pixels, RAMP - 1024.0)
    assert image.voi == {"kind": "none"}


@pytest.mark.parametrize("padding_vr_value", [-2000, 63536])
def test_ct_padding_becomes_air_and_is_marked(grey, to_bytes, padding_vr_value):
    pixels = RAMP.copy()
    pixels[:5] = -2000
    dataset = grey(pixels, RescaleSlope=1, RescaleIntercept=-24)
    dataset.add_new(0x00280120, "SS" if padding_vr_value < 0 else "US", padding_vr_value)
    image = read_image(to_bytes(dataset))
    expected = RAMP - 24.0
    expected[:5] = AIR_HU
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.padding is not None
    assert image.padding[:5].all()
    assert not image.padding[5:].any()
    assert image.repairs == ()


def test_an_undeclared_fill_is_repaired_by_name(grey):
    pixels = RAMP.copy()
    pixels[:5] = -2000
    image = read_image(grey(pixels, RescaleSlope=1, RescaleIntercept=-24))
    assert image.pixels[:5].max() == AIR_HU
    assert image.padding is not None
    assert image.padding.sum() == 40
    assert image.repairs == ("undeclared_padding",)


@pytest.mark.parametrize(
    ("elements", "units"),
    [
        ({"RescaleType": "HU"}, "HU"),
        ({"RescaleType": "US"}, "raw"),
        ({"RescaleType": "Z_EFF"}, "raw"),
        ({"RescaleType": "MGML"}, "raw"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "raw"),
        ({"ImageType": ["DERIVED", "PRIMARY", "PERFUSION", "RCBF"]}, "raw"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "HU"),
        ({"RescaleSlope": None, "RescaleIntercept": None}, "raw"),
        ({"Modality": "MR"}, "raw"),
        ({"Modality": "PT"}, "raw"),
    ],
)
def test_hounsfield_units_only_where_they_are_true(grey, elements, units):
    assert (
        read_image(grey(RAMP, **{"RescaleSlope": 1, "RescaleIntercept": -1024, **elements})).units
        == units
    )


def test_rescale_differs_by_frame_in_an_enhanced_object(grey, to_bytes):
    name = "PixelValueTransformationSequence"
    frames = [
        macro(name, RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU"),
        macro(name, RescaleSlope=2, RescaleIntercept=-1000, RescaleType="HU"),
    ]
    shared = macro("PixelMeasuresSequence", PixelSpacing=[0.4, 0.3])
    dataset = grey(
        np.stack([RAMP, RAMP]),
        PerFrameFunctionalGroupsSequence=frames,
        SharedFunctionalGroupsSequence=[shared],
    )
    whole = to_bytes(dataset)
    first, second = read_image(whole), read_image(whole, frame=1)
    np.testing.assert_array_equal(first.pixels, RAMP - 1024.0)
    np.testing.assert_array_equal(second.pixels, 2.0 * RAMP - 1000)
    assert (first.units, second.units, second.frame, second.spacing_mm) == (
        "HU",
        "HU",
        1,
        (0.4, 0.3),
    )
    with pytest.raises(InputError):
        read_image(whole, frame=2)


def test_a_radiograph_through_its_window(grey, to_bytes):
    image = read_image(to_bytes(grey(SMALL, Modality="CR", WindowCenter=50.5, WindowWidth=101)))
    np.testing.assert_allclose(image.pixels, SMALL / 100, atol=1e-6)
    assert (image.units, image.kind, image.spacing_mm) == ("display", "radiograph", None)
    assert image.voi == {
        "kind": "window",
        "center": 50.5,
        "width": 101.0,
        "function": "LINEAR",
        "alternatives": 1,
        "inverted": False,
    }


def test_monochrome1_is_inverted_on_the_output_range_and_not_by_the_images_maximum(grey):
    window = {"Modality": "CR", "WindowCenter": 100.5, "WindowWidth": 201}
    upright = read_image(grey(SMALL, **window))
    inverted = read_image(grey(SMALL, PhotometricInterpretation="MONOCHROME1", **window))
    np.testing.assert_allclose(inverted.pixels, 1 - upright.pixels, atol=1e-6)
    assert inverted.pixels.min() == pytest.approx(0.5, abs=1e-6)
    assert inverted.voi["inverted"] is True


def test_without_a_voi_the_unpadded_range_is_spread(grey):
    image = read_image(grey(SMALL, Modality="CR", PixelPaddingValue=100))
    assert image.voi == {
        "kind": "min_max",
        "low": 0.0,
        "high": 60.0,
        "alternatives": 0,
        "inverted": False,
    }
    np.testing.assert_allclose(
        image.pixels, [[0, 1 / 6, 2 / 6, 3 / 6], [4 / 6, 5 / 6, 1, 0]], atol=1e-6
    )
    assert image.padding is not None
    assert image.padding.tolist() == [[False] * 4, [False, False, False, True]]


def test_padding_of_an_inverted_image_is_dark_too(grey):
    image = read_image(
        grey(SMALL, Modality="CR", PixelPaddingValue=0, PhotometricInterpretation="MONOCHROME1")
    )
    assert image.pixels[0, 0] == 0
    assert image.pixels[0, 1] == 1


def test_modality_then_voi_then_polarity(grey):
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [3, 100, 8], [0, 51, 255]
    table["LUTData"].VR = "US"
    image = read_image(
        grey(
            SMALL,
            Modality="DX",
            RescaleSlope=0.1,
            RescaleIntercept=98,
            VOILUTSequence=[table],
            WindowCenter=1,
            WindowWidth=2,
            PhotometricInterpretation="MONOCHROME1",
        )
    )
    expected = 1 - np.array([[0, 0, 0, 51 / 255], [1, 1, 1, 1]])
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)
    assert image.voi["kind"] == "lut"


@pytest.mark.parametrize(
    ("photometric", "shape", "repairs"),
    [
        ("MONOCHROME1", "INVERSE", ()),
        ("MONOCHROME2", "IDENTITY", ()),
        ("MONOCHROME2", "INVERSE", ("presentation_lut_shape_disagrees",)),
        ("MONOCHROME1", "IDENTITY", ("presentation_lut_shape_disagrees",)),
    ],
)
def test_a_presentation_shape_that_disagrees_is_flagged_and_photometric_wins(
    grey, photometric, shape, repairs
):
    image = read_image(
        grey(
            SMALL, Modality="CR", PhotometricInterpretation=photometric, PresentationLUTShape=shape
        )
    )
    assert image.repairs == repairs
    assert image.voi["inverted"] == (photometric == "MONOCHROME1")


def test_detector_spacing_is_never_taken_for_the_patients(grey):
    image = read_image(grey(SMALL, Modality="DX", ImagerPixelSpacing=[0.14, 0.14]))
    assert image.spacing_mm is None
    assert image.header.imager_pixel_spacing == (0.14, 0.14)


def test_equal_pixels_in_both_polarities_and_sizes_share_a_hash(grey):
    low = SMALL // 10
    upright = read_image(grey(low.astype(np.uint16), Modality="CR", BitsStored=8, HighBit=7))
    narrow = read_image(grey(low.astype(np.uint8), Modality="CR"))
    mirrored = read_image(
        grey(
            (255 - low).astype(np.uint16),
            Modality="CR",
            BitsStored=8,
            HighBit=7,
            PhotometricInterpretation="MONOCHROME1",
        )
    )
    other = read_image(grey((low + 1).astype(np.uint8), Modality="CR"))
    assert upright.pixel_sha256 == narrow.pixel_sha256 == mirrored.pixel_sha256
    assert other.pixel_sha256 != narrow.pixel_sha256


def test_what_cannot_be_an_image_is_refused_by_name(grey):
    with pytest.raises(ColourImage):
        read_image(grey(SMALL, Modality="CR", PhotometricInterpretation="PALETTE COLOR"))
    with pytest.raises(Ineligible) as caught:
        read_image(grey(SMALL, Modality="CR", PhotometricInterpretation=None))
    assert caught.value.code == "no_photometric"
    with pytest.raises(Unreadable) as broken:
        read_image(grey(RAMP, RescaleSlope="1e300", RescaleIntercept=0))
    assert broken.value.code == "bad_modality_transform"
    empty = grey(SMALL)
    del empty.PixelData
    with pytest.raises(NoPixelData):
        read_image(empty)


@pytest.mark.parametrize(
    ("elements", "aspect"),
    [
        ({}, 1.0),
        ({"PixelAspectRatio": [2, 1]}, 2.0),  # vertical, horizontal
        ({"ImagerPixelSpacing": [0.1, 0.2], "PixelAspectRatio": [2, 1]}, 0.5),
        ({"PixelSpacing": [0.3, 0.2], "ImagerPixelSpacing": [0.1, 0.2]}, 1.5),
    ],
)
def test_the_shape_of_a_pixel(grey, elements, aspect):
    image = read_image(grey(SMALL, Modality="CR", **elements))
    assert image.aspect == pytest.approx(aspect)
    assert image.repairs == ()


def test_a_pixel_shape_that_nobody_meant_is_left_out_by_name(grey):
    image = read_image(grey(SMALL, Modality="CR", PixelAspectRatio=[1, 1000]))
    assert (image.aspect, image.repairs) == (1.0, ("implausible_aspect",))
