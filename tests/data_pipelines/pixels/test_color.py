"""Color DICOM images: the channels of every syntax, and the luminance that is taken of them."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
from helpers import raises_code
from PIL import Image as Pillow
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import convert_color_space

from data_pipelines.dicom.header import header_of
from data_pipelines.dicom.reader import parse
from data_pipelines.errors import ColourImage, Ineligible, TruncatedPixelData, UnsupportedSyntax
from data_pipelines.pixels.color import decode_color
from data_pipelines.pixels.image import read_image
from data_pipelines.pixels.luminance import luminance_of
from data_pipelines.sources.acceptance import accepted_images

JPEG = "1.2.840.10008.1.2.4"
RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (10, 8, 3)).astype(np.uint8)
GRAY = RNG.integers(0, 256, (10, 8)).astype(np.uint8)
EQUAL = np.repeat(GRAY[..., None], 3, axis=-1)


def smooth(rows: int = 32, columns: int = 24) -> np.ndarray:
    return np.add.outer(np.arange(rows) * 3, np.arange(columns) * 4).astype(np.uint8)


@pytest.fixture
def colored(grey):
    """A CR image that stores these samples in color."""

    def make(
        rgb: np.ndarray, photometric: str = "RGB", *, modality: str = "CR", **options: object
    ) -> Dataset:
        return grey(
            rgb[..., 0],
            Modality=modality,
            **{"data": rgb.tobytes(), **options},
            SamplesPerPixel=3,
            PlanarConfiguration=options.pop("planar", 0),
            PhotometricInterpretation=photometric,
        )

    return make


def channels(dataset: Dataset, frame: int = 0) -> np.ndarray:
    parsed = parse(dataset, pixels=True)
    return decode_color(parsed.dataset, header_of(parsed), frame).rgb


def test_luminance_equals_that_of_pillow() -> None:
    rgb = RNG.integers(0, 256, (300, 300, 3)).astype(np.uint8)
    values, change = luminance_of(rgb, color="luminance")
    assert change == "color_to_luminance"
    assert (values == np.asarray(Pillow.fromarray(rgb).convert("L"))).all()
    wide, _ = luminance_of(np.uint16(257) * rgb, maximum=65535, color="luminance")
    exact = 257 * (rgb.astype(float) @ [0.299, 0.587, 0.114])
    assert np.abs(wide - exact).max() < 1.5


def test_native_color(colored) -> None:
    assert (channels(colored(RGB)) == RGB).all()
    planes = np.moveaxis(RGB, -1, 0).tobytes()
    dataset = colored(RGB, data=planes)
    dataset.PlanarConfiguration = 1
    assert (channels(dataset) == RGB).all()
    ybr = convert_color_space(RGB, "RGB", "YBR_FULL")
    assert np.abs(channels(colored(ybr, "YBR_FULL")).astype(int) - RGB).max() <= 3


def test_native_422_repeats_the_chroma_of_each_pair(colored) -> None:
    ybr = convert_color_space(RGB, "RGB", "YBR_FULL")
    ybr[:, 1::2, 1:] = ybr[:, ::2, 1:]
    pairs = ybr.reshape(10, 4, 2, 3)
    packed = np.stack(
        [pairs[:, :, 0, 0], pairs[:, :, 1, 0], pairs[:, :, 0, 1], pairs[:, :, 0, 2]], axis=-1
    )
    got = channels(colored(ybr, "YBR_FULL_422", data=packed.tobytes()))
    assert (got == convert_color_space(ybr, "YBR_FULL", "RGB")).all()


@pytest.mark.parametrize("syntax", ["80", "90", "201"])
def test_lossless_color(colored, syntax: str) -> None:
    encode = {
        "80": imagecodecs.jpegls_encode,
        "90": lambda rgb: imagecodecs.jpeg2k_encode(rgb, level=0, codecformat="j2k"),
        "201": imagecodecs.htj2k_encode,
    }[syntax]
    dataset = colored(
        RGB,
        "RGB" if syntax == "80" else "YBR_RCT",
        syntax=f"{JPEG}.{syntax}",
        data=encapsulate([bytes(encode(RGB))]),
    )
    assert (channels(dataset) == RGB).all()


def test_rle_color(colored) -> None:
    from pydicom.pixels.encoders import RLELosslessEncoder

    dataset = colored(RGB)
    data = RLELosslessEncoder.encode(
        RGB,
        rows=10,
        columns=8,
        samples_per_pixel=3,
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
        photometric_interpretation="RGB",
        number_of_frames=1,
        planar_configuration=0,
        encoding_plugin="pydicom",
    )
    dataset = colored(RGB, syntax="1.2.840.10008.1.2.5", data=encapsulate([data]))
    assert (channels(dataset) == RGB).all()


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "RGB"])
def test_lossy_jpeg_is_read_by_its_marker_else_by_the_header(
    colored, photometric: str, marked: bool
) -> None:
    """A gray image is gray: no chroma is taken for a channel."""
    gray = np.repeat(smooth()[..., None], 3, axis=-1)
    if marked or photometric != "RGB":
        file = io.BytesIO()
        Pillow.fromarray(gray).save(file, "JPEG", quality=95)
        data = file.getvalue()
    else:
        data = bytes(imagecodecs.jpeg8_encode(gray, level=95, outcolorspace="RGB"))
    if not marked:  # without the JFIF and Adobe segments
        for name in (b"\xff\xe0", b"\xff\xee"):
            start = data.find(name)
            if start > 0:
                length = int.from_bytes(data[start + 2 : start + 4], "big")
                data = data[:start] + data[start + 2 + length :]
    dataset = colored(gray, photometric, syntax=f"{JPEG}.50", data=encapsulate([data]))
    rgb = channels(dataset).astype(int)
    assert np.abs(rgb - gray).max() <= 4
    image = read_image(dataset)
    assert np.abs(image.pixels * 255 - smooth()).max() <= 4


def test_palette(grey) -> None:
    palette = {
        "PhotometricInterpretation": "PALETTE COLOR",
        **{f"{c}PaletteColorLookupTableDescriptor": [256, 0, 8] for c in ("Red", "Green", "Blue")},
    }
    table = np.arange(255, -1, -1, dtype=np.uint8)
    tables = {f"{c}PaletteColorLookupTableData": table.tobytes() for c in ("Red", "Green", "Blue")}
    image = read_image(grey(GRAY, Modality="CR", **palette, **tables))
    assert image.pixels == pytest.approx((255 - GRAY.astype(float)) / 255, abs=1e-6)
    assert image.repairs == ("gray_stored_as_color",)
    red = {**tables, "RedPaletteColorLookupTableData": bytes([255] * 256)}
    with raises_code(ColourImage, "colour"):
        read_image(grey(GRAY, Modality="CR", **palette, **red))
    taken = read_image(grey(GRAY, Modality="CR", **palette, **red), color="luminance")
    assert "color_to_luminance" in taken.repairs


def test_a_radiograph_stored_as_rgb_is_the_one_stored_as_gray(colored, grey) -> None:
    image = read_image(colored(EQUAL))
    gray = grey(GRAY, Modality="CR", WindowCenter=128, WindowWidth=256)
    assert (image.pixels == read_image(gray).pixels).all()
    assert (image.units, image.kind) == ("display", "radiograph")
    assert image.repairs == ("gray_stored_as_color",)
    assert image.pixel_sha256 == read_image(gray).pixel_sha256
    ((accepted, kind, _),) = accepted_images(colored(EQUAL))
    assert kind == "radiograph"
    assert (accepted.pixels == image.pixels).all()


@pytest.mark.parametrize(("pixels", "code"), [(1, "few_colored_pixels"), (2, "colour")])
def test_dicom_has_the_tolerance_of_png(colored, pixels: int, code: str) -> None:
    """2 % of 80 pixels is one of them."""
    rgb = EQUAL.copy()
    rgb.reshape(-1, 3)[:pixels] = (255, 0, 0)
    if code == "colour":
        with raises_code(ColourImage, "colour"):
            read_image(colored(rgb))
        with raises_code(Ineligible, "colour"):
            accepted_images(colored(rgb))
        code = "color_to_luminance"
        ((image, _, _),) = accepted_images(colored(rgb), color="luminance")
    else:
        image = read_image(colored(rgb))
    assert image.repairs == (code,)
    assert image.pixels[0, 0] == pytest.approx(76 / 255)


def test_a_ct_in_color_has_no_hounsfield_units(colored) -> None:
    for color in ("refuse", "luminance"):
        with raises_code(Ineligible, "colour"):
            accepted_images(colored(EQUAL, modality="CT"), color=color)


def test_damaged_or_unknown_color(colored) -> None:
    with raises_code(TruncatedPixelData, "truncated_pixels"):
        read_image(colored(RGB, data=RGB.tobytes()[:-9]))
    with raises_code(ColourImage, "colour"):
        read_image(colored(RGB, "HSV"))
    signed = colored(RGB)
    signed.PixelRepresentation = 1
    with raises_code(UnsupportedSyntax, "unsupported_syntax"):
        read_image(signed)
