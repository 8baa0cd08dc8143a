"""NIfTI volumes: the same voxels at the same places as the DICOM series; a code for the rest."""

from __future__ import annotations

import gzip
import itertools
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code

import data_pipelines
from data_pipelines.cache.store import ensure_cache
from data_pipelines.dicom.writer import save
from data_pipelines.errors import (
    DicomError,
    Ineligible,
    InputError,
    LimitExceeded,
    ManifestError,
    NotDicom,
    TruncatedPixelData,
    Unreadable,
)
from data_pipelines.ingestion.pipeline import ingest
from data_pipelines.preprocessing.spec import spec_from
from data_pipelines.preprocessing.study import prepared_study
from data_pipelines.runtime.limits import limited
from data_pipelines.sources.acceptance import accepted_images
from data_pipelines.sources.image_source import file_format_of
from data_pipelines.sources.nifti import NiftiVolume, nifti_planes, read_nifti
from data_pipelines.sources.nifti_header import parse_header
from data_pipelines.volumes.resampling import spacing_of
from data_pipelines.volumes.volume import read_volume

nib = pytest.importorskip("nibabel")
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform  # noqa: E402

SHAPE, SPACING, ORIGIN = (5, 6, 8), (2.5, 0.7, 0.6), (-100.0, -120.0, 40.0)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
VOXELS = np.random.default_rng(3).integers(-1000, 2000, SHAPE).astype(np.int16)


def rotation(x: float, z: float) -> np.ndarray:
    """Columns are the row cosines, the column cosines and the normal, turned by degrees."""
    cx, sx, cz, sz = (f(np.radians(a)) for a in (x, z) for f in (np.cos, np.sin))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    return np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]]) @ about_x


STRAIGHT, OBLIQUE = np.eye(3), rotation(20.0, -15.0)


def affine_of(axes: np.ndarray, tilt: float = 0.0) -> np.ndarray:
    """(slice, row, column, 1) -> LPS mm; tilt: mm along the columns per slice."""
    affine = np.eye(4)
    affine[:3, 0] = axes[:, 2] * SPACING[0] + axes[:, 1] * tilt
    affine[:3, 1], affine[:3, 2] = axes[:, 1] * SPACING[1], axes[:, 0] * SPACING[2]
    affine[:3, 3] = ORIGIN
    return affine


def write_dicom(grey, folder: Path, affine: np.ndarray) -> Path:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    for n, pixels in enumerate(VOXELS):
        dataset = grey(
            pixels,
            StudyInstanceUID="1.2.9.5.1",
            SeriesInstanceUID="1.2.9.5.2",
            RescaleSlope="1",
            RescaleIntercept="0",
            RescaleType="HU",
            PixelSpacing=[f"{SPACING[1]}", f"{SPACING[2]}"],
            ImageOrientationPatient=[f"{v:.12f}" for v in (*axes[:, 2], *axes[:, 1])],
            ImagePositionPatient=[f"{v:.10f}" for v in affine[:3, 3] + n * affine[:3, 0]],
        )
        save(dataset, folder / f"{n}.dcm")
    return folder


def image_in(orientation: str, affine: np.ndarray, voxels: np.ndarray = VOXELS):
    """The phantom as nibabel has it, with the axes of the file in an orientation such as RAS."""
    image = nib.Nifti1Image(voxels, LPS_TO_RAS @ affine)
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(orientation)))
    turned = image.as_reoriented(turn)
    turned.header.set_xyzt_units("mm")
    return turned


def nifti(path: Path, voxels: np.ndarray = VOXELS, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image_in("RAS", affine_of(STRAIGHT) if affine is None else affine, voxels), path)
    return path


Change = Callable[..., bytes]


@pytest.fixture
def changed() -> Change:
    """The bytes of the phantom with fields of the header replaced: name -> value."""

    def make(voxels: np.ndarray = VOXELS, /, **fields: object) -> bytes:
        image = image_in("RAS", affine_of(STRAIGHT), voxels)
        image.set_qform(image.affine, 1)
        data = image.to_bytes()
        header = nib.Nifti1Header(data[:348], check=False)
        for name, value in fields.items():
            header[name] = value
        return header.binaryblock + data[348:]

    return make


