"""Pixel values: decoders, stored values, the grayscale pipeline of PS3.3 C.11, and `read_image`.

May import from dicom, runtime, kinds and errors. Loads neither pandas nor TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.pixels.codestream import read_codestream
    from data_pipelines.pixels.decoders import (
        CODEC_ERRORS,
        IMAGECODECS,
        RLE,
        Decoder,
        PixelFormat,
        capabilities,
        decoders_for,
        syntax_name,
    )
    from data_pipelines.pixels.encapsulation import encapsulated_frames
    from data_pipelines.pixels.grayscale import Integers, Mask, min_max, pixel_sha256, window
    from data_pipelines.pixels.grayscale_module import frame_group
    from data_pipelines.pixels.image import Image, image_of, read_image
    from data_pipelines.pixels.stored_values import (
        NATIVE,
        Stored,
        cell_values,
        pixel_elements,
        pixel_format,
        read_stored,
        sample_values,
    )

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.pixels.codestream": "read_codestream",
        "data_pipelines.pixels.decoders": "CODEC_ERRORS Decoder IMAGECODECS PixelFormat RLE "
        "capabilities decoders_for syntax_name",
        "data_pipelines.pixels.encapsulation": "encapsulated_frames",
        "data_pipelines.pixels.grayscale": "Integers Mask min_max pixel_sha256 window",
        "data_pipelines.pixels.grayscale_module": "frame_group",
        "data_pipelines.pixels.image": "Image image_of read_image",
        "data_pipelines.pixels.stored_values": "NATIVE Stored cell_values pixel_elements "
        "pixel_format read_stored sample_values",
    },
)
