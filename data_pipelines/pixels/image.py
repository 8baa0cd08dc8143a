"""Reads one image in model units: a CT in HU, a radiograph as display values. Every choice on the
way is recorded in the result.
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
from data_pipelines.dicom.sop_classes import QUANTITATIVE_MODALITIES
from data_pipelines.errors import Ineligible, Unreadable
from data_pipelines.kinds import (
    AIR_HU,
    CT,
    DISPLAY,
    HU,
    RADIOGRAPH,
    RAW,
    ColorRule,
    FileFormat,
    KindName,
    UnitName,
)
from data_pipelines.pixels.color import decode_color
from data_pipelines.pixels.grayscale import (
    Float32Array,
    Integers,
    Mask,
    apply_polarity,
    is_inverted,
    mirror_stored_values,
    padding_mask,
    pixel_sha256,
    undeclared_fill,
    window,
)
from data_pipelines.pixels.grayscale_module import (
    Modality,
    frame_group,
    read_modality,
    read_padding,
    read_voi,
)
from data_pipelines.pixels.luminance import luminance_of
from data_pipelines.pixels.stored_values import decode_stored_values

MIN_ASPECT = 1 / 16


@dataclass(frozen=True)
class Image:
    """One image.

    pixels: float32 (rows, columns), in `units`; of a color picture (rows, columns, 3).
    units: "HU" (CT); "display" (radiographs: values 0..1, bright = dense); "raw" (the modality
        output of MR, PET and similar modalities, and of a CT whose unit is not HU); "rgb" (color
        pictures); "zscore" (MR, where its volume was standardized).
    kind: "ct", "radiograph" or "other", by the header; "rgb" or "mr" where it was declared.
    spacing_mm: PixelSpacing (row, column); never the spacing at the detector. None where absent.
    padding: pixels outside the image, None where there are none. They are -1024 HU or display 0;
        in raw images they have the value that was stored.
    repairs: codes of what was malformed in the file and handled.
    voi: which VOI transform was applied, among how many, and whether the polarity was inverted.
    frame: 0-based index in the file.
    pixel_sha256: hash of the stored values, equal for both polarities (`mirror_stored_values`).
    aspect: height of a pixel divided by its width, 1 where the file does not say.
    file_format: of the file that it was read from.
    """

    pixels: Float32Array
    units: UnitName
    kind: KindName | Literal["other"]
    spacing_mm: tuple[float, float] | None
    padding: Mask | None
    repairs: tuple[str, ...]
    voi: dict[str, object]
    header: Header
    frame: int
    pixel_sha256: str
    aspect: float = 1.0
    file_format: FileFormat = "dicom"

    @property
    def gray(self) -> Float32Array:
        """Its pixels, float32 (rows, columns); of a color picture the mean of the channels."""
        return self.pixels if self.pixels.ndim == 2 else self.pixels.mean(-1, dtype=np.float32)


def read_image(source: DicomSource, *, frame: int = 0, color: ColorRule = "refuse") -> Image:
    """Read one frame in model units.

    source: a path, the bytes of a file, or a pydicom data set. frame: 0-based. color: "luminance"
        takes the luminance of an image that is truly in color (repair code `color_to_luminance`).
        Where all channels are equal, differ faintly, or differ in at most 2 % of the pixels, the
        luminance is always taken (`gray_stored_as_color`, `faint_colour`, `few_colored_pixels`);
        see luminance_of. It is divided by the largest stored value.

    A CT gives HU, without a window. MR, PET, NM and dose give the modality output ("raw"). All
    others give display values: the modality transform; then the first VOI LUT, else the first
    usable window, else min-max of the unpadded pixels; clipped to 0..1; then `apply_polarity`.

    Raises ColourImage and the other errors of `read_stored`; Unreadable where the modality
    transform is invalid or pixels would not be finite; Ineligible (`no_photometric`) where the
    header does not say whether high values are bright.
    """
    parsed = parse(source, pixels=True)
    return image_of(parsed.dataset, header_of(parsed), frame, color=color)


def image_of(
    dataset: Dataset,
    header: Header,
    frame: int,
    *,
    digest: bool = True,
    color: ColorRule = "refuse",
) -> Image:
    """As `read_image`, for a parsed data set and its header. digest: False leaves `pixel_sha256`
    empty, which saves time.
    """
    if not header.is_grayscale and header.has_image:
        return _of_color(dataset, header, frame, digest=digest, color=color)
    stored, decoding = decode_stored_values(dataset, header, frame)
    with silence_pydicom():
        modality = read_modality(dataset, frame, signed=header.pixel_representation == 1)
        value, limit = read_padding(dataset)
    padding = None if value is None else padding_mask(stored, value, limit)
    values = modality.apply(stored)
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise Unreadable(
            "RescaleSlope and RescaleIntercept give values outside the range of float32.",
            code="bad_modality_transform",
        )
    spacing = _spacing(dataset, header, frame)
    aspect, implausible = _aspect(header, spacing)
    image = Image(
        pixels=values,
        units=RAW.name,
        kind=_kind_name(header),
        spacing_mm=spacing,
        padding=padding,
        repairs=header.repairs + decoding + implausible,
        voi={"kind": "none"},
        header=header,
        frame=frame,
        pixel_sha256=pixel_sha256(_as_monochrome2(stored, header)) if digest else "",
        aspect=aspect,
    )
    if header.is_ct:
        return _hounsfield(image) if is_hounsfield(header, modality) else image
    if header.modality in QUANTITATIVE_MODALITIES:
        return image
    return _display(image, dataset, modality)


def _of_color(
    dataset: Dataset, header: Header, frame: int, *, digest: bool, color: ColorRule
) -> Image:
    """Display values of a color image: neither a modality nor a VOI transform applies to it
    (C.11.1, C.11.2).
    """
    rgb, maximum, decoding = decode_color(dataset, header, frame)
    values, change = luminance_of(rgb, maximum=maximum, color=color)
    spacing = _spacing(dataset, header, frame)
    aspect, implausible = _aspect(header, spacing)
    center, width = (maximum + 1) / 2, maximum + 1
    return Image(
        pixels=window(values, center, width),
        units=DISPLAY.name,
        kind=_kind_name(header),
        spacing_mm=spacing,
        padding=None,
        repairs=header.repairs + decoding + implausible + (change or "gray_stored_as_color",),
        voi={"kind": "window", "center": center, "width": width, "inverted": False},
        header=header,
        frame=frame,
        pixel_sha256=pixel_sha256(values) if digest else "",
        aspect=aspect,
    )


def is_hounsfield(header: Header, modality: Modality) -> bool:
    """Whether the modality output of a CT is HU.

    RescaleType is HU, or absent, which means HU (C.8.2.1 requires it for any other unit). Images
    without a rescale, localizers, projections, renderings and parametric maps are never in HU.
    """
    unit = modality.unit or header.rescale_type
    return (
        modality.declared
        and modality.lut is None
        and unit in ("", HU.name)
        and non_slice_reason(header.image_type) is None
    )


def _hounsfield(image: Image) -> Image:
    """The image in HU, with air outside the field of view. The pixels are changed in place: nothing
    else refers to them yet.
    """
    pixels, padding = image.pixels, image.padding
    if padding is not None:
        np.copyto(pixels, np.float32(AIR_HU), where=padding)
    fill = undeclared_fill(pixels)
    if fill is None:
        return replace(image, units=HU.name)
    np.copyto(pixels, np.float32(AIR_HU), where=fill)
    return replace(
        image,
        padding=fill if padding is None else fill | padding,
        repairs=(*image.repairs, "undeclared_padding"),
        units=HU.name,
    )


def _display(image: Image, dataset: Dataset, modality: Modality) -> Image:
    header = image.header
    if not header.photometric:
        raise Ineligible(
            "PhotometricInterpretation (0028,0004) is missing: it is unknown whether high values "
            "are bright.",
            code="no_photometric",
        )
    with silence_pydicom():
        voi, repairs = read_voi(dataset, image.frame, modality, _stored_range(header))
        shape = Elements(dataset).code("PresentationLUTShape")
    pixels, record = voi.apply(image.pixels, image.padding)
    inverted = is_inverted(header.photometric)
    if shape and (shape == "INVERSE") != inverted:
        repairs += ("presentation_lut_shape_disagrees",)
    pixels = apply_polarity(pixels, header.photometric)
    if image.padding is not None:
        pixels = np.where(image.padding, np.float32(0), pixels)
    return replace(
        image,
        pixels=pixels,
        units=DISPLAY.name,
        repairs=image.repairs + repairs,
        voi={**record, "inverted": inverted},
    )


def _kind_name(header: Header) -> KindName | Literal["other"]:
    if header.is_ct:
        return CT.name
    return RADIOGRAPH.name if header.is_radiograph else "other"


def _spacing(dataset: Dataset, header: Header, frame: int) -> tuple[float, float] | None:
    if header.frames == 1:
        return header.pixel_spacing
    with silence_pydicom():
        measures = frame_group(dataset, frame, "PixelMeasuresSequence")
        return measures.pair("PixelSpacing", positive=True)


def _aspect(header: Header, spacing: tuple[float, float] | None) -> tuple[float, tuple[str, ...]]:
    """The height of a pixel divided by its width, and repairs. It is taken from PixelSpacing, else
    ImagerPixelSpacing, else PixelAspectRatio (C.7.6.3.1.7), each (row, column). A ratio beyond 1:16
    is taken for an error, and 1 is used.
    """
    height, width = (
        spacing or header.imager_pixel_spacing or header.pixel_aspect_ratio or (1.0, 1.0)
    )
    plausible = width * MIN_ASPECT <= height <= width / MIN_ASPECT
    return (height / width, ()) if plausible else (1.0, ("implausible_aspect",))


def _stored_range(header: Header) -> tuple[int, int]:
    span = 1 << (header.bits_stored or header.bits_allocated or 16)
    return (-span // 2, span // 2 - 1) if header.pixel_representation == 1 else (0, span - 1)


def _as_monochrome2(stored: Integers, header: Header) -> Integers:
    """The stored values for the hash, which is equal for both polarities."""
    bits = header.bits_stored or header.bits_allocated or 16
    return mirror_stored_values(stored, bits) if is_inverted(header.photometric) else stored
