"""The Secondary Capture overlay: its picture, pixel for pixel, and what it states of itself."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code
from pydicom import dcmread
from pydicom.dataset import Dataset
from result_objects import (
    MODEL,
    Box,
    ct_slice,
    prediction,
    radiograph,
    refusal,
    validation_errors,
    written,
)

from medres.errors import ResultError
from medres.results import (
    Overlay,
    display_picture,
    is_own_result,
    results_of,
    secondary_capture,
)
from medres.results.drawing import COLORS, draw_overlay, outline
from medres.results.result import summary_lines
from medres.results.source_study import patient_orientation

hd = pytest.importorskip("highdicom", reason="the extra medres[results] is not installed")
CREATED = dt.datetime(2026, 11, 30, 12, 1, 2)


def overlay(image: Dataset, **fields: object) -> Overlay:
    return Overlay(display_picture(image), str(image.SOPInstanceUID), **fields)


def captured(image: Dataset, tmp_path: Path, *, boxes: tuple = (), **fields: object) -> Dataset:
    result = results_of(prediction(image), [image], MODEL, created=CREATED, boxes=boxes)
    path = written(secondary_capture(result, overlay(image, **fields)), tmp_path)
    assert validation_errors(path) == []
    return dcmread(path)


def below_banner(capture: Dataset, image: Dataset) -> np.ndarray:
    return capture.pixel_array[-image.Rows :, : image.Columns]


def test_the_picture_is_the_image_pixel_for_pixel_below_the_banner(tmp_path: Path) -> None:
    image = radiograph(shape=(24, 400))
    capture = captured(image, tmp_path)
    expected = np.rint(255 * display_picture(image)).astype(np.uint8)
    np.testing.assert_array_equal(below_banner(capture, image)[..., 1], expected)
    banner = capture.pixel_array[0]
    assert (banner == (190, 20, 20)).all()
    assert capture.pixel_array[: -image.Rows].std() > 0  # there is text


def test_heat_is_drawn_where_it_is_positive(tmp_path: Path) -> None:
    image = radiograph()
    heat = np.zeros((20, 30), np.float32)
    heat[5, 7], heat[6, 7], heat[7, 7] = 1.0, -1.0, np.nan
    plain = below_banner(captured(image, tmp_path), image)
    drawn = below_banner(captured(image, tmp_path, heat=heat), image)
    assert np.argwhere((plain != drawn).any(axis=2)).tolist() == [[5, 7]]


def test_masks_are_outlined_in_the_color_of_their_class(tmp_path: Path) -> None:
    image = radiograph()
    mask = np.zeros((20, 30), bool)
    mask[4:9, 10:15] = True
    drawn = below_banner(
        captured(image, tmp_path, masks={"lung": mask}, colors={"lung": (1, 2, 3)}), image
    )
    np.testing.assert_array_equal((drawn == (1, 2, 3)).all(axis=2), outline(mask))
    assert outline(mask).sum() == 16


def test_boxes_of_the_result_are_drawn_on_their_image_only(tmp_path: Path) -> None:
    image, other = radiograph(0, shape=(40, 60)), radiograph(1, shape=(40, 60))
    box = Box("nodule", 0.75, 30, 20, 50, 36, str(image.SOPInstanceUID))
    result = results_of(
        prediction(image, other), [image, other], MODEL, created=CREATED, boxes=[box]
    )
    drawn = below_banner(secondary_capture(result, overlay(image)), image)
    assert (drawn[35, 30:50] == COLORS[0]).all()
    assert (drawn[20:36, 49] == COLORS[0]).all()
    assert not (drawn[36] == COLORS[0]).all(axis=1).any()
    plain = below_banner(secondary_capture(result, overlay(other), 2), other)
    assert not (plain == COLORS[0]).all(axis=2).any()


def test_what_it_states_of_itself(tmp_path: Path) -> None:
    image = radiograph(ImageLaterality="L", BurnedInAnnotation="NO", PatientOrientation=["L", "F"])
    capture = captured(image, tmp_path)
    assert capture.ImageType == ["DERIVED", "SECONDARY"]
    assert (capture.Modality, capture.ConversionType) == ("OT", "WSD")
    assert (capture.Laterality, capture.BurnedInAnnotation) == ("L", "NO")
    assert capture.PatientOrientation == ["L", "F"]
    assert capture.ImageComments.startswith("RESEARCH USE ONLY")
    source = capture.SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert capture.StudyInstanceUID == image.StudyInstanceUID
    assert capture.SeriesInstanceUID != image.SeriesInstanceUID
    assert is_own_result(capture)


@pytest.mark.parametrize("stated", ["YES", None])
def test_the_banner_identifies_nobody_so_that_the_annotation_is_that_of_the_image(
    stated: str | None, tmp_path: Path
) -> None:
    elements = {} if stated is None else {"BurnedInAnnotation": stated}
    assert captured(radiograph(**elements), tmp_path).get("BurnedInAnnotation") == stated


def test_laterality_and_orientation_are_empty_where_they_are_unknown(tmp_path: Path) -> None:
    capture = captured(radiograph(ImageLaterality="B"), tmp_path)
    assert "Laterality" in capture
    assert not capture.Laterality
    assert not capture.PatientOrientation


def test_lossy_compression_stays_declared(tmp_path: Path) -> None:
    lossy = {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": 10.5,
        "LossyImageCompressionMethod": "ISO_10918_1",
    }
    capture = captured(radiograph(**lossy), tmp_path)
    assert {keyword: capture[keyword].value for keyword in lossy} == lossy


@pytest.mark.parametrize(
    ("orientation", "letters"),
    [
        ((1, 0, 0, 0, 1, 0), ["L", "P"]),
        ((0, 1, 0, 0, 0, -1), ["P", "F"]),
        ((-0.9, 0.1, 0, 0, -0.2, 0.98), ["R", "H"]),
    ],
)
def test_orientation_follows_the_axes(orientation: tuple, letters: list) -> None:
    assert patient_orientation(ct_slice(0, orientation=orientation)) == letters


def test_lines_say_the_decision_and_its_certainty() -> None:
    image = radiograph()
    result = results_of(prediction(image), [image], MODEL, created=CREATED)
    assert summary_lines(result) == [
        "nodule: p = 0.813, threshold 0.500: positive (uncertain)",
        "effusion: p = 0.062, threshold 0.250: negative",
    ]
    many = prediction(probabilities={str(n): n / 30 for n in range(30)}, thresholds={})
    lines = summary_lines(results_of(many, [image], MODEL, created=CREATED))
    assert lines[0] == "29: p = 0.967"
    assert lines[-1] == "and 18 less probable ones"
    refused = results_of(refusal("novelty"), [image], MODEL, created=CREATED)
    assert summary_lines(refused) == ["REFUSED: novelty"]


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    image = ct_slice(0)
    result = results_of(prediction(image), [image], MODEL, created=CREATED)
    first, again = (secondary_capture(result, overlay(image)) for _ in range(2))
    assert written(first, tmp_path).read_bytes() == written(again, tmp_path).read_bytes()
    assert secondary_capture(result, overlay(image), 2).SOPInstanceUID != first.SOPInstanceUID


@pytest.mark.parametrize(
    "fields",
    [{"heat": np.ones((20, 29))}, {"masks": {"a": np.ones((1, 1), bool)}}],
)
def test_an_overlay_of_another_size_is_refused(fields: dict) -> None:
    image = radiograph()
    result = results_of(prediction(image), [image], MODEL, created=CREATED)
    with raises_code(ResultError, "wrong_size", "20 x 30"):
        secondary_capture(result, overlay(image, **fields))


def test_a_ct_is_shown_through_the_window() -> None:
    picture = display_picture(ct_slice(0), window=(-24, 2000))
    stored = np.random.default_rng(0).integers(0, 2000, (9, 13))
    np.testing.assert_allclose(picture, stored / 2000, atol=1e-6)


def test_a_color_picture_and_not_a_number_can_be_drawn() -> None:
    picture = np.random.default_rng(0).random((8, 8, 3))
    picture[0, 0] = np.nan
    assert draw_overlay(Overlay(picture, "1.2"), [])[-8, 0].tolist() == [0, 0, 0]
