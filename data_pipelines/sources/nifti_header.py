"""The header of a NIfTI file, checked: its grid, its number type, its rescale and its affine.

NIfTI-1.1 (nifti1.h, 2007) and NIfTI-2 (2011), read by nibabel. What a header leaves open or
contradicts is refused by a code; nothing is guessed.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data_pipelines.errors import Ineligible, InputError, Unreadable

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

#: bytes of the longest header: those of NIfTI-2
HEADER_BYTES = 540
#: qform and sform agree where no corner of the grid differs by more than this share of a voxel
QFORM_TOLERANCE = 0.1
#: lengths of the affine and of pixdim agree within this share
SPACING_TOLERANCE = 0.01
_MIN_VOLUME = 1e-6  # of a voxel, relative to one with right angles
ORTHOGONAL_TOLERANCE = 1e-2  # cosine between rows and columns

_COLOR = ("colour", "color (RGB): save one gray value per voxel")
_COMPLEX = ("complex_values", "complex numbers: save the magnitude")
#: number of a type (datatype) -> why it is refused
_REFUSED_TYPES = {128: _COLOR, 2304: _COLOR, 32: _COMPLEX, 1792: _COMPLEX, 2048: _COMPLEX}
_MAX_BYTES_PER_VALUE = 8
#: spatial units of xyzt_units -> mm
_MILLIMETERS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}

Affine = NDArray[np.float64]


@dataclass(frozen=True)
class NiftiHeader:
    """What the header of one volume says.

    shape: voxels along the axes i, j, k, of which i is the fastest in the file. dtype: of the
    stored numbers, with their byte order. offset: bytes before them. slope, intercept: value =
    slope * stored + intercept. affine: (i, j, k, 1) -> mm in RAS axes. repairs: codes of what was
    assumed.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float
    affine: Affine
    repairs: tuple[str, ...]

    @property
    def total_bytes(self) -> int:
        """Bytes of the file, inflated, up to the last voxel."""
        rows, columns, slices = self.shape
        return self.offset + rows * columns * slices * self.dtype.itemsize


def require_nibabel() -> None:
    """Raise InputError (code no_nibabel) where nibabel is not installed."""
    try:
        import nibabel  # noqa: F401
    except ImportError:
        raise InputError(
            "NIfTI files are read by nibabel, which is not installed. Install it with: pip "
            'install "medres[nifti]"',
            code="no_nibabel",
        ) from None


def is_nifti_header(head: bytes) -> bool:
    """Whether bytes begin a NIfTI file, or the header of a pair of files.

    >>> is_nifti_header(b"\\x5c\\x01\\x00\\x00" + bytes(340) + b"n+1\\x00")
    True
    """
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def parse_header(head: bytes) -> NiftiHeader:
    """The header in the first HEADER_BYTES of a file, or in as many as it has.

    Raises InputError (no_nibabel); Unreadable: nifti_header (damaged), truncated_pixels (shorter
    than a header); Ineligible: nifti_pair (the values lie in an .img file), nifti_dimensions (not
    one volume), nifti_datatype, colour, complex_values, bad_rescale, bad_spacing, spatial_units,
    no_orientation, qform_sform_conflict, spacing_conflict, sheared_affine.
    """
    header = _nibabel_header(head)
    shape = _shape(header)
    dtype = _dtype(header)
    slope, intercept = _rescale(header)
    to_mm, repairs = _spatial_unit(header)
    affine = _affine(header, shape)
    affine[:3] *= to_mm
    return NiftiHeader(shape, dtype, _offset(header), slope, intercept, affine, repairs)


def _nibabel_header(head: bytes) -> Nifti1Header:
    require_nibabel()
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    if not is_nifti_header(head):
        raise Unreadable(
            "The file has no NIfTI header. Fetch it again, or exclude it.", code="nifti_header"
        )
    is_second = head[344:348] not in (b"n+1\0", b"ni1\0")
    kind = Nifti2Header if is_second else Nifti1Header
    if len(head) < kind.sizeof_hdr:
        raise Unreadable("The file ends within its NIfTI header.", code="truncated_pixels")
    if head[4:7] == b"ni2" or head[344:347] == b"ni1":
        raise Ineligible(
            "The file is the header of a pair (.hdr and .img). Convert the pair to one .nii file.",
            code="nifti_pair",
        )
    return kind(head[: kind.sizeof_hdr], check=False)


def _damaged(what: str) -> Unreadable:
    return Unreadable(
        f"The NIfTI header is damaged: {what}. Fetch the file again.", code="nifti_header"
    )


def _shape(header: Nifti1Header) -> tuple[int, int, int]:
    n_axes, *sizes = (int(size) for size in header["dim"])
    if not 1 <= n_axes <= 7:
        raise _damaged(f"it has {n_axes} axes")
    sizes = sizes[:n_axes]
    if len(sizes) < 3 or min(sizes) < 1 or max(sizes[3:], default=1) > 1:
        raise Ineligible(
            f"The NIfTI file has the shape {' x '.join(map(str, sizes))}, and one volume of three "
            f"axes is needed. Save each volume of a time series as a separate file.",
            code="nifti_dimensions",
        )
    return sizes[0], sizes[1], sizes[2]


