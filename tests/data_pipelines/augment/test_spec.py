from __future__ import annotations

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from data_pipelines.augment import PRESETS, Augment, AugmentSpec, apply, augmentation, draw
from data_pipelines.augment.spec import check_fits
from data_pipelines.errors import SpecError

DISPLAY, HU = AugmentSpec(), AugmentSpec(units="HU")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rotation": -1}, "rotation"),
        ({"rotation": 181}, "rotation"),
        ({"zoom": 1}, "zoom"),
        ({"elastic": 0.5}, "elastic"),
        ({"shift": float("nan")}, "shift"),
        ({"fill": float("inf")}, "fill"),
        ({"low_resolution": 0.5}, "low_resolution"),
        ({"share": 0}, "share"),
        ({"units": "stored"}, "units"),
        ({"spin": 3}, "spin"),
        ({"crop": (5,)}, "crop"),
        ({"crop": (0, 5)}, "crop"),
        ({"units": "HU", "gamma": 0.1}, "gamma of HU needs window"),
        ({"units": "HU", "window": (100, 100), "gamma": 0.1}, "low below high"),
        ({"units": "HU", "quantum": 0.1}, "quantum is for display"),
        ({"scale": 0.1}, "scale is for HU"),
        ({"window": (0, 2), "gamma": 0.1}, "window \\(0, 1\\)"),
        ({"mixup": 1, "cutmix": 1}, "not both"),
    ],
)
def test_ranges_that_cannot_be(fields: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        augmentation(fields)
    with pytest.raises(ValidationError):
        AugmentSpec(**fields)


def test_presets_by_name_and_units() -> None:
    assert augmentation("chest_xray") == augmentation("chest_xray", "display")
    assert augmentation("strong", "HU").units == "HU"
    assert augmentation({"rotation": 5}, "HU") == AugmentSpec(units="HU", rotation=5)
    assert augmentation(HU) is HU
    assert set(PRESETS) == {"none", "chest_xray", "ct_slice", "ct_volume", "strong"}
    for kinds in PRESETS.values():
        for units, spec in kinds.items():
            assert (
                AugmentSpec.model_validate(spec.model_dump()) == spec
            )  # model_copy checks nothing
            assert spec.units == units
            assert spec.fill == (-1024 if units == "HU" else 0)
            assert not spec.mixes


@pytest.mark.parametrize(
    ("value", "units", "message"),
    [
        ("wild", None, "none, chest_xray, ct_slice, ct_volume, strong"),
        ("strong", None, "give units"),
        ("chest_xray", "HU", "choose one of none, ct_slice, ct_volume, strong"),
        (DISPLAY, "HU", "the data holds HU"),
    ],
)
def test_presets_that_do_not_exist_or_fit(value, units, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        augmentation(value, units)


@pytest.mark.parametrize(
    ("spec", "shape", "dtype", "message"),
    [
        (augmentation("ct_volume"), (None, 16, 16, 1), "float32", "tilt is for volumes"),
        (AugmentSpec(flip_slices=True), (None, 16, 16, 1), "float32", "flip_slices is for volumes"),
        (AugmentSpec(crop=(4, 4, 4)), (None, 16, 16, 1), "float32", "does not fit"),
        (AugmentSpec(crop=(17, 4)), (None, 16, 16, 1), "float32", "does not fit"),
        (DISPLAY, (None, None, 16, 1), "float32", "fixed sizes"),
        (DISPLAY, (None, 16, 16), "float32", "takes"),
        (HU, (None, 16, 16, 1), "int32", "does not hold all"),
        (HU, (None, 16, 16, 1), "uint16", "HU below 0"),
        (DISPLAY, (None, 16, 16, 1), "uint16", "no display values"),
        (DISPLAY, (None, 16, 16, 1), "float64", "float32"),
    ],
)
def test_data_that_a_spec_does_not_fit(
    spec: AugmentSpec, shape: tuple, dtype: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        check_fits(spec, shape, dtype)


def test_the_error_comes_when_the_model_is_built() -> None:
    key = keras.Input((2,), dtype="int32")
    with pytest.raises(SpecError, match="tilt is for volumes"):
        Augment(augmentation("ct_volume"))(keras.Input((16, 16, 1)), key)
    with pytest.raises(SpecError, match="augment_in_pipeline"):
        Augment(AugmentSpec(mixup=0.2))
    with pytest.raises(SpecError, match="HU below 0"):
        Augment(HU)(keras.Input((16, 16, 1), dtype="uint16"), key)


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 1.0, 2.0), (0.0, 1.0), (1.0, float("nan"))])
def test_spacing_is_one_length_an_axis(spacing: tuple[float, ...]) -> None:
    spec, key = AugmentSpec(rotation=3), np.zeros((1, 2), np.int32)
    with pytest.raises(SpecError, match="2 lengths in mm"):
        apply(np.zeros((1, 4, 4, 1), np.float32), draw(key, spec), spec, spacing)
    with pytest.raises(SpecError, match="2 lengths in mm"):
        Augment(spec, spacing=spacing)(keras.Input((4, 4, 1)), keras.Input((2,), dtype="int32"))


def test_apply_checks_the_dtype_too() -> None:
    key = np.zeros((1, 2), np.int32)
    with pytest.raises(SpecError, match="no display values"):
        apply(np.zeros((1, 4, 4, 1), np.uint16), draw(key, DISPLAY), DISPLAY)
