"""The ResNet family: one builder, its weights, its accounts. Nothing here loads TensorFlow until a name is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medres.backbones.accounting import Summary, summary
    from medres.backbones.build import backbone, features, pyramid, resnet
    from medres.backbones.fast import folded, training_twin
    from medres.backbones.spec import ResNetSpec
    from medres.backbones.variants import VARIANTS, resnet_spec
    from medres.backbones.weights import ParityReport, load_pretrained

__all__ = [
    "VARIANTS",
    "ParityReport",
    "ResNetSpec",
    "Summary",
    "backbone",
    "features",
    "folded",
    "load_pretrained",
    "pyramid",
    "resnet",
    "resnet_spec",
    "summary",
    "training_twin",
]

_PLAIN = ("VARIANTS", "ResNetSpec", "resnet_spec")
_HOME = {
    "ResNetSpec": "medres.backbones.spec",
    **dict.fromkeys(("VARIANTS", "resnet_spec"), "medres.backbones.variants"),
    **dict.fromkeys(("Summary", "summary"), "medres.backbones.accounting"),
    **dict.fromkeys(("backbone", "features", "pyramid", "resnet"), "medres.backbones.build"),
    **dict.fromkeys(("folded", "training_twin"), "medres.backbones.fast"),
    **dict.fromkeys(("ParityReport", "load_pretrained"), "medres.backbones.weights"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'medres.backbones' has no attribute {name!r}")
    if name not in _PLAIN:
        from data_pipelines.backend import require_tensorflow

        require_tensorflow()
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
