"""The ResNet family: one builder, its weights, its accounts. Nothing here loads TensorFlow until a name is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACES = {
    "VARIANTS": "medres.backbones.spec",
    "ResNetSpec": "medres.backbones.spec",
    "resnet_spec": "medres.backbones.spec",
    "resnet": "medres.backbones.build",
    "backbone": "medres.backbones.build",
    "features": "medres.backbones.build",
    "pyramid": "medres.backbones.build",
    "load_pretrained": "medres.backbones.weights",
    "ParityReport": "medres.backbones.weights",
}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
