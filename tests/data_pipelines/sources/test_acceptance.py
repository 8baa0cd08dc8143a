"""Frames are judged one by one, and a constant slice stays in its series."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import raises_code, work_in_process
from pydicom.dataset import Dataset

from data_pipelines import ingest, read_volume
from data_pipelines.errors import Ineligible
from data_pipelines.sources.acceptance import accepted_images

RNG = np.random.default_rng(0)


def item(**elements: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced(grey, frames: np.ndarray, frame_types: dict[int, list[str]] | None = None) -> Dataset:
    """An enhanced CT with a step of 2.5 mm."""
    per_frame = []
    for n in range(len(frames)):
        groups = item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 2.5 * n])])
        if n in (frame_types or {}):
            groups.CTImageFrameTypeSequence = [item(FrameType=(frame_types or {})[n])]
        per_frame.append(groups)
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.5], SliceThickness=2.5)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelValueTransformationSequence=[
            item(RescaleIntercept=-1024, RescaleSlope=1, RescaleType="HU")
        ],
    )
    return grey(
        frames,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        NumberOfFrames=len(frames),
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=per_frame,
    )


def frames_with_air(*air: int) -> np.ndarray:
    frames = RNG.integers(0, 2000, (6, 8, 8)).astype(np.int16)
    frames[list(air)] = 0
    return frames


@pytest.mark.parametrize("air", [(0,), (2,), (0, 1, 5)])
def test_an_air_frame_of_an_enhanced_ct_is_kept_and_flagged(grey, to_bytes, air, tmp_path):
    data = to_bytes(enhanced(grey, frames_with_air(*air)))
    accepted = accepted_images(data)
    assert [n for n, each in enumerate(accepted) if "constant_slice" in each.image.repairs] == [
        *air
    ]
    assert len({each.image.pixel_sha256 for each in accepted}) == 6
    (tmp_path / "e.dcm").write_bytes(data)
    assert read_volume(tmp_path / "e.dcm").pixels.shape == (6, 8, 8)


def test_a_file_of_constant_frames_is_refused(grey):
    with raises_code(Ineligible, "constant_pixels"):
        accepted_images(enhanced(grey, frames_with_air(*range(6))))


def test_a_frame_that_is_no_slice_is_left_out_and_the_others_are_flagged(grey):
    projection = ["DERIVED", "PRIMARY", "PROJECTION IMAGE", "MIP"]
    accepted = accepted_images(enhanced(grey, frames_with_air(), {3: projection}))
    assert [each.image.frame for each in accepted] == [0, 1, 2, 4, 5]
    assert all("frames_left_out" in each.image.repairs for each in accepted)
    with raises_code(Ineligible, "projection"):
        accepted_images(enhanced(grey, frames_with_air(), dict.fromkeys(range(6), projection)))


def test_a_constant_slice_stays_in_its_series_and_a_constant_series_goes(
    grey, to_bytes, tmp_path, monkeypatch
):
    """Equal air slices of several patients are no copies of each other."""
    work_in_process(monkeypatch)
    for patient in range(4):
        for n in range(5):
            air = n == 0 or patient == 3
            pixels = np.zeros((8, 8)) if air else RNG.integers(0, 2000, (8, 8))
            dataset = grey(
                pixels.astype(np.int16),
                PatientID=f"P{patient}",
                StudyInstanceUID=f"1.2.{patient}",
                SeriesInstanceUID=f"1.2.{patient}.1",
                SOPInstanceUID=f"1.2.{patient}.1.{n}",
                PixelSpacing=[1, 1],
                ImagePositionPatient=[0, 0, 5 * n],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                RescaleSlope=1,
                RescaleIntercept=-1024,
            )
            (tmp_path / f"{patient}{n}.dcm").write_bytes(to_bytes(dataset))
    manifest = ingest(tmp_path)
    table, summary = manifest.table, manifest.summary
    assert summary["reasons"] == {"constant_pixels": 5}
    assert (summary["given"], summary["ok"], summary["repaired"]) == (20, 12, 3)
    assert set(table["verdict"]) == {"REGULAR"}
    assert table["repairs"].str.contains("constant_slice").sum() == 3
