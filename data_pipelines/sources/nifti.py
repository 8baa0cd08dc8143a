"""Reads a NIfTI file (.nii, .nii.gz) as one volume in the order and the axes of a DICOM series.

NIfTI has RAS axes and no unit of intensity. The volume is flipped and its axes are permuted, never
interpolated, such that slices ascend to the head, rows to the back and columns to the left, as
those of an axial DICOM series do; its affine is that of LPS mm. Limits hold before memory is taken.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from data_pipelines.dicom.header import Header, header_of
from data_pipelines.dicom.reader import ParsedDataset
from data_pipelines.errors import (
    Ineligible,
    LimitExceeded,
    NotDicom,
    TruncatedPixelData,
    Unreadable,
)
from data_pipelines.kinds import CT, ImageKind, UnitName, kind_in_units
from data_pipelines.pixels.grayscale import pixel_sha256
from data_pipelines.pixels.image import Image
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.storage import open_file, read_source
from data_pipelines.sources.nifti_header import (
    HEADER_BYTES,
    ORTHOGONAL_TOLERANCE,
    Affine,
    NiftiHeader,
    is_nifti_header,
    parse_header,
)
from data_pipelines.volumes.plane import Plane
from data_pipelines.volumes.resampling import spacing_of

NIFTI_SUFFIXES = (".nii", ".nii.gz")
GZIP_MAGIC = b"\x1f\x8b"
#: deflate inflates at most so much: a file that claims more is not whole
_MAX_RATIO = 1032
_CHUNK = 1 << 20
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: bytes after the last voxel that a file may have, flagged
_MAX_TRAILING = 1 << 20


@dataclass(frozen=True, eq=False)
class NiftiVolume:
    """The volume of a NIfTI file.

    array: (slices, rows, columns); the stored integers where there is no rescale, else float32.
    affine: 4 x 4 float64, maps (slice, row, column, 1) to LPS mm. repairs: codes of what was
    assumed: nifti_millimeters_assumed (the file has no spatial unit), nifti_trailing_bytes.
    """

    array: NDArray
    affine: Affine
    repairs: tuple[str, ...]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """The distance in mm between neighboring voxels along (slice, row, column)."""
        return spacing_of(self.affine)

    def planes(self) -> list[Plane]:
        """The planes of its slices, in their order."""
        slices, rows, columns = self.array.shape
        return planes_on_grid(self.affine, (slices, rows, columns))


def read_nifti(source: str | Path | bytes) -> NiftiVolume:
    """Read a .nii or .nii.gz file, given by its path or its bytes, with nibabel.

    A volume whose axes lie obliquely keeps its grid: of the axes of the file, the one that is
    closest to head-foot counts slices. The unit of its values is not in the file.

    Raises InputError (no_nibabel); the errors of `parse_header`; LimitExceeded (limit_exceeded: the
    file would inflate to more than the limit `inflated`); TruncatedPixelData; Unreadable
    (damaged_gzip); Ineligible (not_finite).
    """
    data = source if isinstance(source, bytes) else read_source(source)
    header, buffer, trailing = _inflated(data)
    stored = np.frombuffer(buffer, header.dtype, offset=header.offset, count=_voxels(header))
    array = _reoriented(header, stored.reshape(header.shape, order="F"))
    repairs = (*header.repairs, *(["nifti_trailing_bytes"] if trailing else []))
    return NiftiVolume(_values(array, header), _lps_affine(header), repairs)


def is_nifti(data: bytes) -> bool:
    """Whether bytes are those of a NIfTI file, compressed or not."""
    if data[:2] != GZIP_MAGIC:
        return is_nifti_header(data[:348])
    try:
        return is_nifti_header(zlib.decompressobj(wbits=31).decompress(data[:_CHUNK], 348))
    except zlib.error:
        return False


def has_nifti_name(path: str | Path) -> bool:
    """Whether a file is a NIfTI file by its name."""
    return str(path).lower().endswith(NIFTI_SUFFIXES)


def nifti_planes(source: str | Path | bytes) -> list[Plane]:
    """The planes of the slices, from the header alone. Raises the errors of `parse_header`, and
    Unreadable (damaged_gzip).
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else open_file(source)
    with file, _stream(file) as stream:
        header = parse_header(bytes(_filled(stream, bytearray(HEADER_BYTES))))
    affine = _lps_affine(header)
    slices, rows, columns = _oriented_shape(header)
    return planes_on_grid(affine, (slices, rows, columns))


