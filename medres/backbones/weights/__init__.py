"""Pretrained weights: files of other frameworks, their names, and the check that both networks give
the same output. May import medres.backbones and errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.backbones.weights.load import ParityReport, load_pretrained

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.backbones.weights.load": "ParityReport load_pretrained",
    },
)
