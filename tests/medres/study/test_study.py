from __future__ import annotations

import pytest

import medres.study


def test_every_public_name_is_there() -> None:
    for name in medres.study.__all__:
        assert getattr(medres.study, name) is not None
    with pytest.raises(AttributeError, match="depth_of_field"):
        medres.study.depth_of_field  # noqa: B018
