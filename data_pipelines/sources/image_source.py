"""Reads images from other formats than DICOM: PNG, JPEG, .npz arrays in the layout of MedMNIST, and
the binary files of CIFAR, in units that the user declares.

A PNG or JPEG has display values, with the polarity that was saved. 8-bit values are divided by 255.
The range of 16-bit values is unknown: the minimum and the maximum of the image become 0 and 1. HU
are read from int16 arrays only, and only where the user declares them. Color pictures (units rgb)
keep three channels of 8 bits. Spacing, patient and modality stay unknown.
"""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from data_pipelines.dicom.header import header_of
from data_pipelines.dicom.reader import DicomSource, ParsedDataset
from data_pipelines.errors import (
    CacheError,
    DicomError,
    Ineligible,
    LimitExceeded,
    RasterError,
    Unreadable,
)
from data_pipelines.kinds import (
    ARRAY_FORMATS,
    UNITS,
    ColorRule,
    FileFormat,
    UnitName,
    image_kind,
    kind_in_units,
)
from data_pipelines.pixels.grayscale import Integers, min_max, pixel_sha256, window
from data_pipelines.pixels.image import Image, read_image
from data_pipelines.pixels.standardization import Standard, standardized
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.object_stores import joined
from data_pipelines.runtime.storage import open_file, read_file
from data_pipelines.sources.array_files import NpzImage, is_cifar_name, parse_cifar
from data_pipelines.sources.nifti import (
    NiftiVolume,
    has_nifti_name,
    is_nifti,
    nifti_image,
    read_nifti,
)
from data_pipelines.sources.raster import read_color_raster, read_raster

_HEAD_BYTES = 4096  # enough to inflate a NIfTI header
WINDOW_8_BITS = (128.0, 256.0)
ZIP_MAGIC = b"PK\x03\x04"  # an .npz is a ZIP archive
RASTER_FORMATS: tuple[FileFormat, ...] = ("png", "jpeg")
#: suffixes of the files that are read only where the user declares units
RASTER_SUFFIXES = (".png", ".jpg", ".jpeg", ".npz", ".bin")
#: names of the splits in the arrays of MedMNIST -> names in medres
SPLIT_ALIASES = {"train": "train", "val": "tune", "test": "test"}
_ARRAY_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