def _dtype(header: Nifti1Header) -> np.dtype:
    number = int(header["datatype"])
    if number in _REFUSED_TYPES:
        code, text = _REFUSED_TYPES[number]
        raise Ineligible(f"The voxels of the NIfTI file are {text}.", code=code)
    try:
        dtype = header.get_data_dtype()
    except Exception as error:  # noqa: BLE001  nibabel raises its own class
        raise Ineligible(
            f"The NIfTI file has values of the unknown type {number} ({type(error).__name__}).",
            code="nifti_datatype",
        ) from None
    if dtype.kind not in "iuf" or not 1 <= dtype.itemsize <= _MAX_BYTES_PER_VALUE:
        raise Ineligible(
            f"The NIfTI file has values of the type {number}; integers and floating point numbers "
            f"of up to 64 bits are read.",
            code="nifti_datatype",
        )
    if int(header["bitpix"]) != 8 * dtype.itemsize:
        raise _damaged(f"its type has {8 * dtype.itemsize} bits, and bitpix is {header['bitpix']}")
    return dtype


def _offset(header: Nifti1Header) -> int:
    offset = float(header["vox_offset"])
    if not (header.sizeof_hdr <= offset < 1 << 40 and offset == int(offset)):
        raise _damaged(f"vox_offset is {offset:g}")
    return int(offset)


def _rescale(header: Nifti1Header) -> tuple[float, float]:
    """scl_slope and scl_inter. A slope of 0, or none at all, means that values are as stored."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):
        return 1.0, 0.0
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise Ineligible(
            f"The rescale of the NIfTI file is not finite: scl_slope {slope:g}, scl_inter "
            f"{intercept:g}.",
            code="bad_rescale",
        )
    return slope, intercept


def _spatial_unit(header: Nifti1Header) -> tuple[float, tuple[str, ...]]:
    """mm per spatial unit. No unit means mm, as most programs write it, and is flagged."""
    unit = int(header["xyzt_units"]) & 7
    if unit not in _MILLIMETERS:
        raise Ineligible(
            f"xyzt_units gives the unknown spatial unit {unit}: write 1 (meter), 2 (mm) or 3 "
            f"(micron).",
            code="spatial_units",
        )
    return _MILLIMETERS[unit], () if unit else ("nifti_millimeters_assumed",)


def _affine(header: Nifti1Header, shape: tuple[int, int, int]) -> Affine:
    """The sform where there is one, else the qform; both agree, and with pixdim."""
    pixdim = np.abs(np.asarray(header["pixdim"][1:4], np.float64))
    if not (np.isfinite(pixdim).all() and (pixdim > 0).all()):
        raise _bad_spacing()
    qform, sform = _forms(header)
    if qform is None and sform is None:
        raise Ineligible(
            "Neither qform nor sform is set: which way the volume lies is unknown. Set one of "
            "them.",
            code="no_orientation",
        )
    affine = qform if sform is None else sform
    assert affine is not None  # noqa: S101  one of them is set
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    volume = abs(np.linalg.det(affine[:3, :3]))
    if not np.isfinite(affine).all() or volume <= _MIN_VOLUME * lengths.prod():
        raise _bad_spacing()
    if qform is not None and sform is not None:
        _require_agreement(qform, sform, shape)
    return _checked_axes(affine, lengths, pixdim)


def _bad_spacing() -> Ineligible:
    return Ineligible(
        "The voxels of the NIfTI file have a side of zero, or one that is no number: pixdim or "
        "the affine is wrong.",
        code="bad_spacing",
    )


def _forms(header: Nifti1Header) -> tuple[Affine | None, Affine | None]:
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1  # nifti1.h: any other value of qfac means 1
    header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            qform = header.get_qform(coded=True)[0]
            sform = header.get_sform(coded=True)[0]
    except Exception as error:  # noqa: BLE001  nibabel raises several classes
        raise _damaged(f"its orientation cannot be read ({type(error).__name__})") from None
    forms = [None if form is None else np.array(form, np.float64) for form in (qform, sform)]
    return forms[0], forms[1]


def _require_agreement(qform: Affine, sform: Affine, shape: tuple[int, int, int]) -> None:
    corners = np.stack(np.meshgrid(*([0, size - 1] for size in shape), [1], indexing="ij"))
    points = corners.reshape(4, -1)
    distance = np.linalg.norm((qform @ points - sform @ points)[:3], axis=0).max()
    voxel = np.linalg.norm(sform[:3, :3], axis=0).min()
    if not distance <= QFORM_TOLERANCE * voxel:
        raise Ineligible(
            f"qform and sform place the corners of the volume up to {distance:.3g} units apart. "
            f"Remove the wrong one (set its code to 0).",
            code="qform_sform_conflict",
        )


def _checked_axes(affine: Affine, lengths: Affine, pixdim: Affine) -> Affine:
    """A tilt is allowed: one axis that is not at right angles with the two others, which are."""
    axes = affine[:3, :3] / lengths
    cosines = np.abs(axes.T @ axes)[np.triu_indices(3, 1)]  # of (i, j), (i, k), (j, k)
    is_sheared = cosines > ORTHOGONAL_TOLERANCE
    if is_sheared.sum() == 3:
        raise Ineligible(
            "No two axes of the volume are at right angles: its slices are sheared. Resample it.",
            code="sheared_affine",
        )
    if not is_sheared.any() and (np.abs(lengths - pixdim) > SPACING_TOLERANCE * lengths).any():
        raise Ineligible(
            "The affine and pixdim give voxels of different sizes. Correct the header.",
            code="spacing_conflict",
        )
    return affine