ORIENTATIONS = [
    "".join(sides)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for sides in itertools.product(*axes)
]


@pytest.mark.parametrize("axes", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_every_orientation_is_the_dicom_series(grey, tmp_path: Path, axes: np.ndarray) -> None:
    series = read_volume(write_dicom(grey, tmp_path / "dicom", affine_of(axes)))
    assert len(ORIENTATIONS) == 48
    for orientation in ORIENTATIONS:
        volume = read_nifti(image_in(orientation, affine_of(axes)).to_bytes())
        assert (volume.array == series.pixels).all(), orientation
        assert volume.array.dtype == np.int16
        np.testing.assert_allclose(volume.affine, series.affine, atol=1e-4)
        np.testing.assert_allclose(volume.spacing, SPACING, atol=1e-6)
        assert volume.repairs == ()
    planes = volume.planes()
    assert nifti_planes(image_in("PIR", affine_of(axes)).to_bytes())[2].rows == SHAPE[1]
    np.testing.assert_allclose(planes[0].orientation, [*axes[:, 0], *axes[:, 1]], atol=1e-6)
    np.testing.assert_allclose(planes[3].position, series.affine[:3] @ [3, 0, 0, 1], atol=1e-4)


def test_a_tilted_gantry_stays_in_the_affine(grey, tmp_path: Path) -> None:
    affine = affine_of(STRAIGHT, tilt=0.8)
    series = read_volume(write_dicom(grey, tmp_path / "dicom", affine), policy="shear")
    volume = read_nifti(image_in("LAS", affine).to_bytes())
    assert series.verdict == "TILTED"
    assert (volume.array == series.pixels).all()
    np.testing.assert_allclose(volume.affine, series.affine, atol=1e-4)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i4", "<f4", "<f8", "<i8", ">u2"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_number_types_rescale_and_compression(tmp_path: Path, dtype: str, kind: type) -> None:
    stored = (VOXELS + 1024).astype(dtype)
    image = kind(stored, LPS_TO_RAS @ affine_of(STRAIGHT), dtype=np.dtype(dtype))
    image.header.set_xyzt_units("mm")
    data = bytearray(image.to_bytes())
    if kind is nib.Nifti1Image:
        data[112:120] = struct.pack("<2f", 0.5, -1024)
    else:
        data[176:192] = struct.pack("<2d", 0.5, -1024)
    for name, content in (("x.nii", bytes(data)), ("x.nii.gz", gzip.compress(data))):
        (tmp_path / name).write_bytes(content)
        volume = read_nifti(tmp_path / name)
        assert volume.array.dtype == np.float32
        assert (volume.array == (VOXELS + 1024) * 0.5 - 1024).all()
    plain = read_nifti(image.to_bytes())
    number_type = np.dtype(dtype).newbyteorder("=")
    assert plain.array.dtype == (np.float32 if number_type.kind == "f" else number_type)
    assert (plain.array == VOXELS + 1024).all()


@pytest.mark.parametrize(("unit", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (10, 1)])
def test_spatial_units(changed: Change, unit: int, factor: float) -> None:
    volume = read_nifti(changed(xyzt_units=unit))
    np.testing.assert_allclose(volume.spacing, np.multiply(SPACING, factor), rtol=1e-6)
    np.testing.assert_allclose(volume.affine[:3, 3], np.multiply(ORIGIN, factor), rtol=1e-6)
    assert volume.repairs == (("nifti_millimeters_assumed",) if unit == 0 else ())


def test_the_form_that_is_set_is_taken(changed: Change) -> None:
    expected = read_nifti(changed()).affine
    for fields in ({"qform_code": 0}, {"sform_code": 0}, {"sform_code": 0, "qform_code": 2}):
        np.testing.assert_allclose(read_nifti(changed(**fields)).affine, expected, atol=1e-4)


MOVED = [-0.6, 0, 0, 105]  # 5 mm aside
GIANT = [3, 32767, 32767, 32767, 1, 1, 1, 1]
CASES: dict[str, tuple[type[DicomError], dict[str, object]]] = {
    "qform_sform_conflict": (Ineligible, {"srow_x": MOVED}),
    "no_orientation": (Ineligible, {"qform_code": 0, "sform_code": 0}),
    "spatial_units": (Ineligible, {"xyzt_units": 5}),
    "nifti_datatype": (Ineligible, {"datatype": 1536}),
    "nifti_pair": (Ineligible, {"magic": b"ni1"}),
    "colour": (Ineligible, {"datatype": 128, "bitpix": 24}),
    "complex_values": (Ineligible, {"datatype": 32, "bitpix": 64}),
    "bad_rescale": (Ineligible, {"scl_slope": np.inf}),
    "bad_spacing": (Ineligible, {"pixdim": [1, 0.6, 0.7, 0, 0, 0, 0, 0]}),
    "spacing_conflict": (Ineligible, {"pixdim": [1, 1, 1, 1, 0, 0, 0, 0], "qform_code": 0}),
    "nifti_dimensions": (Ineligible, {"dim": [4, 8, 6, 5, 2, 1, 1, 1]}),
    "limit_exceeded": (LimitExceeded, {"dim": GIANT}),
    "truncated_pixels": (TruncatedPixelData, {"dim": [3, 8, 6, 50, 1, 1, 1, 1]}),
    "nifti_header": (Unreadable, {"vox_offset": np.nan}),
    "sheared_affine": (
        Ineligible,
        {"qform_code": 0, "srow_x": [-0.6, 0.2, 0.5, 1], "srow_y": [0.2, -0.7, 0.5, 1]},
    ),
}
MORE: list[tuple[str, dict[str, object]]] = [
    ("colour", {"datatype": 2304, "bitpix": 32}),
    ("complex_values", {"datatype": 1792, "bitpix": 128}),
    ("nifti_datatype", {"datatype": 77}),
    ("nifti_datatype", {"datatype": 0}),
    ("nifti_dimensions", {"dim": [2, 8, 30, 1, 1, 1, 1, 1]}),
    ("nifti_dimensions", {"dim": [3, 8, -6, 5, 1, 1, 1, 1]}),
    ("nifti_header", {"bitpix": 8}),
    ("nifti_header", {"vox_offset": 12}),
    ("nifti_header", {"quatern_b": 3.0, "sform_code": 0}),
    ("nifti_header", {"dim": [9, 8, 6, 5, 1, 1, 1, 1]}),
    ("bad_spacing", {"pixdim": [1, np.nan, 0.7, 2.5, 0, 0, 0, 0]}),
    ("bad_spacing", {"srow_z": [0, 0, 0, 40], "qform_code": 0}),
    ("bad_spacing", {"srow_z": [0, 0, np.inf, 40], "qform_code": 0}),
    ("bad_rescale", {"scl_slope": 2, "scl_inter": np.nan}),
    ("sheared_affine", {"qform_code": 0, "srow_x": [-0.6, 0.2, 0, 1]}),  # within its slices
]


@pytest.mark.parametrize(("code", "fields"), [*((c, f) for c, (_, f) in CASES.items()), *MORE])
def test_bad_headers_have_a_code(changed: Change, code: str, fields: dict[str, object]) -> None:
    data = changed(**fields)
    with raises_code(CASES[code][0], code):
        read_nifti(data)
    with raises_code(CASES[code][0], code):
        read_nifti(gzip.compress(data))


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_values_that_are_not_finite(changed: Change, value: float) -> None:
    voxels = VOXELS.astype(np.float32)
    voxels[0, 0, 0] = value
    with raises_code(Ineligible, "not_finite"):
        read_nifti(changed(voxels, scl_slope=10.0))


def test_damaged_streams_have_a_code(changed: Change) -> None:
    data = changed()
    packed = gzip.compress(data)
    for cut in (packed[:60], packed[:-40], packed[:-4]):
        with raises_code(TruncatedPixelData, "truncated_pixels"):
            read_nifti(cut)
    with raises_code(TruncatedPixelData, "truncated_pixels"):
        read_nifti(data[:-1])
    with raises_code(TruncatedPixelData, "truncated_pixels"):
        read_nifti(data[:347] + data[347:348])
    flipped = bytearray(packed)
    flipped[-8] ^= 1  # its checksum
    with raises_code(Unreadable, "damaged_gzip"):
        read_nifti(bytes(flipped))
    with raises_code(Unreadable, "nifti_header"):
        read_nifti(b"some text" * 100)
    two = read_nifti(packed[: len(packed)] + gzip.compress(b"\0" * 10))
    assert two.repairs == read_nifti(data + bytes(10)).repairs == ("nifti_trailing_bytes",)


def test_limits_hold_before_memory_is_taken(changed: Change) -> None:
    import tracemalloc

    bomb = gzip.compress(changed() + bytes(64 << 20))
    claims = gzip.compress(changed(dim=[3, 600, 600, 600, 1, 1, 1, 1]))
    tracemalloc.start()
    with raises_code(LimitExceeded, "limit_exceeded"):
        read_nifti(bomb)
    with raises_code(TruncatedPixelData, "truncated_pixels"):
        read_nifti(claims)
    with limited(inflated=500), raises_code(LimitExceeded, "limit_exceeded"):
        read_nifti(changed())
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_without_nibabel_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: Change
) -> None:
    data = changed()
    path = nifti(tmp_path / "x.nii")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with raises_code(InputError, "no_nibabel", "medres[nifti]"):
        parse_header(data[:540])
    with raises_code(InputError, "no_nibabel", "medres[nifti]"):
        ingest(path, nifti_units="HU", workers=1)


