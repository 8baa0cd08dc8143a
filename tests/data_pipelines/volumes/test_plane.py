"""Planes from headers and from the functional groups of enhanced objects."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from data_pipelines.dicom.header import header_of
from data_pipelines.dicom.reader import parse
from data_pipelines.volumes.plane import Plane, planes_of
from data_pipelines.volumes.series import group_planes

PIXELS = np.arange(48, dtype=np.int16).reshape(6, 8)
PLACED = {
    "PixelSpacing": [0.7, 0.6],
    "ImagePositionPatient": [1, 2, 3],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
}


def item(**elements) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def planes(dataset: Dataset) -> list[Plane]:
    parsed = parse(dataset, pixels=False)
    return planes_of(parsed.dataset, header_of(parsed), 7)


def enhanced(grey, heights: list[float], **top) -> Dataset:
    """An enhanced CT whose frames lie at `heights`, in the order given; each height is seen in two
    temporal passes when `top` says so.
    """
    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])],
            FrameContentSequence=[
                item(StackID="1", InStackPositionNumber=n + 1, DimensionIndexValues=[1, n + 1])
            ],
        )
        for n, z in enumerate(heights)
    ]
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.7, 0.6])],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        CTImageFrameTypeSequence=[item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])],
    )
    pointers = [item(DimensionIndexPointer=0x00209056), item(DimensionIndexPointer=0x00209057)]
    return grey(
        np.stack([PIXELS + n for n in range(len(heights))]).astype(np.int16),
        PerFrameFunctionalGroupsSequence=frames,
        SharedFunctionalGroupsSequence=[shared],
        DimensionIndexSequence=pointers,
        **top,
    )


def test_a_single_slice(grey):
    (plane,) = planes(grey(PIXELS, ConvolutionKernel="B30f", AcquisitionNumber=3, **PLACED))
    assert (
        plane.source_index,
        plane.frame,
        plane.rows,
        plane.columns,
        plane.kernel,
        plane.acquisition,
    ) == (
        7,
        0,
        6,
        8,
        "B30f",
        3,
    )
    assert (plane.spacing, plane.position, plane.orientation) == (
        (0.7, 0.6),
        (1, 2, 3),
        (1, 0, 0, 0, 1, 0),
    )
    assert plane.non_slice_reason == ""
    assert "1.2.3" not in repr(plane)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "projection"),
        ({"Rows": None}, "no_image"),
    ],
)
def test_what_is_no_slice(grey, elements, reason):
    (plane,) = planes(grey(PIXELS, **PLACED, **elements))
    assert plane.non_slice_reason == reason


def test_frames_of_an_enhanced_object(grey):
    frame_planes = planes(enhanced(grey, [10.0, 0.0, 5.0]))
    assert [p.position for p in frame_planes] == [(0, 0, 10), (0, 0, 0), (0, 0, 5)]
    assert {(p.spacing, p.orientation, p.stack) for p in frame_planes} == {
        ((0.7, 0.6), (1, 0, 0, 0, 1, 0), "1")
    }
    assert [p.frame for p in frame_planes] == [0, 1, 2]
    assert frame_planes[0].image_type == ("ORIGINAL", "PRIMARY", "VOLUME", "NONE")
    assert frame_planes[0].dimensions == (1,)
    (group,) = group_planes(frame_planes)
    assert group.verdict == "REGULAR"
    assert [p.frame for p in group.planes] == [1, 2, 0]


def test_passes_of_an_enhanced_object_are_told_apart_by_their_dimension_index(grey):
    dataset = enhanced(grey, [0.0, 5.0, 10.0, 0.0, 5.0, 10.0])
    for n, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.FrameContentSequence[0].DimensionIndexValues = [1 + n // 3, n % 3 + 1]
    groups = group_planes(planes(dataset))
    assert [[p.frame for p in g.planes] for g in groups] == [[0, 1, 2], [3, 4, 5]]
    assert {g.verdict for g in groups} == {"REGULAR"}


def test_a_parametric_map_among_the_frames_is_no_slice(grey):
    dataset = enhanced(grey, [0.0, 5.0, 10.0])
    frame_type = item(FrameType=["DERIVED", "PRIMARY", "PERFUSION", "RCBF"])
    dataset.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence = [frame_type]
    assert {p.non_slice_reason for p in planes(dataset)} == {"parametric_map"}


def test_frames_without_functional_groups_have_no_place_of_their_own(grey):
    frame_planes = planes(grey(np.stack([PIXELS, PIXELS])))
    assert [p.position for p in frame_planes] == [None, None]
