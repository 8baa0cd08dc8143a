"""Other doors than DICOM: PNG and JPEG pictures, and .npz arrays in MedMNIST's form, in units that
a person declared.

A picture holds display values, bright as it was saved: 8 bits are divided by 255; of 16 bits the
range in use is not known, and the least and greatest value of the picture become 0 and 1. HU are
taken from int16 arrays alone, and only where they
are declared. Nothing else is claimed: no spacing, no patient, no modality.
"""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset

from data_pipelines.dicom.header import header_of, read_header
from data_pipelines.dicom.reader import DicomSource, ParsedDataset
from data_pipelines.errors import CacheError, DicomError, Ineligible, LimitExceeded, Unreadable
from data_pipelines.kinds import UnitName
from data_pipelines.pixels.grayscale import Integers, min_max, pixel_sha256, window
from data_pipelines.pixels.image import Image, read_image
from data_pipelines.runtime.limits import active_limits
from data_pipelines.sources.raster import RasterError, read_picture

Form = Literal["dicom", "png", "jpeg", "npz"]

WINDOW_8_BITS = (128.0, 256.0)
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".npz")
#: names of the splits in MedMNIST's arrays -> ours
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
_SKIPPED = {
    "unreadable": "The picture is damaged or cut short. Fetch it again.",
    "too_large": "The picture has more than 2^28 pixels.",
    "several_frames": "The picture holds several frames. Save each as a picture of its own.",
    "transparent": "A pixel is transparent: what lies there is unknown.",
    "colour": "A colour picture: its channels differ by more than 16 of 255.",
    "format": "Samples of this format are not read: save it as grey PNG of 8 or 16 bits, or as "
    "JPEG.",
}


@dataclass(frozen=True)
class NpzImage:
    """One image of an .npz: `name` is split/number, as in test/17; `labels` its integers."""

    name: str
    split: str
    pixels: Integers
    labels: tuple[int, ...]


def form_of(source: DicomSource) -> Form:
    """What a file or its bytes are by the first of them (and, for an .npz, its ending); "dicom"
    where none of the others.
    """
    if isinstance(source, Dataset):
        return "dicom"
    if isinstance(source, bytes | bytearray | memoryview):
        head = bytes(source[:8])
    else:
        try:
            with Path(source).open("rb") as file:
                head = file.read(8)
        except OSError:
            return "dicom"  # whose reader says what is wrong
    if head == b"\x89PNG\r\n\x1a\n":
        return "png"
    if head[:3] == b"\xff\xd8\xff":
        return "jpeg"
    named = isinstance(source, str | Path) and Path(source).suffix.lower() == ".npz"
    return "npz" if named and head[:4] == b"PK\x03\x04" else "dicom"


def study_of(source: DicomSource) -> str:
    """The study UID of a file, '' where it has none; a picture is a study of its own. Raises
    NotDicom, Unreadable.
    """
    if form_of(source) == "dicom":
        return read_header(source).identifiers.study_instance_uid
    return f"picture {hash(source)}"


def picture_image(data: bytes, units: UnitName) -> Image:
    """The bytes of a PNG or JPEG as display values. Raises Unreadable, LimitExceeded or Ineligible
    with the reason.
    """
    if len(data) > active_limits().file:
        raise LimitExceeded(f"The file has {len(data)} bytes; the limit is {active_limits().file}.")
    if units != "display":
        raise Ineligible(
            "A PNG or JPEG holds display values: HU cannot be claimed for it.", code="not_hu"
        )
    try:
        picture = read_picture(data)
    except RasterError as reason:
        code = str(reason)
        kind = {"unreadable": Unreadable, "too_large": LimitExceeded}.get(code, Ineligible)
        raise kind(_SKIPPED[code], code="limit_exceeded" if code == "too_large" else code) from None
    turned = any("EXIF" in change for change in picture.changes)
    repairs = ("faint_colour",) * picture.luminance + ("exif_orientation",) * turned
    return _image(picture.pixels, "display", repairs)


def array_image(member: NpzImage, units: UnitName) -> Image:
    """One image of an .npz in the declared units. Raises Ineligible where its integers cannot hold
    them.
    """
    if units == "HU" and member.pixels.dtype != np.int16:
        raise Ineligible(
            f"HU are signed: an array of {member.pixels.dtype} cannot hold them.", code="not_hu"
        )
    if units == "display" and member.pixels.dtype.kind == "i":
        raise Ineligible(
            "Display values are unsigned: give uint8 or uint16, or declare HU.", code="not_display"
        )
    return _image(member.pixels, units, ())


def array_members(path: Path | str, sha256: str) -> dict[str, NpzImage]:
    """Every image of an .npz by its name; the last file is kept in memory.

    Members read: <split>_images, uint8, uint16 or int16 (images, rows, cols), and <split>_labels,
    integers (images,) or (images, labels), for train, val and test, any of them absent. Raises
    Unreadable, Ineligible, LimitExceeded; CacheError where the file has another SHA-256.
    """
    return _members(str(path), sha256)


