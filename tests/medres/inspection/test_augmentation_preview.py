from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import medres

from data_pipelines.augment import PRESETS, AugmentSpec, apply, augmentation, draw
from data_pipelines.cache.tf_dataset import epoch_key
from data_pipelines.errors import SpecError
from medres.inspection.augmentation_captions import captions, ends
from medres.inspection.augmentation_preview import augmentation_figures, draw_gallery


def test_the_page_gets_a_figure_for_each_preset_that_fits(tiny_work: Path, tmp_path: Path) -> None:
    done = medres("inspect", tiny_work, "--augment", "--out", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "page.html").read_text()
    assert "chest_xray, on radiograph" in text
    assert "strong, on radiograph" in text
    assert "ct_slice" not in text


def test_presets_that_do_not_fit_are_named(tiny_work: Path) -> None:
    with pytest.raises(SpecError, match="HU"):
        augmentation_figures(tiny_work, "xray-32", names=("ct_volume",))
    with pytest.raises(SpecError, match="unknown augmentation"):
        augmentation_figures(tiny_work, "xray-32", names=("wild",))


def test_the_draws_are_those_of_training_and_said(picture: np.ndarray) -> None:
    spec = AugmentSpec(offset=0.3)
    figure = draw_gallery(picture, spec, "mine", np.arange(40, 44), seed=3)
    texts = [axis.get_title() for part in figure.subfigs for axis in part.axes if axis.images]
    assert texts[0] == "as it is"
    first = np.asarray(draw(np.array([[epoch_key(3, 1), 40]], np.int32), spec)["offset"])[0, 0]
    assert float(texts[1].replace("\N{MINUS SIGN}", "-").split()[1]) == pytest.approx(
        first, rel=0.05
    )
    assert texts[-2:] == ["offset \N{MINUS SIGN}0.3", "offset +0.3"]


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).random((4, 24, 24, 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "units"), [(n, u) for n, kinds in PRESETS.items() for u in kinds if n != "none"]
)
def test_every_parameter_acts_alone_and_is_said(name: str, units, picture: np.ndarray) -> None:
    spec = augmentation(name, units)
    dims = 3 if name == "ct_volume" else 2
    image = picture[:2] * 300 - 100 if units == "HU" else picture[:2]
    if dims == 3:
        image = np.repeat(image[:, None], 9, axis=1) * np.linspace(
            0.5, 1, 9, dtype=np.float32
        ).reshape(1, 9, 1, 1, 1)
    for parameter, drawn in ends(spec, dims).items():
        assert set(drawn) == {"key", parameter}
        moved = np.asarray(apply(image, drawn, spec))
        assert np.abs(moved[1] - image[1]).max() > 1e-3, parameter
        assert len(captions(drawn, spec, 1)) == 1, parameter


def test_captions_of_what_was_drawn() -> None:
    spec = AugmentSpec(
        flip_left_right=True, crop=(4, 4), cutout=0.5, gamma=1, low_resolution=2, bias=0.1
    )
    drawn = {
        "key": np.zeros((2, 2), np.int32),
        "flip": np.array([[1, -1], [1, 1]]),
        "crop": np.array([[0, 0.5]] * 2),
        "cutout": np.array([[0.1, 0.1, 0.2, 0.3], [0.1, 0.1, 0, 0]]),
        "gamma": np.array([[np.log(2)], [0]]),
        "low_resolution": np.array([[1.5], [1]]),
        "bias": np.array([np.full((5, 5), -0.1), np.zeros((5, 5))]),
    }
    assert captions(drawn, spec, 0) == [
        *("mirrored left-right", "cropped at 0, 50 %", "cut out 20 × 30 %"),
        *("gamma 2.00", "resolution ÷ 1.5", "bias up to 0.1"),
    ]
    assert captions(drawn, spec, 1) == ["cropped at 0, 50 %"]