def test_formats_are_told_apart(tmp_path: Path, grey, to_bytes, changed: Change) -> None:
    data = changed()
    assert file_format_of(data) == file_format_of(gzip.compress(data)) == "nifti"
    assert file_format_of(b"damaged", name="a/X.NII.GZ") == "nifti"
    dicom = to_bytes(grey(VOXELS[0]))
    (tmp_path / "x.nii").write_bytes(dicom)
    assert file_format_of(tmp_path / "x.nii") == file_format_of(dicom) == "dicom"
    assert file_format_of(gzip.compress(b"text" * 200)) == "dicom"
    assert isinstance(data_pipelines.read_nifti(data), NiftiVolume)


# ---- through ingest, cache and preparation


@pytest.fixture
def folder(grey, tmp_path: Path) -> Path:
    """One DICOM series of patient P1, the same as NIfTI, and five other NIfTI volumes."""
    write_dicom(grey, tmp_path / "in" / "dicom", affine_of(OBLIQUE))
    for n in range(6):
        voxels = VOXELS if n == 0 else VOXELS + np.int16(n) * (VOXELS > 0)
        nifti(tmp_path / "in" / f"{n}.nii.gz", voxels, affine_of(OBLIQUE))
    return tmp_path / "in"


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("preset", ["ct-16", "ct25d-16", "ctvol-16"])
def test_a_nifti_file_goes_the_way_of_a_series(folder: Path, tmp_path: Path, preset: str) -> None:
    for path in (folder / "dicom").iterdir():
        path.rename(tmp_path / path.name)
    manifest = ingest(folder, None, tmp_path / "work", nifti_units="HU", workers=1)
    table = manifest.table
    assert set(table["form"]) == {"nifti"}
    assert set(table["kind"]) == {"ct"}
    assert set(table["verdict"]) == {"REGULAR"}
    assert table["series"].nunique() == table["patient"].nunique() == 6
    assert table.groupby("path")["order"].apply(list).tolist() == [[0, 1, 2, 3, 4]] * 6
    np.testing.assert_allclose(table[["row_spacing", "col_spacing"]].iloc[0], SPACING[1:])
    assert manifest.summary["leak_attestation"]["reasons"] == ["patient_by_file"]
    assert manifest.summary["given"] == manifest.summary["ok"] == 6
    spec = spec_from(preset)
    cache = ensure_cache(tmp_path / "work", spec, workers=1)
    samples = 6 if spec.layout == "volume" else 30
    assert len(cache.images) == samples
    from_dicom = prepared_study(sorted(tmp_path.glob("*.dcm")), spec).pixels
    from_nifti = prepared_study([folder / "0.nii.gz"], spec).pixels
    assert (from_dicom == from_nifti).all()
    assert len(from_nifti) == samples // 6