def planes_on_grid(affine: Affine, shape: tuple[int, int, int]) -> list[Plane]:
    """The planes of the slices of a volume (slices, rows, columns) with an affine to LPS mm. What
    a NIfTI file does not have (series, acquisition, ...) is empty.
    """
    _, row_spacing, column_spacing = spacing_of(affine)
    row_cosines, column_cosines = affine[:3, 2] / column_spacing, affine[:3, 1] / row_spacing
    first = Plane(
        source_index=0,
        frame=0,
        series="",
        frame_of_reference="",
        modality="",
        rows=shape[1],
        columns=shape[2],
        spacing=(row_spacing, column_spacing),
        orientation=cast(tuple, tuple(map(float, (*row_cosines, *column_cosines)))),
        position=None,
        image_type=(),
        kernel="",
        stack="",
        dimensions=(),
        temporal=None,
        acquisition=None,
        non_slice_reason="",
    )
    return [
        replace(
            first,
            frame=n,
            position=cast(tuple, tuple(map(float, affine[:3, 3] + n * affine[:3, 0]))),
        )
        for n in range(shape[0])
    ]


def declared_units(units: UnitName | None) -> UnitName:
    """The units that the user declares for NIfTI files. Raises NotDicom (code nifti_units) where
    there are none, Ineligible (not_hu) where no NIfTI file has such values.
    """
    if units is None:
        raise NotDicom(
            "A NIfTI file does not say what its values are. Declare it with --nifti-units HU (CT), "
            "or with --kind mr.",
            code="nifti_units",
        )
    if "nifti" not in kind_in_units(units).file_formats:
        raise Ineligible(
            f"{units} values are declared for a NIfTI file: only HU of a CT, and MR, are read.",
            code="not_hu",
        )
    return units


def nifti_kind(units: UnitName | None) -> ImageKind:
    """The kind of image of a NIfTI file with these units; CT where none are declared."""
    return CT if units is None else kind_in_units(units)


def nifti_image(volume: NiftiVolume, frame: int, units: UnitName, *, digest: bool = True) -> Image:
    """One slice of a volume, as `read_image` gives a frame of a DICOM file.

    units: those that models of its kind take; an MR volume is not standardized yet. digest: False
    leaves `pixel_sha256` empty.
    """
    stored, kind = volume.array[frame], kind_in_units(units)
    _, *spacing = volume.spacing
    return Image(
        pixels=np.ascontiguousarray(stored, np.float32),
        units=kind.read_units.name,
        kind=kind.name,
        spacing_mm=(spacing[0], spacing[1]),
        padding=None,
        repairs=volume.repairs,
        voi={"kind": "none"},
        header=_empty_header(stored),
        frame=frame,
        pixel_sha256=_digest(stored) if digest else "",
        aspect=spacing[0] / spacing[1],
        file_format="nifti",
    )


def _empty_header(stored: NDArray) -> Header:
    dataset = Dataset()
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    return replace(header_of(ParsedDataset(dataset, ())), transfer_syntax="")


def _digest(values: NDArray) -> str:
    """As `pixel_sha256`, which is for integers: values that are whole numbers have the same hash in
    every number type.
    """
    if values.dtype.kind == "f":
        whole = np.rint(values)
        if np.abs(whole).max() >= 1 << 31 or (whole != values).any():
            content = f"{values.shape}float32".encode() + values.astype("<f4").tobytes()
            return hashlib.sha256(content).hexdigest()
        values = whole.astype(np.int64)
    return pixel_sha256(values)


def _voxels(header: NiftiHeader) -> int:
    return int(np.prod(header.shape, dtype=np.int64))


