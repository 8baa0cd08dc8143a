from __future__ import annotations

import subprocess
import sys

import pytest

import medres.backbones


def test_every_public_name_is_there() -> None:
    for name in medres.backbones.__all__:
        assert getattr(medres.backbones, name) is not None
    with pytest.raises(AttributeError, match="vgg"):
        medres.backbones.vgg  # noqa: B018


def test_the_import_and_the_table_load_no_keras() -> None:
    code = (
        "import sys, medres.backbones as b; b.resnet_spec(50); sys.exit({'keras', "
        "'tensorflow'} & set(sys.modules) != set())"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
