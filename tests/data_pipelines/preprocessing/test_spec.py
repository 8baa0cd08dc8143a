from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import raises_code
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import SpecError
from data_pipelines.preprocessing.preparation import prepare, to_model_units
from data_pipelines.preprocessing.spec import PreprocessSpec, spec_from
from data_pipelines.volumes.slice_grid import Resampling


def image_of(pixels: np.ndarray, units: str = "display", aspect: float = 1.0) -> SimpleNamespace:
    return SimpleNamespace(pixels=pixels.astype(np.float32), units=units, aspect=aspect)


def slow_resize(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The triangle filter by its definition, one output pixel at a time."""

    def line(values: np.ndarray, size: int) -> np.ndarray:
        step = len(values) / size
        support = max(step, 1.0)
        out = []
        for i in range(size):
            center = (i + 0.5) * step
            weights = [max(0.0, 1 - abs(j + 0.5 - center) / support) for j in range(len(values))]
            out.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
        return np.array(out)

    tall = np.stack([line(column, rows) for column in pixels.T.astype(float)], axis=1)
    return np.stack([line(row, columns) for row in tall])


@given(
    st.integers(16, 40),
    st.integers(16, 40),
    st.integers(3, 70),
    st.integers(3, 70),
    st.integers(0, 2**31),
)
def test_stretch_equals_the_slow_filter(
    rows: int, columns: int, rows_in: int, cols_in: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).random((rows_in, cols_in)).astype(np.float32)
    spec = PreprocessSpec(kind="radiograph", rows=rows, cols=columns, fit="stretch")
    got = prepare(image_of(pixels), spec)
    assert got.dtype == np.uint16
    assert np.abs(got - slow_resize(pixels, rows, columns) / float(spec.scale)).max() <= 0.5 + 1e-6


def test_equal_size_keeps_every_hu() -> None:
    hu = np.random.default_rng(1).integers(-1024, 3000, (32, 32))
    assert (prepare(image_of(hu, "HU"), spec_from("ct-32")) == hu).all()


def test_pad_keeps_the_aspect_ratio_and_fills_with_air() -> None:
    got = prepare(image_of(np.full((20, 40), 55.0), "HU"), spec_from("ct-40"))
    assert (got[10:30] == 55).all()
    assert (got[:10] == -1024).all()
    assert (got[30:] == -1024).all()


def test_radiograph_padding_is_dark() -> None:
    got = prepare(image_of(np.ones((40, 20))), spec_from("xray-40"))
    assert (got[:, 10:30] == 65535).all()
    assert got[:, :10].max() == got[:, 30:].max() == 0


def test_values_beyond_the_integers_are_clipped() -> None:
    got = prepare(
        image_of(np.array([[-1e6, 1e6]] * 16), "HU"),
        PreprocessSpec(kind="ct", rows=16, cols=16, fit="stretch"),
    )
    assert got.min() == -32768
    assert got.max() == 32767


def test_model_units() -> None:
    spec = spec_from("xray-16")
    got = to_model_units(np.array([[0, 65535]], np.uint16), spec)
    assert got.shape == (1, 2, 1)
    assert got.dtype == np.float32
    assert got.ravel().tolist() == pytest.approx([0.0, 1.0], abs=1e-7)
    assert to_model_units(np.array([[-1000]], np.int16), spec_from("ct-16")).item() == -1000.0


def test_specs() -> None:
    assert spec_from("xray-224") == PreprocessSpec(kind="radiograph", rows=224, cols=224)
    assert spec_from(spec_from("ct-64").model_dump()) == spec_from("ct-64")
    assert spec_from("ct-64").sha256 != spec_from("ct-65").sha256
    assert spec_from("ct-64").name == "ct-64"


@pytest.mark.parametrize(
    "value",
    [
        "xray",
        "mri-64",
        "xray-8",
        "xray-4096",
        {"kind": "ct", "rows": 64},
        {"kind": "ct", "rows": 64, "cols": 64, "x": 1},
    ],
)
def test_bad_specs_are_refused(value: object) -> None:
    with pytest.raises(SpecError):
        spec_from(value)  # type: ignore[arg-type]


def test_wrong_units_and_values_that_are_not_finite_are_refused() -> None:
    with raises_code(SpecError, "wrong_units", "HU", "display"):
        prepare(image_of(np.zeros((16, 16))), spec_from("ct-16"))
    with raises_code(SpecError, "not_finite"):
        prepare(image_of(np.full((16, 16), np.nan)), spec_from("xray-16"))


@pytest.mark.parametrize(
    ("aspect", "rows", "columns"), [(4.0, 40, 20), (2.0, 40, 40), (1.0, 20, 40), (0.5, 10, 40)]
)
def test_pad_keeps_the_proportions_of_pixels_that_are_not_square(
    aspect: float, rows: int, columns: int
) -> None:
    """20 x 40 pixels, each `aspect` times as tall as it is wide, in a square of 40."""
    got = prepare(image_of(np.full((20, 40), 55.0), "HU", aspect), spec_from("ct-40"))
    filled = got != -1024
    assert filled.any(axis=1).sum() == rows
    assert filled.any(axis=0).sum() == columns


def test_names_say_what_differs() -> None:
    volume = {"kind": "ct", "form": "volume", "slices": 8, "rows": 16, "cols": 16}
    names = {
        "xray-16": "xray-16",
        "ct25d-16": {"kind": "ct", "form": "stack", "slices": 3, "rows": 16, "cols": 16},
        "ct25d-16-5slices": {"kind": "ct", "form": "stack", "slices": 5, "rows": 16, "cols": 16},
        "ctvol-16": {**volume, "slices": 16},
        "ctvol-8x16x16-at2.5x1x1mm-shear": {**volume, "spacing_mm": (2.5, 1, 1), "policy": "shear"},
        "ct-16x32-stretch": {"kind": "ct", "rows": 16, "cols": 32, "fit": "stretch"},
    }
    specs = [spec_from(value) for value in names.values()]
    assert [spec.name for spec in specs] == list(names)
    assert len({spec.sha256 for spec in specs}) == len(specs)
    assert [spec.shape for spec in specs[1:4]] == [(16, 16, 3), (16, 16, 5), (16, 16, 16, 1)]


@pytest.mark.parametrize(
    "changes",
    [
        {"slices": 3},
        {"form": "stack", "slices": 4},
        {"form": "stack", "slices": 1},
        {"form": "volume", "slices": 1},
        {"form": "stack", "slices": 3, "spacing_mm": (1, 1, 1)},
        {"form": "volume", "slices": 16, "spacing_mm": (1, 1, 0)},
        {"form": "volume", "slices": 16, "spacing_mm": (1, 1, 1), "fit": "stretch"},
        {"form": "stack", "slices": 3, "kind": "radiograph"},
        {"policy": "shear"},
    ],
)
def test_fields_that_contradict_one_another_are_refused(changes: dict) -> None:
    with pytest.raises(SpecError):
        spec_from({"kind": "ct", "rows": 16, "cols": 16, **changes})


def test_limits_of_resampled_volumes():
    volume = {"kind": "ct", "form": "volume", "rows": 32, "cols": 32, "slices": 16}
    assert spec_from(volume).resampling == Resampling()
    changed = spec_from({**volume, "step": "finest", "max_gap_mm": 12.5, "max_gap_slices": 1})
    assert changed.resampling == Resampling("finest", 12.5, 1)
    assert changed.name.endswith("-finest-gapmm12.5-gapslices1")
    assert changed.sha256 != spec_from(volume).sha256
    for wrong in (
        {**volume, "max_gap_slices": -1},
        {**volume, "max_interpolated": 1.5},
        {**volume, "step": "median"},
        {**volume, "policy": "reject", "max_gap_mm": 5},
        {"kind": "ct", "rows": 32, "cols": 32, "max_gap_mm": 5},
    ):
        with raises_code(SpecError, "spec"):
            spec_from(wrong)


def test_the_hash_of_an_image_spec_does_not_depend_on_settings_of_volumes():
    image = PreprocessSpec(kind="radiograph", rows=32, cols=32)
    fields = image.model_dump(exclude={"step", "max_gap_mm", "max_gap_slices", "max_interpolated"})
    text = json.dumps(fields, separators=(",", ":"))
    assert image.sha256 == hashlib.sha256(text.encode()).hexdigest()
