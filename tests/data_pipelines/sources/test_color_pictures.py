"""Color pictures of 8 bits: PNG, JPEG, .npz and the binary files of CIFAR."""

from __future__ import annotations

import io

import numpy as np
import pytest
from helpers import raises_code
from PIL import Image as Pillow

from data_pipelines.errors import Ineligible, RasterError, TruncatedPixelData
from data_pipelines.sources import npz_image, raster_image
from data_pipelines.sources.array_files import NpzImage, parse_cifar
from data_pipelines.sources.image_source import file_format_of, parse_npz
from data_pipelines.sources.raster import read_color_raster

COLORS = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)


def encoded(picture: Pillow.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def test_a_color_png_keeps_its_three_channels() -> None:
    image = raster_image(encoded(Pillow.fromarray(COLORS)), "rgb")
    assert (image.units, image.kind, image.repairs) == ("rgb", "rgb", ())
    assert (np.rint(image.pixels * 255) == COLORS).all()


def test_exif_orientation_turns_the_picture_upright() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # the stored rows are the columns of the scene, from right to left
    image = raster_image(encoded(Pillow.fromarray(COLORS), exif=exif), "rgb")
    assert image.repairs == ("exif_orientation",)
    assert (np.rint(image.pixels * 255) == np.rot90(COLORS, -1)).all()


def test_a_gray_picture_gets_three_equal_channels() -> None:
    image = raster_image(encoded(Pillow.fromarray(COLORS[..., 0])), "rgb")
    assert image.repairs == ("gray_to_color",)
    assert (np.rint(image.pixels * 255) == COLORS[..., :1].repeat(3, -1)).all()


def test_an_opaque_alpha_channel_and_a_palette_are_read() -> None:
    alpha = np.dstack([COLORS, np.full((5, 4), 255, np.uint8)])
    assert (read_color_raster(encoded(Pillow.fromarray(alpha))).pixels == COLORS).all()
    palette = Pillow.fromarray(COLORS // 128 * 255).quantize(8)
    assert (read_color_raster(encoded(palette)).pixels == COLORS // 128 * 255).all()


@pytest.mark.parametrize(
    ("picture", "form", "code"),
    [
        (Pillow.fromarray(np.dstack([COLORS, COLORS[..., :1]])), "PNG", "transparent"),
        (Pillow.fromarray(COLORS).convert("CMYK"), "JPEG", "format"),
        (Pillow.fromarray(COLORS[..., 0].astype(np.uint16)), "PNG", "format"),
    ],
    ids=["transparent", "cmyk", "16 bits"],
)
def test_what_is_no_color_picture_of_8_bits_is_refused(
    picture: Pillow.Image, form: str, code: str
) -> None:
    data = encoded(picture, form)
    with raises_code(RasterError, code):
        read_color_raster(data)
    with raises_code(Ineligible, code):
        raster_image(data, "rgb")


def test_arrays_in_color_need_the_kind_and_uint8() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, train_images=COLORS[np.newaxis], train_labels=[3])
    (image,) = parse_npz(buffer.getvalue(), channels=3).values()
    assert (np.rint(npz_image(image, "rgb").pixels * 255) == COLORS).all()
    with raises_code(Ineligible, "array_shape"):
        parse_npz(buffer.getvalue())
    with raises_code(Ineligible, "not_color", "int16"):
        npz_image(NpzImage("train/0", "train", COLORS.astype(np.int16), ()), "rgb")


@pytest.mark.parametrize(("name", "labels"), [("data_batch_2.bin", [7]), ("train.bin", [1, 7])])
def test_a_binary_file_of_cifar(name: str, labels: list[int]) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    record = bytes(labels) + b"".join(picture[..., channel].tobytes() for channel in range(3))
    images = parse_cifar(record * 2, name)
    assert {key: each.labels for key, each in images.items()} == {"train/0": (7,), "train/1": (7,)}
    assert (images["train/1"].pixels == picture).all()
    assert file_format_of(record, name=f"folder/{name}") == "cifar"
    with raises_code(TruncatedPixelData, "truncated_pixels"):
        parse_cifar(record[:-1], name)
