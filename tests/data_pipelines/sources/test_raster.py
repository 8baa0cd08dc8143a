from __future__ import annotations

import io

import numpy as np
import pytest
from helpers import raises_code
from PIL import Image

from data_pipelines.errors import RasterError
from data_pipelines.sources import raster
from data_pipelines.sources.image_source import raster_image
from data_pipelines.sources.raster import read_raster

GREY = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)
SMOOTH = np.linspace(0, 255, 600).reshape(20, 30).astype(np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rgb(shift: int = 0) -> np.ndarray:
    grey = np.clip(SMOOTH.astype(int), 20, 200)
    return np.stack([grey, grey + shift, grey], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(GREY),
        Image.fromarray(np.stack([GREY] * 3, axis=-1)),
        Image.fromarray(np.dstack([*[GREY] * 3, np.full_like(GREY, 255)])),
        Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (30, 20), 255)]),
    ],
    ids=["L", "RGB", "RGBA", "LA"],
)
def test_grey_stays_as_it_is(image: Image.Image) -> None:
    decoded = read_raster(encode(image))
    assert decoded.pixels.dtype == np.uint8
    assert (decoded.pixels == GREY).all()
    assert (decoded.lossy, decoded.luminance, decoded.changes) == (False, False, ())


def test_sixteen_bits_stay() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    decoded = read_raster(encode(Image.fromarray(deep)))
    assert decoded.pixels.dtype == np.uint16
    assert (decoded.pixels == deep).all()


def test_one_bit_and_palette() -> None:
    bits = GREY > 127
    assert (read_raster(encode(Image.fromarray(bits))).pixels == bits * 255).all()
    assert (read_raster(encode(Image.fromarray(GREY).convert("P"))).pixels == GREY).all()


def test_jpeg_is_lossy_and_decoded_as_it_is() -> None:
    data = encode(Image.fromarray(SMOOTH), "JPEG", quality=90)
    decoded = read_raster(data)
    assert decoded.lossy
    assert (decoded.pixels == np.asarray(Image.open(io.BytesIO(data)))).all()


def test_faint_colour_becomes_luminance_and_says_so() -> None:
    decoded = read_raster(encode(Image.fromarray(rgb(10))))
    red, green, blue = np.moveaxis(rgb(10).astype(float), -1, 0)
    assert np.abs(decoded.pixels - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 1
    assert decoded.luminance
    assert "BT.601" in decoded.changes[0]


@pytest.mark.parametrize(("colored", "accepted"), [(1, True), (200, True), (201, False)])
def test_an_arrow_does_not_exclude_an_image(colored: int, accepted: bool) -> None:
    """200 of 10,000 pixels are 2 %: as many as an arrow, a marker or a tint may have."""
    pixels = np.repeat(np.arange(10_000, dtype=np.uint8).reshape(100, 100, 1) % 200, 3, axis=-1)
    pixels.reshape(-1, 3)[:colored] = (255, 0, 0)
    data = encode(Image.fromarray(pixels))
    if not accepted:
        with raises_code(RasterError, "colour"):
            read_raster(data)
        return
    decoded = read_raster(data)
    assert (decoded.luminance, decoded.few_colored) == (True, True)
    assert set(decoded.pixels.reshape(-1)[:colored]) == {76}  # 0.299 * 255
    assert (decoded.pixels.reshape(-1)[colored:] == pixels[..., 0].reshape(-1)[colored:]).all()
    assert raster_image(data, "display").repairs == ("few_colored_pixels",)


def test_exif_orientation_is_applied_and_told() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 270 degrees to see it upright
    decoded = read_raster(encode(Image.fromarray(GREY), exif=exif))
    assert (decoded.pixels == np.rot90(GREY, -1)).all()
    assert "EXIF" in decoded.changes[0]


def transparent() -> bytes:
    return encode(Image.fromarray(np.dstack([*[GREY] * 3, np.full_like(GREY, 254)])))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "unreadable"),
        (b"not a picture", "unreadable"),
        (encode(Image.fromarray(GREY))[:200], "unreadable"),
        (encode(Image.fromarray(SMOOTH), "JPEG")[:300], "unreadable"),
        (encode(Image.fromarray(GREY), "BMP"), "unreadable"),
        (encode(Image.fromarray(rgb(40))), "colour"),
        (encode(Image.fromarray(rgb(0)).convert("CMYK"), "JPEG"), "format"),
        (encode(Image.fromarray(GREY), transparency=3), "transparent"),
        (transparent(), "transparent"),
        (
            encode(Image.fromarray(GREY), save_all=True, append_images=[Image.fromarray(SMOOTH)]),
            "several_frames",
        ),
    ],
)
def test_what_is_no_grey_picture_has_a_reason(data: bytes, reason: str) -> None:
    with raises_code(RasterError, reason):
        read_raster(data)


def test_colour_of_sixteen_bits_a_channel_is_refused() -> None:
    import imagecodecs

    deep = np.zeros((8, 8, 3), np.uint16)
    with raises_code(RasterError, "format"):
        read_raster(imagecodecs.png_encode(deep))


def test_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "MAX_PIXELS", 599)
    with raises_code(RasterError, "too_large"):
        read_raster(encode(Image.fromarray(GREY)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with raises_code(RasterError, "too_large"):
        read_raster(encode(Image.fromarray(GREY)))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_whose_data_end_early_is_damaged_though_it_has_its_end(mode: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(GREY).convert(mode).resize((40, 32)).save(buffer, "JPEG")
    data = buffer.getvalue()
    read_raster(data + bytes(range(1, 200)))
    with raises_code(RasterError, "unreadable"):
        read_raster(data[:-20] + b"\xff\xd9")
