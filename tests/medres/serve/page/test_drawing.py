"""Pictures of what a model says, as they are drawn in its process."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from medres.inference.boxes.box import Box, BoxPreview
from medres.inference.boxes.files import picture
from medres.inference.masks.files import overlay
from medres.inference.masks.study_mask import StudyMask
from medres.serve.page.drawing import LONGEST_SIDE, drawings, png_bytes
from medres.serve.page.reports import Figure
from medres.serve.page.study import mask_colors, objects_text
from medres.serve.page.words import advice, figure, size
from medres.serve.routing import ServedModel


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def mask(value: int) -> StudyMask:
    labels = np.zeros((6, 8), np.uint8)
    labels[1:3, 2:5] = value
    image = np.arange(48, dtype=np.uint16).reshape(6, 8)
    colors = ((0, 0, 0), (255, 0, 0), (0, 255, 0))
    names = ("background", "lung", "heart")
    return StudyMask(labels, names, colors, None, None, (), preview=(image, labels))


def test_each_mask_of_an_answered_study_is_drawn() -> None:
    card: Any = SimpleNamespace(
        names=["background", "lung", "heart"],
        windows=None,
        preprocess=SimpleNamespace(layout="image"),
    )
    answers = [
        SimpleNamespace(refused="no", masks=()),
        SimpleNamespace(refused=None, previews=(), masks=(mask(1), mask(2))),
    ]
    predictor: Any = SimpleNamespace(card=card, predict_many=lambda folder: iter(answers))
    drawn = drawings(predictor, "folder")
    assert [(one["prediction"], one["part"]) for one in drawn] == [(1, 0), (1, 1)]
    assert "lung, heart" in drawn[0]["caption"]
    for one, value in zip(drawn, (1, 2), strict=True):
        shown = pixels(base64.b64decode(one["png"]))
        np.testing.assert_array_equal(shown, overlay(mask(value), card))


def test_each_image_of_a_detector_is_drawn() -> None:
    card: Any = SimpleNamespace(
        names=["nodule"], windows=None, preprocess=SimpleNamespace(layout="image")
    )
    boxes = (Box("nodule", 0.9, 2, 2, 5, 5),)
    preview = BoxPreview(np.arange(64, dtype=np.uint16).reshape(8, 8), boxes, (8, 8))
    answer = SimpleNamespace(refused=None, previews=(preview, preview), masks=())
    predictor: Any = SimpleNamespace(card=card, predict_many=lambda folder: [answer])
    drawn = drawings(predictor, "folder")
    assert [(one["prediction"], one["part"]) for one in drawn] == [(0, 0), (0, 1)]
    shown = pixels(base64.b64decode(drawn[0]["png"]))
    np.testing.assert_array_equal(shown, picture(preview, card))


def test_the_colors_of_masks_are_those_of_the_card() -> None:
    card = {"names": ["background", "lung"], "segmentation": {"colors": [[0, 0, 0], [230, 46, 46]]}}
    model = ServedModel("m", "p", None, card)
    assert mask_colors(model)["lung"] == "rgb(230, 46, 46)"
    assert mask_colors(None) == mask_colors(ServedModel("m", "p", None, {})) == {}


def test_large_pictures_are_made_smaller_and_pixels_keep_their_shape() -> None:
    assert pixels(png_bytes(np.zeros((2000, 1000), np.uint8))).shape == (LONGEST_SIDE, 512)
    assert pixels(png_bytes(np.zeros((10, 20), np.uint8), aspect=2.0)).shape == (20, 20)


def test_what_became_of_the_objects() -> None:
    objects = [{"role": "report", "is_sent": True}, {"role": "overlay", "is_sent": False}]
    assert "report, overlay: 1 of 2" in objects_text(objects, has_pacs=True)
    assert "sent nowhere" in objects_text(objects, has_pacs=False)
    assert objects_text([], has_pacs=True) == "none"


def test_words_for_people() -> None:
    assert figure(Figure("AUC", None, None, None, 0.95, "one class")) == "AUC: none (one class)"
    assert figure(Figure("Dice", 0.5, None, None, 0.95, "")) == "Dice 0.500 (no interval)"
    assert size(0) == "0 bytes"
    assert size(3 << 40) == "3.0 TiB"
    assert advice("other_view") == advice("out_of_distribution") != ""
    assert advice("other_patient") != advice("other_view")
    assert advice(None) == advice("something new") == ""
