"""Volumes read from small synthetic series: order, values, affine, policies, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code
from pydicom.dataset import Dataset

from data_pipelines.errors import LimitExceeded, SeriesError, SpecError, TruncatedPixelData
from data_pipelines.volumes import volume
from data_pipelines.volumes.resampling import spacing_of
from data_pipelines.volumes.slice_grid import Resampling
from data_pipelines.volumes.volume import read_volume, read_volumes

RNG = np.random.default_rng(5)


@pytest.fixture
def write(grey, to_bytes, tmp_path: Path):
    """Writes a slice: its name, its position and its pixels; gives the folder."""

    def make(name: str, position: list[float], value: int | np.ndarray = 0, **elements) -> Path:
        pixels = np.full((6, 8), value, np.int16) if isinstance(value, int) else value
        given = {
            "PixelSpacing": [0.7, 0.6],
            "ImagePositionPatient": position,
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "SOPInstanceUID": f"1.2.{sum(map(ord, name))}",
        }
        (tmp_path / name).write_bytes(to_bytes(grey(pixels, **{**given, **elements})))
        return tmp_path

    return make


def item(**elements) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def refusal(source, **options) -> str:
    with pytest.raises(SeriesError) as caught:
        read_volume(source, **options)
    return caught.value.code


def test_slices_come_in_order_of_position_and_not_of_names_or_numbers(write):
    for name, z, number in [("a", 10, 1), ("b", 0, 2), ("c", 5, 3)]:
        folder = write(name, [-100, -120, z], 1024 + z, InstanceNumber=number)
    volume = read_volume(folder)
    assert (volume.verdict, volume.units, volume.tilt_degrees, volume.repairs) == (
        "REGULAR",
        "HU",
        0.0,
        (),
    )
    assert volume.pixels.shape == (3, 6, 8)
    assert volume.pixels[:, 0, 0].tolist() == [0, 5, 10]
    assert volume.sop_instance_uids == ("1.2.98", "1.2.99", "1.2.97")
    np.testing.assert_allclose(
        volume.affine, [[0, 0, 0.6, -100], [0, 0.7, 0, -120], [5, 0, 0, 0], [0, 0, 0, 1]]
    )
    assert "1.2.98" not in repr(volume)


def test_paths_in_any_order_and_bare_files_work_too(write):
    folder = write("a", [0, 0, 0], 1)
    for n in (1, 2):
        write(f"f{n}", [0, 0, 5.0 * n], 1 + n)
    paths = sorted(folder.iterdir(), reverse=True)
    assert read_volume(paths).pixels[:, 0, 0].tolist() == [-1023, -1022, -1021]
    assert refusal(paths[0]) == "single"


def test_rescale_is_per_slice(write):
    for n in range(3):
        folder = write(f"s{n}", [0, 0, 5.0 * n], 100, RescaleSlope=n + 1, RescaleIntercept=-10 * n)
    assert read_volume(folder).pixels[:, 0, 0].tolist() == [100, 190, 280]


def test_padding_is_kept_beside_the_values(write):
    for n in range(3):
        folder = write(f"s{n}", [0, 0, 5.0 * n], -2000 if n == 1 else 7, PixelPaddingValue=-2000)
    volume = read_volume(folder)
    assert volume.pixels[:, 0, 0].tolist() == [-1017, -1024, -1017]
    assert volume.padding is not None
    assert volume.padding[:, 0, 0].tolist() == [False, True, False]


def test_what_is_no_slice_is_passed_over(write, tmp_path):
    for n in range(3):
        write(f"s{n}", [0, 0, 5.0 * n], n)
    write("localizer", [0, 0, 5], 0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (tmp_path / "README").write_text("notes" * 100)
    assert len(read_volume(tmp_path).pixels) == 3


def test_a_broken_slice_is_an_error_and_never_a_gap(write, tmp_path):
    for n in range(4):
        write(f"s{n}", [0, 0, 5.0 * n], n)
    whole = (tmp_path / "s3").read_bytes()
    (tmp_path / "s3").write_bytes(whole[:-10])
    with pytest.raises(TruncatedPixelData):
        read_volume(tmp_path)


@pytest.mark.parametrize(
    ("positions", "code"),
    [
        ([[0, 0, 0], [0, 0, 5], [0, 0, 15], [0, 0, 20]], "missing"),
        ([[0, 0, 0], [0, 0, 5], [0, 0, 12], [0, 0, 17]], "irregular"),
        ([[0, 0, 0], [0, 1, 5], [0, 2, 10], [0, 3, 15]], "tilted"),
        ([[0, 0, 0], [0, 0, 5]], "not_a_volume"),
        ([[0, 0, 0]], "single"),
    ],
)
def test_reject_takes_only_a_regular_series(write, positions, code):
    for n, position in enumerate(positions):
        folder = write(f"s{n}", position, n)
    assert refusal(folder) == code
    with pytest.raises(SeriesError):
        read_volumes(folder)


def test_shear_keeps_the_tilt_in_the_affine(write):
    for n in range(4):
        folder = write(f"s{n}", [0, 1.0 * n, 5.0 * n], n)
    volume = read_volume(folder, policy="shear")
    assert volume.verdict == "TILTED"
    assert volume.tilt_degrees == pytest.approx(np.degrees(np.arctan(0.2)))
    np.testing.assert_allclose(volume.affine[:3, 0], [0, 1, 5])
    assert volume.pixels.shape == (4, 6, 8)


def test_resample_fills_gaps_and_names_the_nearest_slices(write):
    for name, z in [("a", 0), ("b", 5), ("c", 15), ("d", 20)]:
        folder = write(name, [0, 0, z], 1024 + z)
    volume = read_volume(folder, policy="resample")
    assert volume.verdict == "MISSING"
    np.testing.assert_allclose(volume.pixels[:, 2, 3], [0, 5, 10, 15, 20], atol=1e-4)
    np.testing.assert_allclose(volume.affine[:3, 0], [0, 0, 5])
    assert volume.sop_instance_uids == ("1.2.97", "1.2.98", "1.2.98", "1.2.99", "1.2.100")
    assert volume.repairs == ("resampled",)


def test_resample_straightens_a_tilt_and_fills_with_air(write):
    ramp = np.tile(np.arange(6, dtype=np.int16)[:, None] * 100 + 1024, (1, 8))
    for n in range(3):
        folder = write(f"s{n}", [0, 0.7 * n, 5.0 * n], ramp)
    volume = read_volume(folder, policy="resample")
    assert volume.tilt_degrees == 0
    assert volume.pixels.shape == (3, 8, 8)
    np.testing.assert_allclose(
        volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0), np.eye(3)[:, ::-1]
    )
    np.testing.assert_allclose(
        volume.pixels[2, :, 0], [-1024, -1024, 0, 100, 200, 300, 400, 500], atol=1e-3
    )


def test_copies_are_dropped_and_other_pixels_at_the_same_place_are_refused(write):
    noise = RNG.integers(0, 100, (6, 8)).astype(np.int16)
    for n in range(3):
        folder = write(f"s{n}", [0, 0, 5.0 * n], noise + n)
    write("copy", [0, 0, 5.0], noise + 1)
    volume = read_volume(folder)
    assert len(volume.pixels) == 3
    np.testing.assert_array_equal(volume.pixels[1], noise + 1 - 1024.0)
    write("other", [0, 0, 5.0], noise + 50)
    assert refusal(folder) == "duplicate"


def test_several_groups_are_several_volumes(write):
    for n in range(3):
        write(f"a{n}", [0, 0, 5.0 * n], n)
        folder = write(f"b{n}", [10.0 * n, 0, 0], n, ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    assert refusal(folder) == "mixed_orientation"
    volumes = read_volumes(folder)
    assert [volume.verdict for volume in volumes] == ["REGULAR", "REGULAR"]
    assert {tuple(np.abs(volume.affine[:3, 0])) for volume in volumes} == {(0, 0, 5), (10, 0, 0)}


def test_an_enhanced_file_is_a_volume(grey, to_bytes, tmp_path):
    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])],
            PixelValueTransformationSequence=[
                item(RescaleSlope=1, RescaleIntercept=-1000 - z, RescaleType="HU")
            ],
        )
        for z in (10, 0, 5)
    ]
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.7, 0.6])],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
    )
    dataset = grey(
        np.stack([np.full((6, 8), n, np.int16) for n in range(3)]),
        PerFrameFunctionalGroupsSequence=frames,
        SharedFunctionalGroupsSequence=[shared],
    )
    path = tmp_path / "enhanced.dcm"
    path.write_bytes(to_bytes(dataset))
    volume = read_volume(path)
    assert volume.frames == (1, 2, 0)
    assert volume.pixels[:, 0, 0].tolist() == [-999, -1003, -1010]
    assert len(set(volume.sop_instance_uids)) == 1


def test_no_slice_at_all_is_said_by_name(write, tmp_path):
    assert refusal(tmp_path) == "not_a_volume"
    folder = write("localizer", [0, 0, 5], 0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert refusal(folder) == "localizer"


def test_unknown_policies_and_huge_stacks_are_refused(write, monkeypatch):
    for n in range(3):
        folder = write(f"s{n}", [0, 0, 5.0 * n], n)
    with raises_code(SpecError, "unknown_policy", "reject, shear, resample"):
        read_volume(folder, policy="guess")  # type: ignore[arg-type]
    monkeypatch.setattr(volume, "MAX_VOLUME_BYTES", 100)
    with pytest.raises(LimitExceeded):
        read_volume(folder)


def test_slices_of_several_units_are_refused(write):
    for n in range(3):
        folder = write(f"s{n}", [0, 0, 5.0 * n], n, RescaleType="US" if n == 1 else "HU")
    assert refusal(folder) == "mixed_units"


def ramp(write) -> Path:
    for n in range(4):
        folder = write(f"s{n}", [10, 20, 30 + 5.0 * n], np.full((6, 8), 1024 + 100 * n, np.int16))
    return folder


def test_a_volume_at_another_spacing_keeps_its_extent_and_the_names_of_its_slices(write):
    volume = read_volume(ramp(write))
    fine = volume.resampled((2.5, 0.7, 0.6))
    assert fine.pixels.shape == (8, 6, 8)
    np.testing.assert_allclose(
        fine.pixels[:, 3, 3], [0, 25, 75, 125, 175, 225, 275, 300], atol=1e-3
    )
    np.testing.assert_allclose(fine.affine[:3, 0], [0, 0, 2.5])
    np.testing.assert_allclose(fine.affine @ [-0.5, 0, 0, 1], volume.affine @ [-0.5, 0, 0, 1])
    assert fine.sop_instance_uids == tuple(
        uid for uid in volume.sop_instance_uids for _ in range(2)
    )
    assert fine.repairs == ("resampled",)
    for bad in ((0, 1, 1), (1, float("nan"), 1)):
        with raises_code(SpecError, "bad_spacing"):
            volume.resampled(bad)


def test_a_box_of_a_volume_may_reach_outside(write):
    volume = read_volume(ramp(write))
    box = volume.cropped((2, -1, 3), (3, 4, 2))
    assert box.pixels[:, 1, 0].tolist() == [200, 300, -1024]
    assert (box.pixels[:, 0] == -1024).all()
    np.testing.assert_allclose(box.affine @ [0, 1, 0, 1], volume.affine @ [2, 0, 3, 1])
    assert box.sop_instance_uids == (*volume.sop_instance_uids[2:], volume.sop_instance_uids[-1])
    with raises_code(SpecError, "bad_shape"):
        volume.cropped((0, 0, 0), (0, 1, 1))


def test_a_gap_beyond_the_limits_is_refused_and_a_raised_limit_is_recorded(write):
    for n, z in enumerate([*range(0, 20, 2), *range(60, 80, 2)]):
        folder = write(f"{n:02d}", [0, 0, z], 1024 + z)
    with raises_code(SeriesError, "gap_too_large", "42.0 mm", "20 slices"):
        read_volume(folder, policy="resample")
    limits = Resampling(max_gap_mm=50, max_gap_slices=20, max_interpolated=0.6)
    volume = read_volume(folder, policy="resample", resampling=limits)
    assert len(volume.pixels) == 40
    assert volume.interpolated == 20 / 40


def test_the_finest_step_is_an_option(write):
    for n, z in enumerate([0, 5, 10, 15, 17.5, 20, 25]):
        folder = write(f"{n:02d}", [0, 0, z], 1024 + int(2 * z))
    modal = read_volume(folder, policy="resample")
    finest = read_volume(
        folder, policy="resample", resampling=Resampling("finest", max_interpolated=0.5)
    )
    assert (spacing_of(modal.affine)[0], spacing_of(finest.affine)[0]) == (5, 2.5)
    assert (modal.interpolated, finest.interpolated) == (0, 4 / 11)
    np.testing.assert_allclose(modal.pixels[:, 2, 3], np.arange(6) * 10, atol=1e-3)


@pytest.mark.parametrize("series", ["1.2.3.99", None])
@pytest.mark.parametrize(
    "second",
    [
        {"PatientID": "P2", "StudyInstanceUID": "1.2.9.2"},
        {"PatientID": "P2"},
        {"StudyInstanceUID": "1.2.9.2"},
        {"IssuerOfPatientID": "South"},
    ],
)
def test_two_patients_or_studies_are_two_volumes(write, series, second):
    for n in range(8):
        common = {"SeriesInstanceUID": series}
        write(f"a{n}", [0, 0, 2.5 * n], n, **common)
        folder = write(f"b{n}", [0, 0, 2.5 * n + 1.25], 100 + n, **common, **second)
    volumes = read_volumes(folder)
    assert [v.verdict for v in volumes] == ["REGULAR", "REGULAR"]
    assert [v.pixels.shape for v in volumes] == [(8, 6, 8)] * 2
    assert sorted((v.pixels.min() + 1024, v.pixels.max() + 1024) for v in volumes) == [
        (0, 7),
        (100, 107),
    ]
    assert refusal(folder) == "not_a_volume"


def test_a_study_uid_that_differs_in_every_file_does_not_divide_a_series(write):
    for n in range(6):
        folder = write(f"a{n}", [0, 0, 2.5 * n], n, StudyInstanceUID=f"1.2.9.{n}")
    (volume,) = read_volumes(folder)
    assert (volume.verdict, volume.pixels.shape) == ("REGULAR", (6, 6, 8))


def test_spellings_of_one_patient_are_one_volume(write):
    for n in range(4):
        folder = write(f"a{n}", [0, 0, 2.5 * n], n, PatientID=["P 1", "p1"][n % 2])
    assert read_volume(folder).verdict == "REGULAR"