def read_row(source: str, path: str, frame: int, *, form: str, kind: str, sha256: str) -> Image:
    """The image of a manifest's row. Raises CacheError where the file is gone, or is not the one
    that was ingested.
    """
    units: UnitName = "HU" if kind == "ct" else "display"
    try:
        if form == "npz":
            file, _, name = path.rpartition("#")
            return array_image(array_members(Path(source) / file, sha256)[name], units)
        data = (Path(source) / path).read_bytes()
    except OSError as error:
        raise CacheError(
            f"a source file cannot be read ({type(error).__name__}): put it back where it was "
            f"ingested from, or run medres ingest again"
        ) from None
    _require_same(data, sha256)
    return read_image(data, frame=frame) if form == "dicom" else picture_image(data, units)


@functools.lru_cache(maxsize=1)
def _members(path: str, sha256: str) -> dict[str, NpzImage]:
    size = Path(path).stat().st_size
    if size > active_limits().file:
        raise LimitExceeded(
            f"The file has {size} bytes; the limit is {active_limits().file}. Split it."
        )
    data = Path(path).read_bytes()
    _require_same(data, sha256)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inflated = sum(entry.file_size for entry in archive.infolist())
        if inflated > active_limits().inflated:
            raise LimitExceeded(
                f"The arrays take {inflated} bytes; the limit is {active_limits().inflated}. "
                f"Split the file."
            )
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            found = {
                name: arrays[name] for name in arrays.files if name.endswith(("_images", "_labels"))
            }
    except DicomError:
        raise
    except _ARRAY_ERRORS as error:
        raise Unreadable(
            f"The .npz cannot be read ({type(error).__name__}). Fetch it again."
        ) from None
    members: dict[str, NpzImage] = {}
    for theirs, split in SPLIT_ALIASES.items():
        if f"{theirs}_images" in found:
            members |= _split_members(
                theirs, split, found[f"{theirs}_images"], found.get(f"{theirs}_labels")
            )
    if not members:
        raise Unreadable(
            "The .npz holds no train_images, val_images or test_images with an image in them."
        )
    if len({len(member.labels) for member in members.values()}) > 1:
        raise Unreadable("The splits of the .npz have labels of different numbers of columns.")
    return members


def _split_members(
    theirs: str, split: str, images: np.ndarray, labels: np.ndarray | None
) -> dict[str, NpzImage]:
    if images.ndim != 3 or 0 in images.shape[1:]:
        raise Ineligible(
            f"{theirs}_images has {images.ndim} axes: grey images (images, rows, cols) are read, "
            f"neither colour nor volumes.",
            code="array_shape",
        )
    if images.dtype not in (np.uint8, np.uint16, np.int16):
        raise Ineligible(
            f"{theirs}_images is {images.dtype}: give uint8, uint16 or int16.", code="array_type"
        )
    if labels is None:
        labels = np.zeros((len(images), 0), np.int64)
    if len(labels) != len(images) or labels.ndim not in (1, 2) or labels.dtype.kind not in "iub":
        raise Unreadable(f"{theirs}_labels does not hold integers, one row an image.")
    rows = labels.reshape(len(images), -1).tolist()
    return {
        f"{theirs}/{n}": NpzImage(f"{theirs}/{n}", split, images[n], tuple(int(v) for v in row))
        for n, row in enumerate(rows)
    }


def _image(stored: Integers, units: UnitName, repairs: tuple[str, ...]) -> Image:
    record: dict[str, object]
    if units == "HU":
        pixels, record = stored.astype(np.float32), {"kind": "none"}
    elif stored.dtype == np.uint8:
        pixels = window(
            stored, *WINDOW_8_BITS
        )  # value / 255, in the very arithmetic of a DICOM that holds the picture
        record = dict(zip(("kind", "center", "width"), ("window", *WINDOW_8_BITS), strict=True))
    else:
        pixels, low, high = min_max(stored, None)
        record = {"kind": "min_max", "low": low, "high": high}
    known = Dataset()
    known.Rows, known.Columns, known.BitsAllocated = *stored.shape, 8 * stored.dtype.itemsize
    return Image(
        pixels=pixels,
        units=units,
        kind="ct" if units == "HU" else "radiograph",
        spacing_mm=None,
        padding=None,
        repairs=repairs,
        voi=record,
        header=replace(header_of(ParsedDataset(known, ())), transfer_syntax=""),
        frame=0,
        pixel_sha256=pixel_sha256(stored),
    )


def _require_same(data: bytes, sha256: str) -> None:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CacheError(
            "a source file changed since it was ingested: run medres ingest again, into a new "
            "folder"
        )
