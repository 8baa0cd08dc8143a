"""DICOM segmentations: read back to the same voxels, by our own reader and by highdicom's."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code
from mask_writers import item
from pydicom.dataset import Dataset
from result_objects import (
    MODEL,
    ct_slice,
    prediction,
    radiograph,
    refusal,
    validation_errors,
    written,
)

from data_pipelines.annotations.dicom_seg import read_segmentation
from data_pipelines.annotations.grids import Grid
from data_pipelines.annotations.label_map import ClassNames, LabelMap
from data_pipelines.annotations.placement import Job, MaskSource, make_label_map
from data_pipelines.annotations.raw_mask import Identity, RawMask, Target
from data_pipelines.annotations.store import parse_label_map
from data_pipelines.errors import AnnotationError
from medres.errors import ResultError
from medres.results import is_own_result, results_of, segmentation_object
from medres.results.result import Result

hd = pytest.importorskip("highdicom", reason="the extra medres[results] is not installed")
CREATED = dt.datetime(2026, 11, 30, 12, 1, 2)
CLASSES = ("liver", "tumor", "absent")
TILTED = {"step": (0.0, 0.6, 2.4)}  # mm from slice to slice, not along their normal
OBLIQUE = {"orientation": (0.8, 0.6, 0, 0, 0, -1), "step": (-1.2, 1.6, 0.0)}


def result(*images: Dataset) -> Result:
    return results_of(prediction(*images), images, MODEL, created=CREATED)


def label_map(slices: int, *, overlap: bool = False, shape: tuple = (9, 13)) -> LabelMap:
    """Liver everywhere at random, tumor beside it or within, nothing of the third class."""
    random = np.random.default_rng(slices).random((slices, *shape))
    filled = LabelMap.empty((slices, *shape), CLASSES).with_plane("liver", random < 0.3)
    return filled.with_plane("tumor", random < 0.1 if overlap else random > 0.9)


def read_back(dataset: Dataset, tmp_path: Path, *, validate: bool = True) -> RawMask:
    path = written(dataset, tmp_path)
    if validate:
        assert validation_errors(path) == []
    return read_segmentation(path, ClassNames())


def assert_same(raw: RawMask, drawn: LabelMap, images: list[Dataset]) -> None:
    """Every class has the same pixels on the image on which it was drawn; slices that the file
    leaves out are background.
    """
    slots = {frame[0]: n for n, frame in enumerate(raw.frames) if frame}
    assert raw.label_map.classes == drawn.classes
    for n, image in enumerate(images):
        for name in drawn.classes:
            plane = drawn.plane(name)[n]
            slot = slots.get(str(image.SOPInstanceUID))
            if slot is None:
                assert not plane.any()
            else:
                np.testing.assert_array_equal(raw.label_map.plane(name)[slot], plane)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)])
@pytest.mark.parametrize("geometry", [{}, TILTED, OBLIQUE], ids=["axial", "tilted", "oblique"])
@pytest.mark.parametrize("overlap", [False, True])
def test_slices_in_any_order_and_place(
    order: tuple, geometry: dict, overlap: bool, tmp_path: Path
) -> None:
    images = [ct_slice(n, **geometry) for n in order]
    drawn = label_map(4, overlap=overlap)
    drawn.layers[:, 1] = 0  # a slice without a voxel is left out of the file
    raw = read_back(segmentation_object(result(*images), drawn), tmp_path)
    assert_same(raw, drawn, images)
    assert len(raw.frames) == 3
    assert drawn.overlap_voxels > 0 or not overlap


def test_ingest_joins_it_to_its_images_exactly(tmp_path: Path) -> None:
    images = [ct_slice(n, **TILTED) for n in range(4)]
    drawn = label_map(4)
    path = written(segmentation_object(result(*images), drawn), tmp_path)
    across, down = np.reshape(np.float64(images[0].ImageOrientationPatient), (2, 3))
    grid = Grid(
        np.array([image.ImagePositionPatient for image in images], np.float64),
        down * images[0].PixelSpacing[0],
        across * images[0].PixelSpacing[1],
        9,
        13,
    )
    uids = [str(image.SOPInstanceUID) for image in images]
    identity = Identity("P1", "", images[0].FrameOfReferenceUID, frozenset(uids))
    target = Target("t", tuple("abcd"), (4, 9, 13), grid, tuple((u, 0) for u in uids), identity)
    made = make_label_map(Job(target, (MaskSource(str(path), "m", "segmentation"),), ClassNames()))
    assert [outcome.code for outcome in made.outcomes] == [""]
    joined = parse_label_map(made.data)
    for name in CLASSES:
        np.testing.assert_array_equal(joined.plane(name), drawn.plane(name))


def test_a_radiograph_has_no_position(tmp_path: Path) -> None:
    image = radiograph(shape=(9, 13), PixelSpacing=[0.2, 0.2])
    drawn = label_map(1, overlap=True)
    raw = read_back(segmentation_object(result(image), drawn), tmp_path)
    assert raw.grid is None
    assert_same(raw, drawn, [image])


def test_a_segment_knows_its_model_color_and_class(tmp_path: Path) -> None:
    images = [ct_slice(0), ct_slice(1)]
    dataset = segmentation_object(result(*images), label_map(2), colors={"liver": (255, 0, 0)})
    again = hd.seg.segread(written(dataset, tmp_path))
    assert list(again.segment_numbers) == [1, 2, 3]
    liver = again.get_segment_description(1)
    assert (liver.segment_label, liver.tracking_id) == ("liver", "liver")
    assert liver.SegmentAlgorithmType == "AUTOMATIC"
    assert liver.SegmentAlgorithmName == MODEL.name
    red = hd.color.CIELabColor.from_rgb(255, 0, 0)
    assert tuple(liver.RecommendedDisplayCIELabValue) == red.value
    assert again.ContentDescription == "RESEARCH USE ONLY"
    assert again.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    assert is_own_result(again)


def test_nothing_was_found(tmp_path: Path) -> None:
    images = [ct_slice(0), ct_slice(1)]
    empty = LabelMap.empty((2, 9, 13), CLASSES)
    raw = read_back(segmentation_object(result(*images), empty), tmp_path)
    assert raw.label_map.classes == CLASSES
    assert not raw.label_map.layers.any()


def test_a_label_map_segmentation(tmp_path: Path) -> None:
    images = [ct_slice(n) for n in (1, 0, 2)]
    drawn = label_map(3)
    dataset = segmentation_object(result(*images), drawn, kind="LABELMAP")
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
    assert_same(read_back(dataset, tmp_path, validate=False), drawn, images)
    with raises_code(AnnotationError, "overlapping_classes"):
        segmentation_object(result(*images), label_map(3, overlap=True), kind="LABELMAP")


def test_some_slices_of_a_study(tmp_path: Path) -> None:
    images = [ct_slice(n) for n in range(5)]
    frames = [(str(images[n].SOPInstanceUID), 0) for n in (3, 1)]
    drawn = label_map(2)
    raw = read_back(segmentation_object(result(*images), drawn, frames), tmp_path)
    assert_same(raw, drawn, [images[3], images[1]])


def test_frames_of_one_image(tmp_path: Path) -> None:
    image = ct_slice(
        0,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        NumberOfFrames=3,
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
        SliceThickness=None,
        SharedFunctionalGroupsSequence=[
            item(
                PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
                PixelMeasuresSequence=[item(PixelSpacing=[0.7, 0.8], SliceThickness=2)],
            )
        ],
        PerFrameFunctionalGroupsSequence=[
            item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])]) for z in (0, 4, 2)
        ],
    )
    uid = str(image.SOPInstanceUID)
    drawn = label_map(2)
    answer = results_of(refusal(), [image], MODEL, contents=[], created=CREATED)
    raw = read_back(segmentation_object(answer, drawn, [(uid, 2), (uid, 0)]), tmp_path)
    assert raw.frames == ((uid, 0), (uid, 2))
    for name in CLASSES:
        np.testing.assert_array_equal(raw.label_map.plane(name), drawn.plane(name)[::-1])


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    images = [ct_slice(0), ct_slice(1)]
    first, again = (segmentation_object(result(*images), label_map(2)) for _ in range(2))
    assert written(first, tmp_path).read_bytes() == written(again, tmp_path).read_bytes()


def test_a_thickness_that_the_images_do_not_state_is_their_step_or_absent(tmp_path: Path) -> None:
    images = [ct_slice(n, SliceThickness=None) for n in range(3)]
    regular = segmentation_object(result(*images), label_map(3))
    assert validation_errors(written(regular, tmp_path)) == []
    assert float(measures(regular).SliceThickness) == 2.5
    irregular = segmentation_object(result(*images, ct_slice(5)), label_map(4))
    assert "SliceThickness" not in measures(irregular)
    assert [float(v) for v in measures(irregular).PixelSpacing] == [0.7, 0.8]


def measures(dataset: Dataset) -> Dataset:
    return dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]


@pytest.mark.parametrize(
    ("images", "code"),
    [
        ([ct_slice(0), ct_slice(1, FrameOfReferenceUID=None)], "missing_attribute"),
        ([ct_slice(0), ct_slice(1, ImagePositionPatient=None)], "missing_attribute"),
        ([ct_slice(0), ct_slice(1, PixelSpacing=[0.7, 0.9])], "mixed_geometry"),
        ([ct_slice(0), ct_slice(1, orientation=(0, 1, 0, 1, 0, 0))], "mixed_geometry"),
        ([ct_slice(0), ct_slice(1, FrameOfReferenceUID="1.2.3")], "mixed_geometry"),
        ([ct_slice(0), ct_slice(1, ImagePositionPatient=[5, 5, 5])], "same_position"),
        ([ct_slice(0), ct_slice(1, shape=(9, 14))], "wrong_size"),
        ([ct_slice(0)], "wrong_size"),
        ([radiograph(0, shape=(9, 13)), radiograph(1, shape=(9, 13))], "several_images"),
    ],
)
def test_images_that_refuse_a_segmentation(images: list[Dataset], code: str) -> None:
    with raises_code(ResultError, code):
        segmentation_object(results_of(refusal(), images, MODEL, contents=[]), label_map(2))


@pytest.mark.parametrize(
    ("classes", "code"), [((), "no_class"), (("a" * 70, "a" * 71), "same_label")]
)
def test_classes_that_refuse_a_segmentation(classes: tuple, code: str) -> None:
    with raises_code(ResultError, code):
        segmentation_object(result(ct_slice(0)), LabelMap.empty((1, 9, 13), classes))
