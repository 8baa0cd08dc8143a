"""Real files of other makers: each gets the right value, the right repair or the right reason.

Oracles: the uncompressed twin of a file, and pydicom's own decoders and look-up tables.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut, apply_rescale, apply_voi

from data_pipelines.dicom.eligibility import eligible_kind
from data_pipelines.dicom.header import read_header
from data_pipelines.dicom.reader import parse
from data_pipelines.errors import DicomError, NoPixelData
from data_pipelines.kinds import AIR_HU
from data_pipelines.pixels.image import read_image
from data_pipelines.pixels.stored_values import read_stored
from data_pipelines.volumes.plane import plane_of
from data_pipelines.volumes.series import group_planes, series_verdict

CT = "CTImage.dcm_"
LOSSLESS = [
    "BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2",
    "DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99",
    "JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90",
    "JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80",
    "JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70",
    "JPEGProcess14TransferSyntax_1.2.840.10008.1.2.4.57",
    "LittleEndianImplicitTransferSyntax_1.2.840.10008.1.2",
    "RLELosslessTransferSyntax_1.2.840.10008.1.2.5",
]
PLAIN = "LittleEndianExplicitTransferSyntax_1.2.840.10008.1.2.1"
PROCESS_4 = "JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51"


@pytest.fixture(scope="session")
def conformance(medres_data: Path) -> Path:
    return medres_data / "dicom-conformance"


@pytest.fixture(scope="session")
def ctimage(conformance: Path) -> Path:
    return conformance / "codecs" / "ctimage"


def by_pydicom(path: str | Path) -> np.ndarray:
    return pydicom.dcmread(path, force=True).pixel_array


def shipped(name: str) -> str:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} is not installed with pydicom and pydicom-data")
    return path


@pytest.mark.parametrize("name", LOSSLESS)
def test_one_ct_in_every_lossless_syntax_is_bit_equal(ctimage, name):
    plain = by_pydicom(ctimage / f"{CT}{PLAIN}.dcm")
    path = ctimage / f"{CT}{name}.dcm"
    stored = read_stored(path)
    assert stored.dtype == np.int16
    np.testing.assert_array_equal(stored, plain)
    assert read_image(path).pixel_sha256 == read_image(ctimage / f"{CT}{PLAIN}.dcm").pixel_sha256


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("JPEG2000TransferSyntax_1.2.840.10008.1.2.4.91", 12),
        ("JPEGLSLossyTransferSyntax_1.2.840.10008.1.2.4.81", 3),
        ("JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50", 65),
        (PROCESS_4, 36),
        ("JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53", 36),
        ("JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55", 36),
    ],
)
def test_lossy_copies_stay_near_the_original(ctimage, name, most):
    plain = read_image(ctimage / f"{CT}{PLAIN}.dcm")
    lossy = read_image(ctimage / f"{CT}{name}.dcm")
    assert (lossy.units, lossy.header.lossy) == ("HU", True)
    inside = plain.pixels > AIR_HU + 100
    assert np.abs(lossy.pixels - plain.pixels)[inside].max() <= most


@pytest.mark.parametrize(
    "name",
    [
        "JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53",
        "JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55",
    ],
)
def test_retired_jpeg_processes_decode_to_the_values_of_process_4(ctimage, name):
    """What lets `.53` and `.55` be read at all."""
    np.testing.assert_array_equal(
        read_stored(ctimage / f"{CT}{name}.dcm"), read_stored(ctimage / f"{CT}{PROCESS_4}.dcm")
    )


def test_fragments_and_offset_tables(conformance):
    folder = conformance / "codecs" / "fragments"
    frames = by_pydicom(folder / "CT0012.explicit_little_endian.dcm")
    single = by_pydicom(folder / "CT1_UNC.explicit_little_endian.dcm")
    lossless = [path for path in folder.iterdir() if not path.name.endswith((".51.dcm", ".81.dcm"))]
    assert len(lossless) == 15
    for path in lossless:
        expected = frames if path.name.startswith("CT0012") else single
        np.testing.assert_array_equal(read_stored(path), expected, err_msg=path.name)
    near = read_stored(folder / "CT0012.fragmented_no_bot_jpeg_ls.81.dcm")
    assert np.abs(near.astype(int) - frames).max() <= 3
    assert (
        read_stored(folder / "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm").shape == frames.shape
    )


def test_a_signed_image_in_an_unsigned_jpeg_2000_stream(conformance):
    path = conformance / "codecs" / "J2K_pixelrep_mismatch.dcm"
    stored = read_stored(path)
    assert (stored.dtype, stored.min(), stored.max()) == (np.int16, -2000, 1896)
    np.testing.assert_array_equal(stored, by_pydicom(path))
    assert "codestream_sign" in read_image(path).repairs


def test_a_report_has_no_pixels(conformance):
    path = conformance / "codecs" / "no-pixel-data.dcm"
    with pytest.raises(NoPixelData):
        read_stored(path)
    with pytest.raises(DicomError) as caught:
        eligible_kind(read_header(path))
    assert caught.value.code == "no_image"


def test_a_broken_and_a_repaired_dx(conformance):
    with pytest.raises(DicomError) as caught:
        read_image(conformance / "xray" / "966.dcm")
    assert caught.value.code == "decode_failed"
    assert "imagecodecs.jpeg2k" in str(caught.value)
    assert "pydicom.pylibjpeg" in str(caught.value)
    image = read_image(conformance / "xray" / "966_fixed.dcm")
    stored = by_pydicom(conformance / "xray" / "966_fixed.dcm").astype(float)
    expected = 1 - np.clip((stored - 2047.5) / 4095 + 0.5, 0, 1)
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)
    assert (image.header.view_position, image.header.flags, image.spacing_mm) == (
        "PA",
        ("derived",),
        (0.16, 0.16),
    )


def test_a_monochrome1_chest_without_preamble(conformance):
    path = conformance / "xray" / "CR-MONO1-10-chest"
    image = read_image(path)
    assert image.repairs[:2] == ("missing_preamble", "missing_meta")
    assert eligible_kind(image.header) == "radiograph"
    raw = pydicom.dcmread(path, force=True)
    stored = np.frombuffer(raw.PixelData, "<u2").reshape(440, 440).astype(float)
    expected = 1 - np.clip((stored - 549.5) / 1023 + 0.5, 0, 1)
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)


def test_a_modality_lut_of_a_cr(conformance):
    path = conformance / "xray" / "CR-ModalitySequenceLUT.dcm"
    dataset = pydicom.dcmread(path)
    output = apply_modality_lut(read_stored(path), dataset).astype(float)
    expected = 1 - (output - output.min()) / (output.max() - output.min())
    image = read_image(path)
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)
    assert image.voi["kind"] == "min_max"


@pytest.mark.parametrize(
    ("folder", "labels", "series"),
    [
        ("gantrytilting/001", ["TILTED"], "TILTED"),
        ("notavolume/001", ["NOT_A_VOLUME"], "NOT_A_VOLUME"),
        ("philips-localizer", ["LOCALIZER"], "LOCALIZER"),
        ("philips-tilt-summary", ["LOCALIZER"] * 3 + ["NOT_A_VOLUME"] * 3, "NOT_A_VOLUME"),
        ("regular/mr-anatomical", ["REGULAR"], "REGULAR"),
        ("slicecount/001", ["NOT_A_VOLUME"], "NOT_A_VOLUME"),
        ("sliceincrement/001", ["MISSING(1)"], "MISSING"),
        ("sliceincrement/002", ["MISSING(1)"], "MISSING"),
        ("sliceorientation/001", ["NOT_A_VOLUME", "NOT_A_VOLUME"], "MIXED_ORIENTATION"),
    ],
)
def test_verdicts(conformance, folder, labels, series):
    """One place seen four times; two slices, which prove no step; a gap, with and without tilt; two
    directions.
    """
    headers = [
        read_header(path)
        for path in sorted((conformance / "geometry" / folder).iterdir())
        if path.name != "DIRFILE"
    ]
    groups = group_planes([plane_of(header, n) for n, header in enumerate(headers)])
    assert [group.label for group in groups] == labels
    assert series_verdict(groups) == series


def test_the_tilt_is_that_of_the_orientation(conformance):
    headers = [
        read_header(path) for path in (conformance / "geometry" / "gantrytilting" / "001").iterdir()
    ]
    (group,) = group_planes([plane_of(header, n) for n, header in enumerate(headers)])
    cosines = np.array(headers[0].orientation)
    assert group.tilt_degrees == pytest.approx(np.degrees(np.arcsin(-cosines[5])), abs=1e-3)
    assert group.affine is not None
    np.testing.assert_allclose(group.affine[:3, 0], [0, 0, 5], atol=1e-6)


REASONS = {
    "DIRFILE": "not_an_image",
    "no-pixel-data.dcm": "no_image",
    **dict.fromkeys(("I10", "I20", "I30"), "localizer"),
    **dict.fromkeys(("I40", "I50", "I60"), "colour"),
}


def test_every_file_ends_as_an_image_or_with_its_reason(conformance):
    """All but the two large DX files, which have a test of their own."""
    for path in sorted(
        p for p in conformance.rglob("*") if p.is_file() and not p.name.startswith("966")
    ):
        code = None
        try:
            header = read_header(path)
            kind = eligible_kind(header)
            assert read_image(path).units == {"ct": "HU", "radiograph": "display"}[kind]
        except DicomError as error:
            code = error.code
        expected = REASONS.get(path.name)
        if expected is None and header.modality == "MR":
            expected = "modality"
        if path.name.startswith("CT0012"):
            expected = "parametric_map"
        assert code == expected, path.name


def test_real_ct_slices_in_hounsfield_units(medres_data):
    """Against pydicom's rescale. Some of these GE files declare a padding of -2000 and hold a fill
    of -2048 HU.
    """
    paths = sorted((medres_data / "ct-contrast").rglob("*.dcm"))[::6]
    assert paths
    for path in paths:
        dataset = pydicom.dcmread(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stored = dataset.pixel_array
            expected = apply_rescale(stored, dataset).astype(np.float32)
        image = read_image(path)
        outside = expected < -1500
        if "PixelPaddingValue" in dataset:
            outside |= stored == (dataset.PixelPaddingValue + 32768) % 65536 - 32768
        padding = np.zeros(stored.shape, bool) if image.padding is None else image.padding
        np.testing.assert_array_equal(padding, outside)
        np.testing.assert_array_equal(image.pixels, np.where(outside, np.float32(AIR_HU), expected))


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
        ("MR_small_expb.dcm", "MR_small.dcm"),
        ("MR_small_implicit.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("MR_small_padded.dcm", "MR_small.dcm"),
        ("rtdose_expb.dcm", "rtdose.dcm"),
        ("rtdose_rle.dcm", "rtdose.dcm"),
        ("emri_small_RLE.dcm", "emri_small.dcm"),
        ("emri_small_jpeg_ls_lossless.dcm", "emri_small.dcm"),
        ("emri_small_jpeg_2k_lossless.dcm", "emri_small.dcm"),
        ("emri_small_jpeg_2k_lossless_too_short.dcm", "emri_small.dcm"),
        ("693_J2KR.dcm", "693_UNCR.dcm"),
        ("RG3_J2KR.dcm", "RG3_UNCR.dcm"),
    ],
)
def test_files_shipped_with_pydicom_equal_their_uncompressed_twins(name, twin):
    np.testing.assert_array_equal(read_stored(shipped(name)), by_pydicom(shipped(twin)))


def test_a_truncated_file_shipped_with_pydicom():
    with pytest.raises(DicomError) as caught:
        read_stored(shipped("MR_truncated.dcm"))
    assert caught.value.code == "truncated_pixels"


def test_a_file_shipped_with_pydicom_that_lacks_its_last_delimiter_is_flagged():
    parsed = parse(shipped("emri_small_jpeg_2k_lossless_too_short.dcm"), pixels=True)
    assert parsed.repairs == ("missing_sequence_delimiter",)


def test_a_deflated_file_and_one_with_overlays():
    np.testing.assert_array_equal(
        read_stored(shipped("image_dfl.dcm")), by_pydicom(shipped("image_dfl.dcm"))
    )
    np.testing.assert_array_equal(
        read_stored(shipped("examples_overlay.dcm")), by_pydicom(shipped("examples_overlay.dcm"))
    )


def test_a_modality_lut_shipped_with_pydicom():
    path = shipped("mlut_18.dcm")
    dataset = pydicom.dcmread(path)
    output = apply_modality_lut(dataset.pixel_array, dataset).astype(float)
    expected = (output - output.min()) / (output.max() - output.min())
    np.testing.assert_allclose(read_image(path).pixels, expected, atol=1e-6)


def test_a_voi_lut_shipped_with_pydicom():
    path = shipped("vlut_04.dcm")
    dataset = pydicom.dcmread(path)
    expected = apply_voi(dataset.pixel_array, dataset).astype(float) / 65535
    image = read_image(path)
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)
    assert image.voi == {
        "kind": "lut",
        "entries": 256,
        "bits": 16,
        "alternatives": 1,
        "inverted": False,
    }


def test_an_enhanced_ct_is_rescaled_by_its_functional_groups():
    """pydicom's apply_modality_lut leaves such frames as they are: 1024 off."""
    path = shipped("eCT_Supplemental.dcm")
    stored = by_pydicom(path)
    for frame in (0, 1):
        image = read_image(path, frame=frame)
        np.testing.assert_array_equal(image.pixels, stored[frame] - 1024.0)
        assert (image.units, image.spacing_mm) == ("raw", (0.388672, 0.388672))
