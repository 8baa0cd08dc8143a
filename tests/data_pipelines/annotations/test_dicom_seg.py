"""DICOM segmentations: binary, fractional and label maps; frames in any order, absent, shared."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from helpers import raises_code
from mask_writers import SEG, dicom_bytes, item, seg_bytes
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO

from data_pipelines.annotations.dicom_seg import read_segmentation
from data_pipelines.annotations.label_map import ClassNames
from data_pipelines.errors import AnnotationError, DicomError, LimitExceeded
from data_pipelines.runtime.limits import limited

NAMES = ClassNames()
SHAPE = (5, 7)  # 35 pixels: frames of one bit do not begin at a byte


def planes(seed: int = 0) -> np.ndarray:
    """(segments, slices, rows, columns)."""
    return np.random.default_rng(seed).random((2, 3, *SHAPE)) < 0.4


def frames_of(masks: np.ndarray, order: list[int] | None = None) -> list:
    """One frame for each segment and slice, 2.5 mm apart, in the given order."""
    frames = [
        (segment + 1, masks[segment, n], (0, 0, 2.5 * n), (f"1.2.{n}", 1))
        for segment in range(masks.shape[0])
        for n in range(masks.shape[1])
    ]
    return [frames[n] for n in order or range(len(frames))]


def test_binary_frames_in_any_order_with_overlap() -> None:
    masks = planes()
    raw = read_segmentation(
        seg_bytes(frames_of(masks, [5, 0, 3, 2, 4, 1]), ["lung", "lesion"]), NAMES
    )
    np.testing.assert_array_equal(raw.label_map.plane("lung"), masks[0])
    np.testing.assert_array_equal(raw.label_map.plane("lesion"), masks[1])
    assert raw.label_map.overlap_voxels == (masks[0] & masks[1]).sum()
    assert raw.grid is not None
    assert raw.grid.origins[:, 2].tolist() == [0, 2.5, 5]
    assert [frame[0] for frame in raw.frames if frame] == ["1.2.0", "1.2.1", "1.2.2"]


def test_an_absent_frame_is_background() -> None:
    masks = planes()
    sparse = [frame for n, frame in enumerate(frames_of(masks)) if n not in (1, 3)]
    raw = read_segmentation(seg_bytes(sparse, ["lung", "lesion"]), NAMES)
    masks[0, 1], masks[1, 0] = False, False
    np.testing.assert_array_equal(raw.label_map.plane("lung"), masks[0])
    np.testing.assert_array_equal(raw.label_map.plane("lesion"), masks[1])
    assert raw.sparse


@pytest.mark.parametrize("maximum", [255, 100, 3])
def test_fractional_is_inside_from_half_of_the_maximum_on(maximum: int) -> None:
    values = np.random.default_rng(1).integers(0, maximum + 1, SHAPE)
    raw = read_segmentation(
        seg_bytes([(1, values, (0, 0, 0), None)], ["a"], kind="FRACTIONAL", maximum=maximum), NAMES
    )
    np.testing.assert_array_equal(raw.label_map.plane("a")[0], values >= maximum / 2)
    assert raw.flags == ("fractional_probability",)


def test_a_label_map_has_its_segments_as_values() -> None:
    values = np.random.default_rng(2).integers(0, 3, (2, *SHAPE))
    frames = [(0, values[n], (0, 0, -n), (f"1.{n}", 1)) for n in range(2)]
    raw = read_segmentation(seg_bytes(frames, ["a", "b"], kind="LABELMAP"), NAMES)
    # the second frame lies lower
    np.testing.assert_array_equal(raw.label_map.single(), values[::-1])


def test_segments_of_one_label_are_one_class() -> None:
    masks = planes()
    raw = read_segmentation(seg_bytes(frames_of(masks), ["nodule", "nodule"]), NAMES)
    assert raw.label_map.classes == ("nodule",)
    np.testing.assert_array_equal(raw.label_map.plane("nodule"), masks.any(axis=0))
    assert raw.flags == ("segments_merged",)


def test_deflated_frames() -> None:
    masks = planes()
    dataset = dcmread(DicomBytesIO(seg_bytes(frames_of(masks), ["a", "b"])))
    packed = [
        np.packbits(mask.ravel(), bitorder="little").tobytes() for mask in masks.reshape(6, -1)
    ]
    raw_deflate = []
    for frame in packed:
        deflater = zlib.compressobj(wbits=-15)
        data = deflater.compress(frame) + deflater.flush()
        raw_deflate.append(data + b"\0" * (len(data) % 2))
    dataset.PixelData = encapsulate(raw_deflate)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    stand_in = "1.2.840.10008.1.2.4.80"  # pydicom writes no file of the syntax itself
    dataset.file_meta.TransferSyntaxUID = stand_in
    buffer = DicomBytesIO()
    dataset.save_as(buffer)
    data = buffer.getvalue().replace(stand_in.encode(), b"1.2.840.10008.1.2.8.1\0")
    raw = read_segmentation(data, NAMES)
    np.testing.assert_array_equal(raw.label_map.plane("b"), masks[1])


def with_segments(count: int) -> bytes:
    frame = (1, np.ones(SHAPE, bool), (0, 0, 0), None)
    return seg_bytes([frame], [f"s{n}" for n in range(count)])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (lambda: with_segments(1001), "too_many_segments"),
        (lambda: seg_bytes(frames_of(planes()), ["only one"]), "bad_frames"),
        (lambda: seg_bytes(frames_of(planes())[:2], ["a"], NumberOfFrames=3), "bad_frames"),
        (
            lambda: seg_bytes(
                frames_of(planes())[:1], ["a"], SegmentSequence=[item(SegmentLabel="a")]
            ),
            "bad_segments",
        ),
        (lambda: seg_bytes([(1, np.ones(SHAPE), None, None)], ["a"]), "no_reference"),
        (
            lambda: seg_bytes(
                [(1, np.ones(SHAPE), (0, 0, 0), None)],
                ["a"],
                kind="FRACTIONAL",
                MaximumFractionalValue=None,
            ),
            "bad_fractional",
        ),
        (
            lambda: seg_bytes([(1, np.full(SHAPE, 9), (0, 0, 0), None)], ["a"], kind="LABELMAP"),
            "unknown_label",
        ),
        (lambda: seg_bytes(frames_of(planes()), ["a", "b"], PixelData=b"\0\0"), "truncated_pixels"),
    ],
)
def test_bad_segmentations(data, code: str) -> None:
    with raises_code(DicomError, code):
        read_segmentation(data(), NAMES)


def test_memory_is_checked_before_it_is_taken() -> None:
    data = seg_bytes(frames_of(planes()), ["a", "b"])
    with limited(inflated=100), raises_code(LimitExceeded, "limit_exceeded"):
        read_segmentation(data, NAMES)


def test_a_file_without_frames() -> None:
    with raises_code(AnnotationError, "bad_frames"):
        read_segmentation(dicom_bytes(item(SOPClassUID=SEG, SOPInstanceUID="1.2")), NAMES)