def file_format_of(source: DicomSource, *, name: str | Path | None = None) -> FileFormat:
    """The format of a file or of its bytes, by the first bytes (and, for .npz and NIfTI, by its
    suffix).
    "dicom" where it is none of the others. name: of a file of which `source` is the bytes.

    >>> file_format_of(b"\\x89PNG\\r\\n\\x1a\\n")
    'png'
    """
    if isinstance(source, Dataset):
        return "dicom"
    if isinstance(source, bytes | bytearray | memoryview):
        head = bytes(source[:_HEAD_BYTES])
    else:
        try:
            with open_file(source) as file:
                head = file.read(_HEAD_BYTES)
        except OSError:
            return "dicom"  # the DICOM reader then raises the error
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if head[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if isinstance(source, str | Path):
        name = source
    is_named_nifti = name is not None and has_nifti_name(name)
    if head[128:132] != b"DICM" and (is_named_nifti or is_nifti(head)):
        return "nifti"
    if name is not None and is_cifar_name(name):
        return "cifar"
    is_named_npz = name is not None and Path(name).suffix.lower() == ".npz"
    return "npz" if is_named_npz and head[:4] == ZIP_MAGIC else "dicom"


def raster_image(data: bytes, units: UnitName, *, color: ColorRule = "refuse") -> Image:
    """The bytes of a PNG or JPEG file as display values, or as red, green and blue where `units`
    are those of color pictures. color: see read_image.

    Raises Unreadable, LimitExceeded, or Ineligible with the code of `read_raster`; Ineligible
    (`not_hu`) where other units than display values are declared.
    """
    if len(data) > active_limits().file:
        raise LimitExceeded(f"The file has {len(data)} bytes; the limit is {active_limits().file}.")
    if not set(RASTER_FORMATS) <= set(kind_in_units(units).file_formats):
        raise Ineligible(
            f"A PNG or JPEG file has display values, and {units} are declared for it.",
            code="not_hu",
        )
    try:
        is_color = kind_in_units(units).channels > 1
        raster = read_color_raster(data) if is_color else read_raster(data, color=color)
    except RasterError as error:
        if error.code == "unreadable":
            raise Unreadable(str(error)) from None
        if error.code == "too_large":
            raise LimitExceeded(str(error)) from None
        raise Ineligible(str(error), code=error.code) from None
    repairs = (raster.change, "exif_orientation" if raster.exif_rotated else "")
    return _image(raster.pixels, units, tuple(filter(None, repairs)), file_format_of(data))


def npz_image(image: NpzImage, units: UnitName) -> Image:
    """One image of an .npz file in the declared units.

    Raises Ineligible: `not_hu` where HU are declared for another dtype than int16, `not_display`
    where display values are declared for signed integers.
    """
    if kind_in_units(units).channels > 1:
        return _color_image(image, units)
    signed = UNITS[units].signed
    if signed and image.pixels.dtype != np.int16:
        raise Ineligible(
            f"{units} are declared for an array of {image.pixels.dtype}: give int16.",
            code="not_hu",
        )
    if not signed and image.pixels.dtype.kind == "i":
        raise Ineligible(
            f"Display values are declared for an array of {image.pixels.dtype}: give uint8 or "
            f"uint16, or declare HU.",
            code="not_display",
        )
    return _image(image.pixels, units, (), "npz")


def _color_image(image: NpzImage, units: UnitName) -> Image:
    """Raises Ineligible (`not_color`) where the array is not uint8."""
    pixels = image.pixels
    if pixels.dtype != np.uint8:
        raise Ineligible(
            f"Color pictures are declared for an array of {pixels.dtype}: give uint8.",
            code="not_color",
        )
    if pixels.ndim == 3:
        return _image(pixels, units, (), image.file_format)
    return _image(np.stack([pixels] * 3, -1), units, ("gray_to_color",), image.file_format)


def npz_images(path: Path | str, sha256: str, *, channels: int = 1) -> dict[str, NpzImage]:
    """All images of an .npz file, or of a binary file of CIFAR, by their names. The images of the
    last file stay in memory.

    An .npz has <split>_images, uint8, uint16 or int16 (images, rows, columns[, 3]), and
    <split>_labels, integers (images,) or (images, labels), for train, val and test; each of them is
    optional. channels: 3 where arrays in color are accepted.
    Raises Unreadable; Ineligible (`array_shape`, `array_type`); LimitExceeded; CacheError
    (`source_changed`) where the file has another SHA-256.
    """
    return _read_npz(str(path), sha256, channels)


def is_array_file(path: Path | str) -> bool:
    """Whether a file holds many images by its name: an .npz, or a binary file of CIFAR."""
    return Path(path).suffix.lower() == ".npz" or is_cifar_name(path)


def parse_npz(data: bytes, *, channels: int = 1) -> dict[str, NpzImage]:
    """As `npz_images`, from the bytes of a file."""
    splits = _npz_arrays(data)
    images: dict[str, NpzImage] = {}
    for alias, split in SPLIT_ALIASES.items():
        if f"{alias}_images" in splits:
            images |= _images_of_split(
                alias, split, splits[f"{alias}_images"], splits.get(f"{alias}_labels"), channels
            )
    if not images:
        raise Unreadable(
            "The .npz file has no image in train_images, val_images or test_images. Check the "
            "names of its arrays."
        )
    if len({len(image.labels) for image in images.values()}) > 1:
        raise Unreadable("The labels of the splits have different numbers of columns.")
    return images


def read_row(
    source: str,
    path: str,
    frame: int,
    *,
    file_format: str,
    kind: str,
    sha256: str,
    standard: Standard | None = None,
) -> Image:
    """The image of a row of the manifest; `file_format` is its column `form`. An image in color has
    a row only where ingest was to take its luminance, or for kind rgb. standard: mean and standard
    deviation of its volume, where it is to be standardized.

    Raises CacheError: `source_missing` where the file cannot be read, `source_changed` where it is
    not the file that was ingested.
    """
    image = _stored_image(source, path, frame, file_format, kind, sha256)
    return image if standard is None else standardized(image, standard)


def _stored_image(
    source: str, path: str, frame: int, file_format: str, kind: str, sha256: str
) -> Image:
    units, channels = image_kind(kind).units.name, image_kind(kind).channels
    try:
        if file_format in ARRAY_FORMATS:
            file, _, name = path.rpartition("#")
            images = npz_images(joined(source, file), sha256, channels=channels)
            return npz_image(images[name], units)
        if file_format == "nifti":
            return nifti_image(_read_nifti(joined(source, path), sha256), frame, units)
        data = read_file(joined(source, path))
    except OSError as error:
        raise CacheError(
            f"a source file cannot be read ({type(error).__name__}): put it back where it was "
            f"ingested from, or run medres ingest again",
            code="source_missing",
        ) from None
    _require_unchanged(data, sha256)
    if file_format == "dicom":
        return read_image(data, frame=frame, color="luminance")
    return raster_image(data, units, color="luminance")


@functools.lru_cache(maxsize=1)
def _read_npz(path: str, sha256: str, channels: int) -> dict[str, NpzImage]:
    data = read_file(path)
    _require_unchanged(data, sha256)
    return parse_cifar(data, path) if is_cifar_name(path) else parse_npz(data, channels=channels)


@functools.lru_cache(maxsize=1)
def _read_nifti(path: str, sha256: str) -> NiftiVolume:
    data = read_file(path)
    _require_unchanged(data, sha256)
    return read_nifti(data)


def _npz_arrays(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of images and labels, by their names."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inflated = sum(entry.file_size for entry in archive.infolist())
        if inflated > active_limits().inflated:
            raise LimitExceeded(
                f"The arrays take {inflated} bytes; the limit is {active_limits().inflated}. "
                f"Split the file."
            )
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {
                name: arrays[name] for name in arrays.files if name.endswith(("_images", "_labels"))
            }
    except DicomError:
        raise
    except _ARRAY_ERRORS as error:
        raise Unreadable(
            f"The .npz file cannot be read ({type(error).__name__}). Fetch it again."
        ) from None


def _images_of_split(
    alias: str, split: str, images: np.ndarray, labels: np.ndarray | None, channels: int
) -> dict[str, NpzImage]:
    is_color = channels > 1 and images.ndim == 4 and images.shape[-1] == channels
    if not (images.ndim == 3 or is_color) or 0 in images.shape[1:]:
        raise Ineligible(
            f"{alias}_images has {images.ndim} axes: give grayscale images (images, rows, columns) "
            f"of at least one pixel, or with --kind rgb color (images, rows, columns, 3). Volumes "
            f"are not supported.",
            code="array_shape",
        )
    if images.dtype not in (np.uint8, np.uint16, np.int16):
        raise Ineligible(
            f"{alias}_images is {images.dtype}: give uint8, uint16 or int16.", code="array_type"
        )
    if labels is None:
        labels = np.zeros((len(images), 0), np.int64)
    if len(labels) != len(images) or labels.ndim not in (1, 2) or labels.dtype.kind not in "iub":
        raise Unreadable(f"{alias}_labels must have one row of integers per image.")
    rows = labels.reshape(len(images), -1).tolist()
    return {
        f"{alias}/{n}": NpzImage(f"{alias}/{n}", split, images[n], tuple(int(v) for v in row))
        for n, row in enumerate(rows)
    }


def _image(
    stored: Integers, units: UnitName, repairs: tuple[str, ...], file_format: FileFormat
) -> Image:
    record: dict[str, object]
    if UNITS[units].bounds is None:
        pixels, record = stored.astype(np.float32), {"kind": "none"}
    elif stored.dtype == np.uint8:
        # value / 255, with the arithmetic that the same image has as a wrapped DICOM file
        pixels = window(stored, *WINDOW_8_BITS)
        record = dict(zip(("kind", "center", "width"), ("window", *WINDOW_8_BITS), strict=True))
    else:
        pixels, low, high = min_max(stored, None)
        record = {"kind": "min_max", "low": low, "high": high}
    dataset = Dataset()
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    return Image(
        pixels=pixels,
        units=units,
        kind=kind_in_units(units).name,
        spacing_mm=None,
        padding=None,
        repairs=repairs,
        voi=record,
        header=replace(header_of(ParsedDataset(dataset, ())), transfer_syntax=""),
        frame=0,
        pixel_sha256=pixel_sha256(stored),
        file_format=file_format,
    )


def _require_unchanged(data: bytes, sha256: str) -> None:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CacheError(
            "a source file changed since it was ingested: run medres ingest again, into a new "
            "folder",
            code="source_changed",
        )
