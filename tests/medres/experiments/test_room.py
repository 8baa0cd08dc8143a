from __future__ import annotations

import pytest

import medres.experiments


def test_every_public_name_is_there() -> None:
    for name in medres.experiments.__all__:
        assert getattr(medres.experiments, name) is not None
    with pytest.raises(AttributeError, match="depth_of_field"):
        medres.experiments.depth_of_field  # noqa: B018
