from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from data_pipelines.augment import PRESETS, AugmentSpec, draw
from data_pipelines.augment.parameters import RULES
from data_pipelines.kinds import kind_in_units

MANY = np.stack([np.full(3000, 11, np.int32), np.arange(3000, dtype=np.int32)], axis=1)
GEOMETRY = {
    "rotation": 10,
    "zoom": 0.2,
    "shear": 0.1,
    "shift": 0.3,
    "elastic": 0.3,
    "flip_left_right": True,
}
GREY = {"offset": 0.1, "contrast": 0.2, "gamma": 0.3, "window_centre": 0.1, "window_width": 0.2}
RARE = {
    "blur": 1,
    "low_resolution": 3,
    "noise": 0.2,
    "quantum": 0.1,
    "bias": 0.4,
    "cutout": 0.5,
    "share": 0.25,
}
ALL = AugmentSpec.model_validate(GEOMETRY | GREY | RARE | {"crop": (4, 5)})


def arrays(key: np.ndarray, spec: AugmentSpec, dims: int = 2) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in draw(key, spec, dims).items()}


@pytest.fixture(scope="module")
def many() -> dict[str, np.ndarray]:
    return arrays(MANY, ALL)


@pytest.mark.parametrize(
    "name",
    [
        "rotation",
        "zoom",
        "shear",
        "shift",
        "elastic",
        "offset",
        "contrast",
        "gamma",
        "window_centre",
        "window_width",
    ],
)
def test_symmetric_ranges_are_uniform(many: dict[str, np.ndarray], name: str) -> None:
    limit = getattr(ALL, name)
    values = many[name].reshape(3000, -1)[:, 0]
    assert stats.kstest(values, stats.uniform(-limit, 2 * limit).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("name", "rest", "most"),
    [("blur", 0, 1), ("noise", 0, 0.2), ("quantum", 0, 0.1), ("low_resolution", 1, 3)],
)
def test_degradations_strike_a_share(
    many: dict[str, np.ndarray], name: str, rest: float, most: float
) -> None:
    values = many[name][:, 0]
    affected = values[values != rest]
    assert stats.binomtest(len(affected), 3000, 0.25).pvalue > 1e-3
    assert stats.kstest(affected, stats.uniform(rest, most - rest).cdf).pvalue > 1e-3


def test_flips_strike_half_and_only_the_named_axis(many: dict[str, np.ndarray]) -> None:
    assert (many["flip"][:, 0] == 1).all()
    assert stats.binomtest(int((many["flip"][:, 1] == -1).sum()), 3000, 0.5).pvalue > 1e-3


def test_bias_and_cutout_strike_a_share_and_hold_their_ranges(many: dict[str, np.ndarray]) -> None:
    affected = np.abs(many["bias"]).max(axis=(1, 2)) > 0
    assert stats.binomtest(int(affected.sum()), 3000, 0.25).pvalue > 1e-3
    assert np.abs(many["bias"]).max() <= 0.4
    sides = many["cutout"][:, 2:]
    assert ((sides == 0) == (sides == 0).all(axis=1, keepdims=True)).all()
    assert stats.binomtest(int((sides[:, 0] > 0).sum()), 3000, 0.25).pvalue > 1e-3
    assert sides[sides > 0].min() >= 0.25
    assert sides.max() <= 0.5


def test_parameters_are_a_function_of_the_key_alone() -> None:
    key = MANY[:7]
    first, again = arrays(key, ALL), arrays(key[::-1].copy(), ALL)
    for name, values in first.items():
        assert (values == again[name][::-1]).all(), name
    later = arrays(key + np.array([[1, 0]], np.int32), ALL)
    assert (first["rotation"] != later["rotation"]).all()


def test_a_parameter_keeps_its_numbers_when_others_are_switched_off() -> None:
    alone = arrays(MANY[:7], AugmentSpec(gamma=0.3))
    assert set(alone) == {"gamma", "key"}
    assert (alone["gamma"] == arrays(MANY[:7], ALL)["gamma"]).all()


def test_kept_parameters_come_back(tmp_path: Path) -> None:
    drawn = arrays(MANY[:7], ALL)
    np.savez(tmp_path / "drawn.npz", **drawn)
    with np.load(tmp_path / "drawn.npz") as saved:
        assert all((saved[name] == values).all() for name, values in drawn.items())


def test_no_preset_of_medical_images_flips() -> None:
    for kinds in PRESETS.values():
        for units, spec in kinds.items():
            if not kind_in_units(units).has_patients:
                continue
            assert not any((spec.flip_left_right, spec.flip_up_down, spec.flip_slices))
            assert "flip" not in draw(MANY[:2], spec, 3)


def test_streams_are_those_of_earlier_versions() -> None:
    """A key gives the same parameters in every version: numbers are appended, never reused."""
    assert {rule.stream: name for name, rule in RULES.items()} == {
        0: "rotation",
        1: "tilt",
        2: "zoom",
        3: "shear",
        4: "shift",
        5: "flip",
        6: "elastic",
        7: "crop",
        8: "offset",
        9: "scale",
        10: "contrast",
        11: "gamma",
        12: "window_centre",
        13: "window_width",
        14: "blur",
        15: "low_resolution",
        16: "noise",
        17: "quantum",
        18: "bias",
        19: "bias_field",
        20: "cutout",
        24: "saturation",
        25: "pad",
    }
