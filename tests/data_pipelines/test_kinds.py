from __future__ import annotations

import numpy as np
import pytest
from helpers import raises_code

from data_pipelines.augment import augmentation
from data_pipelines.errors import SpecError
from data_pipelines.kinds import KINDS, ImageKind, image_kind, kind_in_units
from data_pipelines.preprocessing import spec_from


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_fields_of_a_kind_agree(kind: ImageKind) -> None:
    low, high = kind.display_range
    integers = np.iinfo(kind.dtype)
    assert kind_in_units(kind.units.name) is image_kind(kind.name) is kind
    for value in (kind.fill, low, high):
        assert integers.min <= round(value / kind.scale) <= integers.max
    assert low < high
    assert (integers.min < 0) == kind.units.signed
    assert spec_from(kind.default_preset).image_kind is kind


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_defaults_of_each_layout_exist(kind: ImageKind) -> None:
    for layout, defaults in kind.layouts.items():
        spec = spec_from(f"{defaults.preset}-64")
        assert (spec.image_kind, spec.layout) == (kind, layout)
        assert spec.name == f"{defaults.preset}-64"
        augment = augmentation(spec.default_augmentation, kind.units.name)
        assert augment.units == kind.units.name
        assert augment.fill == kind.fill


def test_unknown_names_are_refused() -> None:
    with raises_code(SpecError, "unknown_kind", "us"):
        image_kind("us")
    with raises_code(SpecError, "unknown_units", "raw"):
        kind_in_units("raw")