def _inflated(data: bytes) -> tuple[NiftiHeader, bytearray | bytes, bool]:
    """The header, the bytes up to the last voxel, and whether others follow."""
    with _stream(io.BytesIO(data)) as stream:
        head = bytes(_filled(stream, bytearray(HEADER_BYTES)))
        header = parse_header(head)
        size, is_gzip = header.total_bytes, data[:2] == GZIP_MAGIC
        if size > active_limits().inflated:
            raise LimitExceeded(
                f"The NIfTI volume takes {size} bytes; the limit is {active_limits().inflated}. "
                f"Raise it with --limit inflated=N, or split the file."
            )
        if size > (_MAX_RATIO * len(data) if is_gzip else len(data)):
            raise _truncated(size)
        if not is_gzip:
            return header, data, len(data) > size
        buffer = bytearray(size)
        buffer[: len(head)] = head[:size]
        rest = memoryview(buffer)[len(head) :]
        if len(_filled(stream, rest)) < len(rest):
            raise _truncated(size)
        # to the end of the stream, where its checksum stands
        trailing = max(0, len(head) - size) + len(_filled(stream, bytearray(_MAX_TRAILING + 1)))
        if trailing > _MAX_TRAILING:
            raise LimitExceeded(
                f"The file inflates to more than the {size} bytes that its header gives."
            )
        return header, buffer, trailing > 0


def _truncated(size: int) -> TruncatedPixelData:
    return TruncatedPixelData(
        f"The NIfTI file ends before the {size} bytes that its header gives. Fetch it again."
    )


def _stream(file: BinaryIO) -> BinaryIO:
    is_gzip = file.read(2) == GZIP_MAGIC
    file.seek(0)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_gzip else file


def _filled(stream: BinaryIO, buffer: bytearray | memoryview) -> memoryview:
    """The part of `buffer` that the stream fills, less where the stream ends."""
    view, done = memoryview(buffer), 0
    try:
        while done < len(view):
            count = stream.readinto(view[done : done + _CHUNK])  # type: ignore[attr-defined]
            if not count:
                break
            done += count
    except EOFError:
        raise TruncatedPixelData(
            "The compressed NIfTI file is truncated. Fetch it again."
        ) from None
    except (OSError, zlib.error) as error:
        raise Unreadable(
            f"The compressed NIfTI file is damaged ({type(error).__name__}). Fetch it again.",
            code="damaged_gzip",
        ) from None
    return view[:done]


def _orientation(header: NiftiHeader) -> NDArray:
    """How nibabel turns the axes of the file into (superior, posterior, left)."""
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    return ornt_transform(io_orientation(header.affine), axcodes2ornt(("S", "P", "L")))


def _reoriented(header: NiftiHeader, stored: NDArray) -> NDArray:
    """(i, j, k) -> (slices, rows, columns), a view of the same numbers."""
    from nibabel.orientations import apply_orientation

    return np.asarray(apply_orientation(stored, _orientation(header)))


def _oriented_shape(header: NiftiHeader) -> tuple[int, int, int]:
    shape = [0, 0, 0]
    for size, (axis, _) in zip(header.shape, _orientation(header), strict=True):
        shape[int(axis)] = size
    return shape[0], shape[1], shape[2]


def _lps_affine(header: NiftiHeader) -> Affine:
    """(slice, row, column, 1) -> LPS mm. Raises Ineligible (code sheared_affine) where rows and
    columns are not at right angles.
    """
    from nibabel.orientations import inv_ornt_aff

    turned = header.affine @ inv_ornt_aff(_orientation(header), header.shape)
    affine = np.asarray(_RAS_TO_LPS @ turned, np.float64)
    rows, columns = (affine[:3, axis] / np.linalg.norm(affine[:3, axis]) for axis in (1, 2))
    if abs(rows @ columns) > ORTHOGONAL_TOLERANCE:
        raise Ineligible(
            "Rows and columns of the volume are not at right angles: its slices are sheared. "
            "Resample it.",
            code="sheared_affine",
        )
    return affine


def _values(stored: NDArray, header: NiftiHeader) -> NDArray:
    if (header.slope, header.intercept) == (1.0, 0.0) and stored.dtype.kind in "iu":
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)
    values = np.empty(stored.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for index, each in enumerate(stored):
            values[index] = each.astype(np.float64) * header.slope + header.intercept
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise Ineligible(
            "The NIfTI file holds values that are not finite (NaN or infinite, perhaps outside "
            "the field of view). Write a number there: air has -1024 HU.",
            code="not_finite",
        )
    return values