@pytest.mark.usefixtures("in_process")
def test_patients_come_from_the_labels_table(folder: Path, tmp_path: Path) -> None:
    rows = [f"{n}.nii.gz,{n % 2},N{n // 2}" for n in range(1, 6)]
    rows += [f"dicom/{n}.dcm,0,P1" for n in range(5)]
    (tmp_path / "labels.csv").write_text("path,f,patient\n" + "\n".join([*rows, "0.nii.gz,0,P1"]))
    manifest = ingest(folder, tmp_path / "labels.csv", nifti_units="HU", workers=1)
    table = manifest.table.set_index("path")
    assert manifest.table["patient"].nunique() == 4
    assert manifest.summary["leak_attestation"] == {"attested": True, "reasons": []}
    # the DICOM series and its copy as NIfTI have the same pixels
    assert manifest.summary["reasons"] == {"duplicate": 5}
    assert set(table.index) == {f"{n}.nii.gz" for n in range(6)}
    assert (table.loc["1.nii.gz", "label:f"] == 1).all()


@pytest.mark.usefixtures("in_process")
def test_without_declared_units_nothing_is_guessed(folder: Path, changed: Change) -> None:
    manifest = ingest(folder, no_split=True, workers=1)
    assert manifest.summary["reasons"] == {"nifti_units": 6}
    assert manifest.summary["skipped"] == 6
    with raises_code(ManifestError, "no_dicom", "--nifti-units"):
        ingest(folder / "1.nii.gz", workers=1)
    with raises_code(NotDicom, "nifti_units", "--nifti-units"):
        accepted_images(changed(), units="HU")
    with raises_code(Ineligible, "not_hu"):
        accepted_images(changed(), nifti_units="display")
    with raises_code(Ineligible, "not_hu"):
        ingest(folder, nifti_units="display", workers=1)


