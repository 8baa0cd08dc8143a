from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import medres, raises_code

from data_pipelines.augment import PRESETS, AugmentSpec, apply, augmentation, draw
from data_pipelines.augment.parameters import RULES, Rule
from data_pipelines.cache.tf_dataset import epoch_key
from data_pipelines.errors import SpecError
from medres.inspection.augmentation_captions import IN_UNITS, PHRASES, SCALARS, captions, extremes
from medres.inspection.augmentation_preview import augmentation_figures, preview_figure


def test_the_page_gets_a_figure_for_each_preset_that_fits(tiny_work: Path, tmp_path: Path) -> None:
    done = medres("inspect", tiny_work, "--augment", "--out", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "page.html").read_text()
    assert "chest_xray, on radiograph" in text
    assert "strong, on radiograph" in text
    assert "ct_slice" not in text


def test_presets_that_do_not_fit_are_named(tiny_work: Path) -> None:
    with raises_code(SpecError, "wrong_units", "HU"):
        augmentation_figures(tiny_work, "xray-32", names=("ct_volume",))
    with raises_code(SpecError, "unknown_augmentation", "wild"):
        augmentation_figures(tiny_work, "xray-32", names=("wild",))


def test_the_draws_are_those_of_training_and_have_captions(picture: np.ndarray) -> None:
    spec = AugmentSpec(offset=0.3)
    figure = preview_figure(picture, spec, "mine", np.arange(40, 44), seed=3)
    texts = [axis.get_title() for part in figure.subfigs for axis in part.axes if axis.images]
    assert texts[0] == "original"
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
def test_every_parameter_of_a_preset_acts_alone_and_has_a_caption(
    name: str, units, picture: np.ndarray
) -> None:
    spec = augmentation(name, units)
    dims = 3 if name.endswith("_volume") else 2
    image = picture[:2] * 300 - 100 if units == "HU" else picture[:2]
    if units == "rgb":
        image = np.concatenate([image, image**2, 1 - image], axis=-1)
    if dims == 3:
        image = np.repeat(image[:, None], 9, axis=1) * np.linspace(
            0.5, 1, 9, dtype=np.float32
        ).reshape(1, 9, 1, 1, 1)
    for parameter, drawn in extremes(spec, dims).items():
        assert set(drawn) == {"key", parameter}
        moved = np.asarray(apply(image, drawn, spec))
        assert np.abs(moved[1] - image[1]).max() > 1e-3, parameter
        assert len(captions(drawn, spec, 1)) == 1, parameter


def test_every_row_of_the_captions_is_a_parameter() -> None:
    assert {*SCALARS, *PHRASES} <= RULES.keys()
    assert set(IN_UNITS) <= SCALARS.keys()


@pytest.mark.parametrize("units", ["display", "HU"])
@pytest.mark.parametrize("dims", [2, 3])
def test_everything_that_can_be_drawn_has_a_caption(units, dims: int) -> None:
    only = {"display": {"quantum": 0.1}, "HU": {"scale": 0.1, "window": (-100.0, 300.0)}}[units]
    names = (
        *("rotation", "tilt", "zoom", "shear", "shift", "elastic", "offset", "contrast", "gamma"),
        *("window_centre", "window_width", "blur", "noise", "bias", "cutout"),
    )
    flips = {"flip_left_right": True, "crop": (4,) * dims, "low_resolution": 2}
    spec = AugmentSpec(units=units, **dict.fromkeys(names, 0.2), **flips, **only)
    drawn = draw(np.array([[0, 0]], np.int32), spec, dims).keys() - {"key"}
    assert drawn <= SCALARS.keys() | PHRASES.keys()
    for name, params in extremes(spec, dims).items():
        assert len(captions(params, spec, 1)) == 1, name


def test_an_unknown_parameter_is_named_with_its_values() -> None:
    drawn = {"vignette": np.array([[0.25], [0.0]])}
    assert captions(drawn, AugmentSpec(), 0) == ["vignette 0.25"]
    assert captions(drawn, AugmentSpec(), 1) == []


@pytest.mark.parametrize(
    ("rule", "ends"),
    [
        (lambda u, spec: 0.5 * u, [0.25, 0.5]),
        (lambda u, spec: 1 + 3 * u, [2.5, 4]),
        (lambda u, spec: 2 * u - 1, [-1, 1]),
    ],
)
def test_a_new_parameter_has_extremes_without_a_row(
    rule, ends: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, "vignette", Rule(24, lambda spec, dims: 1, rule))
    drawn = extremes(AugmentSpec(rotation=10), 2)
    np.testing.assert_allclose(drawn["vignette"]["vignette"].ravel(), ends, rtol=1e-6)


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
