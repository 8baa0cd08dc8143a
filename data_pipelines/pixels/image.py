"""One image in model units: CT in HU, a radiograph as display values. Read once, every choice
recorded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset

from data_pipelines.dicom.elements import Elements
from data_pipelines.dicom.eligibility import non_slice_reason
from data_pipelines.dicom.header import Header, header_of
from data_pipelines.dicom.reader import DicomSource, parse, silence_pydicom
from data_pipelines.dicom.sop_classes import (
    CT_CLASSES,
    QUANTITATIVE_MODALITIES,
    RADIOGRAPH_MODALITIES,
)
from data_pipelines.errors import Ineligible, Unreadable
from data_pipelines.kinds import UnitName
from data_pipelines.pixels.grayscale import (
    Float32Array,
    Integers,
    Mask,
    mirror_stored_values,
    padding_mask,
    pixel_sha256,
    undeclared_fill,
)
from data_pipelines.pixels.grayscale_module import (
    Modality,
    frame_group,
    read_modality,
    read_padding,
    read_voi,
)
from data_pipelines.pixels.stored_values import decode_stored_values

AIR_HU = -1024.0
MIN_ASPECT = 1 / 16


@dataclass(frozen=True)
class Image:
    """A single grey image.

    `pixels` float32 (rows, columns): HU; or display values 0..1, bright = dense; or the raw
    modality output (MR and the like, and CT whose unit is not HU). `padding` marks pixels outside
    the image (None: there are none): they hold -1024
    HU, display 0, or in raw images what was stored. `spacing_mm`: PixelSpacing (row, column), never
    the detector's.
    `aspect`: height of a pixel over its width, 1 where nothing says otherwise.
    `pixel_sha256`: of the stored values with MONOCHROME1 mirrored. `voi`: what was applied, and
        among how many.
    """

    pixels: Float32Array
    units: UnitName
    kind: Literal["ct", "radiograph", "other"]
    spacing_mm: tuple[float, float] | None
    padding: Mask | None
    repairs: tuple[str, ...]
    voi: dict[str, object]
    header: Header
    frame: int
    pixel_sha256: str
    aspect: float = 1.0


def read_image(source: DicomSource, *, frame: int = 0) -> Image:
    """Read one frame (0-based) of a path, of a file's bytes, or of a data set, in model units.

    CT: HU, no window. Others but MR, PET, NM and dose: the modality transform, then the first VOI
    LUT, else the first usable window, else min-max of the unpadded pixels; clipped to 0..1;
    MONOCHROME1 inverted. Raises ColourImage and the other errors of `read_stored`; Unreadable where
    the modality transform is broken or pixels would not be finite; Ineligible (`no_photometric`)
    where a display image does not say what is bright.
    """
    parsed = parse(source, pixels=True)
    return image_of(parsed.dataset, header_of(parsed), frame)


def image_of(dataset: Dataset, header: Header, frame: int, *, digest: bool = True) -> Image:
    """As `read_image`, from a parsed data set and its header; without `digest`, `pixel_sha256` is
    ''.
    """
    stored, decoding = decode_stored_values(dataset, header, frame)
    with silence_pydicom():
        modality = read_modality(dataset, frame, signed=header.pixel_representation == 1)
        value, limit = read_padding(dataset)
    padding = None if value is None else padding_mask(stored, value, limit)
    values = modality.apply(stored)
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise Unreadable(
            "The rescale takes pixels out of the range of float32.", code="bad_modality_transform"
        )
    spacing = _spacing(dataset, header, frame)
    aspect, implausible = _aspect(header, spacing)
    image = Image(
        pixels=values,
        units="raw",
        kind=_kind(header),
        spacing_mm=spacing,
        padding=padding,
        repairs=header.repairs + decoding + implausible,
        voi={"kind": "none"},
        header=header,
        frame=frame,
        pixel_sha256=pixel_sha256(_upright(stored, header)) if digest else "",
        aspect=aspect,
    )
    if image.kind == "ct":
        return _hounsfield(image) if is_hounsfield(header, modality) else image
    return (
        image if header.modality in QUANTITATIVE_MODALITIES else _display(image, dataset, modality)
    )


def is_hounsfield(header: Header, modality: Modality) -> bool:
    """Whether a CT's modality output is HU: RescaleType says so, or is absent, which says the same
    (C.8.2.1 requires it for any other unit); never a localizer, projection, rendering or parametric
    map, never without a rescale.
    """
    unit = modality.unit or header.rescale_type
    return (
        modality.declared
        and modality.lut is None
        and unit in ("", "HU")
        and non_slice_reason(header.image_type) is None
    )


def _hounsfield(image: Image) -> Image:
    """Air where there is no patient. The pixels, which no one else holds yet, are changed in
    place.
    """
    pixels, padding = image.pixels, image.padding
    if padding is not None:
        np.copyto(pixels, np.float32(AIR_HU), where=padding)
    fill = undeclared_fill(pixels)
    if fill is None:
        return replace(image, units="HU")
    np.copyto(pixels, np.float32(AIR_HU), where=fill)
    return replace(
        image,
        padding=fill if padding is None else fill | padding,
        repairs=(*image.repairs, "undeclared_padding"),
        units="HU",
    )


def _display(image: Image, dataset: Dataset, modality: Modality) -> Image:
    header = image.header
    if not header.photometric:
        raise Ineligible(
            "PhotometricInterpretation (0028,0004) is missing: bright may mean thin.",
            code="no_photometric",
        )
    with silence_pydicom():
        voi, repairs = read_voi(dataset, image.frame, modality, _stored_range(header))
        shape = Elements(dataset).code("PresentationLUTShape")
    pixels, record = voi.apply(image.pixels, image.padding)
    inverted = header.photometric == "MONOCHROME1"
    if shape and (shape == "INVERSE") != inverted:
        repairs += ("presentation_lut_shape_disagrees",)
    pixels = 1 - pixels if inverted else pixels
    if image.padding is not None:
        pixels = np.where(image.padding, np.float32(0), pixels)
    return replace(
        image,
        pixels=pixels,
        units="display",
        repairs=image.repairs + repairs,
        voi={**record, "inverted": inverted},
    )


def _kind(header: Header) -> Literal["ct", "radiograph", "other"]:
    if header.modality == "CT" or header.sop_class_uid in CT_CLASSES:
        return "ct"
    return "radiograph" if header.modality in RADIOGRAPH_MODALITIES else "other"


def _spacing(dataset: Dataset, header: Header, frame: int) -> tuple[float, float] | None:
    if header.frames == 1:
        return header.pixel_spacing
    with silence_pydicom():
        spacing = frame_group(dataset, frame, "PixelMeasuresSequence").numbers(
            "PixelSpacing", 2, positive=True
        )
    return None if spacing is None else (spacing[0], spacing[1])


def _aspect(header: Header, spacing: tuple[float, float] | None) -> tuple[float, tuple[str, ...]]:
    """Height over width of a pixel, and repairs: PixelSpacing, else ImagerPixelSpacing, else
    PixelAspectRatio (C.7.6.3.1.7), each (row, column). One beyond 1:16 was hardly meant, and counts
    as 1.
    """
    height, width = (
        spacing or header.imager_pixel_spacing or header.pixel_aspect_ratio or (1.0, 1.0)
    )
    plausible = width * MIN_ASPECT <= height <= width / MIN_ASPECT
    return (height / width, ()) if plausible else (1.0, ("implausible_aspect",))


def _stored_range(header: Header) -> tuple[int, int]:
    span = 1 << (header.bits_stored or header.bits_allocated or 16)
    return (-span // 2, span // 2 - 1) if header.pixel_representation == 1 else (0, span - 1)


def _upright(stored: Integers, header: Header) -> Integers:
    bits = header.bits_stored or header.bits_allocated or 16
    return mirror_stored_values(stored, bits) if header.photometric == "MONOCHROME1" else stored