def test_bad_files_are_quarantined_by_the_workers(tmp_path: Path, changed: Change) -> None:
    bad = {f"{code}.nii": changed(**fields) for code, (_, fields) in CASES.items()}
    bad["damaged_gzip.nii.gz"] = b"\x1f\x8b\x08" + bytes(range(200))
    bad["nifti_header.nii.gz"] = b"no gzip"
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    nifti(tmp_path / "good.nii")
    manifest = ingest(tmp_path, nifti_units="HU", no_split=True, workers=2)
    assert manifest.summary["ok"] == 1
    reasons = dict(zip(manifest.quarantine["path"], manifest.quarantine["reason"], strict=True))
    assert reasons == {name: name.split(".")[0] for name in bad}
    assert json.dumps(manifest.summary)


@pytest.mark.usefixtures("in_process")
def test_an_air_slice_is_kept_and_a_constant_volume_is_not(tmp_path: Path) -> None:
    voxels = VOXELS.copy()
    voxels[2] = -1024
    nifti(tmp_path / "air.nii", voxels)
    nifti(tmp_path / "constant.nii", np.full(SHAPE, -1024, np.int16))
    manifest = ingest(tmp_path, nifti_units="HU", no_split=True, workers=1)
    assert len(manifest.table) == SHAPE[0]
    assert manifest.table["repairs"].tolist().count("constant_slice") == 1
    assert manifest.summary["reasons"] == {"constant_pixels": 1}


@pytest.mark.usefixtures("in_process")
def test_members_of_an_archive(tmp_path: Path, changed: Change) -> None:
    import zipfile

    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "a.zip", "w") as archive:
        archive.writestr("x.nii.gz", gzip.compress(changed()))
    manifest = ingest(tmp_path / "in", None, tmp_path / "w", nifti_units="HU", no_split=True)
    assert set(manifest.table["path"]) == {"a.zip!/x.nii.gz"}
    assert len(ensure_cache(tmp_path / "w", "ctvol-16", workers=1).images) == 1


def test_a_volume_of_one_slice_and_spacing() -> None:
    volume = read_nifti(image_in("RAS", affine_of(STRAIGHT), VOXELS[:1]).to_bytes())
    assert volume.array.shape == (1, *SHAPE[1:])
    assert volume.spacing == spacing_of(volume.affine)
