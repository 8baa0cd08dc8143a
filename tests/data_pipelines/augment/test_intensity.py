from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from data_pipelines.augment import AugmentSpec, apply, draw
from data_pipelines.augment.bspline import field, field_at
from data_pipelines.augment.degradation import LATITUDE
from data_pipelines.augment.intensity import adjust, box_mask


def column(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def display(drawn: dict, image: np.ndarray, **options) -> np.ndarray:
    key = np.stack([np.arange(len(image), dtype=np.int32)] * 2, axis=1)
    return np.asarray(apply(image, {"key": key} | drawn, AugmentSpec(**options)))


@pytest.fixture
def grey() -> np.ndarray:
    return np.random.default_rng(0).random((2, 9, 10, 1)).astype(np.float32)


def test_gamma_contrast_and_offset_of_display_values(grey) -> None:
    drawn = {
        "gamma": column([0.3, -0.3]),
        "contrast": column([0.2, -0.2]),
        "offset": column([0.05, -0.05]),
    }
    got = display(drawn, grey)
    for i, sign in enumerate((1, -1)):
        want = (
            (grey[i].astype(float) ** np.exp(sign * 0.3) - 0.5) * (1 + sign * 0.2)
            + 0.5
            + sign * 0.05
        )
        assert got[i] == pytest.approx(np.clip(want, 0, 1), abs=1e-5)


def test_hu_are_scaled_about_water_and_shifted_and_not_cut() -> None:
    hu = np.array([-1024, 0, 3000], np.float32).reshape(1, 3, 1, 1).repeat(2, axis=0)
    spec = AugmentSpec(units="HU", scale=0.1, offset=20, fill=-1024)
    got = np.asarray(
        adjust(
            hu,
            {
                "key": np.zeros((2, 2), np.int32),
                "scale": column([0.1, 0]),
                "offset": column([0, -7]),
            },
            spec,
        )
    )
    assert got[0].ravel() == pytest.approx([-1126.4, 0, 3300], rel=1e-6)
    assert got[1].ravel() == pytest.approx([-1031, -7, 2993], rel=1e-6)


def test_the_window_jitter_shows_what_the_moved_window_would() -> None:
    hu = np.linspace(-1000, 1000, 40, dtype=np.float32).reshape(1, 40, 1, 1)
    spec = AugmentSpec(
        units="HU", window=(-160, 240), window_centre=30, window_width=0.5, fill=-1024
    )
    drawn = {
        "key": np.zeros((1, 2), np.int32),
        "window_centre": column([25]),
        "window_width": column([0.4]),
    }
    got = np.asarray(adjust(hu, drawn, spec))
    displayed = np.clip((got + 160) / 400, 0, 1)
    want = np.clip((hu - (40 + 25 - 200 * 1.4)) / (400 * 1.4), 0, 1)
    assert displayed == pytest.approx(want, abs=1e-6)


def test_gamma_of_hu_acts_inside_the_window_alone() -> None:
    hu = np.linspace(-1000, 1000, 41, dtype=np.float32).reshape(1, 41, 1, 1)
    spec = AugmentSpec(units="HU", window=(-160, 240), gamma=0.5, fill=-1024)
    got = np.asarray(adjust(hu, {"key": np.zeros((1, 2), np.int32), "gamma": column([0.4])}, spec))
    inside = (hu > -160) & (hu < 240)
    assert got[~inside] == pytest.approx(hu[~inside], abs=1e-3)
    unit = (hu[inside].astype(float) + 160) / 400
    assert got[inside] == pytest.approx(unit ** np.exp(0.4) * 400 - 160, abs=1e-2)


@pytest.mark.parametrize("shape", [(2, 9, 20, 1), (2, 3, 9, 20, 2)])
def test_blur_is_scipys_gaussian_with_the_border_left_out(shape) -> None:
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    got = display({"blur": column([1.3, 0.6])}, image, blur=1.3)
    for i, sigma in enumerate((1.3, 0.6)):
        want, ones = image[i].astype(float), np.ones(shape[1:])
        for axis in (len(shape) - 4, len(shape) - 3):
            want, ones = (
                gaussian_filter1d(a, sigma, axis=axis, mode="constant", radius=4)
                for a in (want, ones)
            )
        assert got[i] == pytest.approx(want / ones, abs=1e-6)


def test_low_resolution_leaves_every_second_pixel_and_lines_between_them() -> None:
    image = np.random.default_rng(0).random((2, 16, 16, 1)).astype(np.float32)
    got = display({"low_resolution": column([2, 1])}, image, low_resolution=2)
    assert (got[1] == image[1]).all()
    weights = np.exp(
        -0.5 * np.arange(-2, 3) ** 2 / 0.25
    )  # a pixel twice as wide: variance (4 - 1) / 12
    smooth = image[0, ..., 0].astype(float)
    for axis in (0, 1):
        inside = np.apply_along_axis(np.convolve, axis, np.ones((16, 16)), weights, "same")
        smooth = np.apply_along_axis(np.convolve, axis, smooth, weights, "same") / inside
    coarse = smooth[1::2, 1::2]
    position = (np.arange(16) + 0.5) / 2 - 0.5
    lines = np.stack([np.interp(position, np.arange(8), line) for line in coarse])
    want = np.stack([np.interp(position, np.arange(8), line) for line in lines.T]).T
    assert got[0, 1:-1, 1:-1, 0] == pytest.approx(want[1:-1, 1:-1], abs=2e-3)


def test_noise_has_its_sigma_and_quantum_noise_falls_with_exposure() -> None:
    image = np.full((2, 120, 120, 1), 0.5, np.float32)
    image[1, :60], image[1, 60:] = 0.75, 0.25
    got = (
        display(
            {"noise": column([0.05, 0]), "quantum": column([0, 0.1])},
            image,
            noise=0.05,
            quantum=0.1,
        )
        - image
    )
    assert got[0].std() == pytest.approx(0.05, rel=0.03)
    assert abs(got[0].mean()) < 0.002
    bright, dark = got[1, :60].std(), got[1, 60:].std()
    assert bright == pytest.approx(0.1 * np.exp(-LATITUDE * 0.25 / 2), rel=0.03)
    assert (bright / dark) ** 2 == pytest.approx(
        10, rel=0.1
    )  # a quarter of the latitude of two decades, twice


def test_bias_is_a_field_of_low_frequency() -> None:
    image = np.full((1, 40, 40, 1), 0.5, np.float32)
    control = np.random.default_rng(0).uniform(-0.2, 0.2, (1, 5, 5)).astype(np.float32)
    got = display({"bias": control}, image, bias=0.2)[0, ..., 0] - 0.5
    assert got == pytest.approx(np.asarray(field(control, (40, 40)))[0], abs=1e-6)
    assert 0.01 < np.abs(got).max() <= 0.2
    assert np.abs(np.diff(got, axis=0)).max() < 0.4 / 20


def test_fields_are_flat_where_their_controls_are_and_defined_between_pixels() -> None:
    assert np.asarray(field(np.full((1, 7, 5), 3, np.float32), (30, 17))) == pytest.approx(
        np.full((1, 30, 17), 3)
    )
    control = np.random.default_rng(0).random((2, 7, 5)).astype(np.float32)
    whole = np.asarray(field(control, (30, 17)))
    points = np.array([[[4, 3], [29, 16], [0, 0]]] * 2, np.float32)
    at = np.asarray(field_at(control, points, (30, 17)))
    assert at == pytest.approx(whole[:, [4, 29, 0], [3, 16, 0]], abs=1e-6)


def test_cutout_fills_the_drawn_box() -> None:
    image = np.ones((2, 10, 20, 1), np.float32)
    drawn = {"cutout": np.array([[0.5, 0.25, 0.4, 0.2], [0.5, 0.5, 0, 0]], np.float32)}
    got = display(drawn, image, cutout=0.4, fill=0.125)
    want = image.copy()
    want[0, 3:7, 3:7] = 0.125
    assert (got == want).all()
    assert np.asarray(box_mask(np.array([[0.0]]), np.array([[1.0]]), (8,))).sum() == 4


def test_display_values_stay_in_their_range(key) -> None:
    image = np.random.default_rng(0).random((6, 16, 16, 1)).astype(np.float32)
    spec = AugmentSpec(offset=0.5, contrast=0.9, gamma=1, noise=0.5, quantum=0.3, bias=0.5)
    got = np.asarray(apply(image, draw(key, spec), spec))
    assert got.min() == 0
    assert got.max() == 1
