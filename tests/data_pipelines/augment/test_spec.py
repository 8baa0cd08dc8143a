from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers import raises_code
from pydantic import ValidationError

from data_pipelines.augment import PRESETS, Augment, AugmentSpec, apply, augmentation, draw
from data_pipelines.augment.spec import check_fits
from data_pipelines.errors import SpecError

DISPLAY, HU = AugmentSpec(), AugmentSpec(units="HU")


@pytest.mark.parametrize(
    ("fields", "field"),
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
        ({"units": "HU", "gamma": 0.1}, "gamma of HU"),
        ({"units": "HU", "window": (100, 100), "gamma": 0.1}, "window"),
        ({"units": "HU", "quantum": 0.1}, "quantum"),
        ({"scale": 0.1}, "scale"),
        ({"window": (0, 2), "gamma": 0.1}, "(0.0, 1.0)"),
        ({"mixup": 1, "cutmix": 1}, "cutmix"),
    ],
)
def test_ranges_that_cannot_be(fields: dict, field: str) -> None:
    with raises_code(SpecError, "spec", field):
        augmentation(fields)
    with pytest.raises(ValidationError):
        AugmentSpec(**fields)


def test_presets_by_name_and_units() -> None:
    assert augmentation("chest_xray") == augmentation("chest_xray", "display")
    assert augmentation("strong", "HU").units == "HU"
    assert augmentation({"rotation": 5}, "HU") == AugmentSpec(units="HU", rotation=5)
    assert augmentation(HU) is HU
    medical = {"chest_xray", "ct_slice", "ct_volume", "mr_slice", "mr_volume"}
    assert set(PRESETS) == {"none", "natural", "cifar", "detection", "strong"} | medical
    for kinds in PRESETS.values():
        for units, spec in kinds.items():
            assert (
                AugmentSpec.model_validate(spec.model_dump()) == spec
            )  # model_copy checks nothing
            assert spec.units == units
            assert spec.fill == (-1024 if units == "HU" else 0)
            assert not spec.mixes_pairs


@pytest.mark.parametrize(
    ("value", "units", "code", "names"),
    [
        ("wild", None, "unknown_augmentation", "none, chest_xray, ct_slice, ct_volume, natural"),
        ("strong", None, "units_required", "display and HU and rgb and zscore"),
        ("chest_xray", "HU", "wrong_units", "none, ct_slice, ct_volume, detection, strong"),
        (DISPLAY, "HU", "wrong_units", "HU"),
    ],
)
def test_presets_that_do_not_exist_or_fit(value, units, code: str, names: str) -> None:
    with raises_code(SpecError, code, names):
        augmentation(value, units)


@pytest.mark.parametrize(
    ("spec", "shape", "dtype", "code", "value"),
    [
        (augmentation("ct_volume"), (None, 16, 16, 1), "float32", "volumes_only", "tilt"),
        (
            AugmentSpec(flip_slices=True),
            (None, 16, 16, 1),
            "float32",
            "volumes_only",
            "flip_slices",
        ),
        (AugmentSpec(crop=(4, 4, 4)), (None, 16, 16, 1), "float32", "crop_size", "(4, 4, 4)"),
        (AugmentSpec(crop=(17, 4)), (None, 16, 16, 1), "float32", "crop_size", "(17, 4)"),
        (DISPLAY, (None, None, 16, 1), "float32", "unknown_size", "(None, None, 16, 1)"),
        (DISPLAY, (None, 16, 16), "float32", "wrong_rank", "(None, 16, 16)"),
        (HU, (None, 16, 16, 1), "int32", "inexact_dtype", "int32"),
        (HU, (None, 16, 16, 1), "uint16", "unsigned_dtype", "uint16"),
        (DISPLAY, (None, 16, 16, 1), "uint16", "wrong_units", "display"),
        (DISPLAY, (None, 16, 16, 1), "float64", "inexact_dtype", "float64"),
    ],
)
def test_data_that_a_spec_does_not_fit(
    spec: AugmentSpec, shape: tuple, dtype: str, code: str, value: str
) -> None:
    with raises_code(SpecError, code, value):
        check_fits(spec, shape, dtype)


def test_the_error_comes_when_the_model_is_built() -> None:
    """Keras raises a new exception of the same class, without the narrower code."""
    key = keras.Input((2,), dtype="int32")
    with raises_code(SpecError, SpecError.code, "tilt"):
        Augment(augmentation("ct_volume"))(keras.Input((16, 16, 1)), key)
    with raises_code(SpecError, "pairs_in_layer", "augment_in_pipeline"):
        Augment(AugmentSpec(mixup=0.2))
    with raises_code(SpecError, SpecError.code, "uint16"):
        Augment(HU)(keras.Input((16, 16, 1), dtype="uint16"), key)


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 1.0, 2.0), (0.0, 1.0), (1.0, float("nan"))])
def test_spacing_is_one_length_an_axis(spacing: tuple[float, ...]) -> None:
    spec, key = AugmentSpec(rotation=3), np.zeros((1, 2), np.int32)
    with raises_code(SpecError, "spacing", "2 lengths"):
        apply(np.zeros((1, 4, 4, 1), np.float32), draw(key, spec), spec, spacing)
    with raises_code(SpecError, SpecError.code, "2 lengths"):
        Augment(spec, spacing=spacing)(keras.Input((4, 4, 1)), keras.Input((2,), dtype="int32"))


def test_apply_checks_the_dtype_too() -> None:
    key = np.zeros((1, 2), np.int32)
    with raises_code(SpecError, "wrong_units", "uint16"):
        apply(np.zeros((1, 4, 4, 1), np.uint16), draw(key, DISPLAY), DISPLAY)
