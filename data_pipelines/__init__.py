"""From DICOM files to tensors: reading, ingest, cache, tf.data and augmentation. Never imports medres.

`import data_pipelines` loads no TensorFlow: each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_pipelines.dataset import datasets
    from data_pipelines.images import Image, read_image
    from data_pipelines.ingestion import ingest
    from data_pipelines.limits import limited
    from data_pipelines.manifest import Manifest
    from data_pipelines.pixels import read_stored
    from data_pipelines.volumes import Volume, read_volume, read_volumes
    from data_pipelines.wrapping import wrap

__all__ = [
    "Image",
    "Manifest",
    "Volume",
    "datasets",
    "ingest",
    "limited",
    "read_image",
    "read_stored",
    "read_volume",
    "read_volumes",
    "wrap",
]

_HOME = {
    "Image": "images",
    "Manifest": "manifest",
    "Volume": "volumes",
    "datasets": "dataset",
    "ingest": "ingestion",
    "limited": "limits",
    "read_image": "images",
    "read_stored": "pixels",
    "read_volume": "volumes",
    "read_volumes": "volumes",
    "wrap": "wrapping",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'data_pipelines' has no attribute {name!r}")
    return getattr(importlib.import_module(f"data_pipelines.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
