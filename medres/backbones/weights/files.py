"""Read a file of weights of any supported framework into name -> array. No model is built, and no
code in the file is run.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from medres.backbones.weights.torch_state_dict import read_safetensors, read_torch
from medres.errors import WeightsError

SUFFIXES = (".keras", ".h5", ".hdf5", ".safetensors", ".pth", ".pt", ".th")
# The order in which Keras stores the variables of a layer, by their number.
ORDER = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Name -> array; names are "layer/variable" in Keras files and dotted in torch files. Raises
    WeightsError if the file is missing, damaged or of another format.
    """
    if not path.is_file():
        raise WeightsError(
            f"weights file {path} does not exist or is not a file", code="no_such_file"
        )
    if path.suffix in (".pth", ".pt", ".th") or path.name.endswith(".pth.tar"):
        return read_torch(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix not in SUFFIXES:
        raise WeightsError(
            f"weights file {path.name}: its suffix must be one of {', '.join(SUFFIXES)}",
            code="file_format",
        )
    try:
        if path.suffix == ".keras":
            with (
                zipfile.ZipFile(path) as archive,
                h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file,
            ):
                return _keras3(file)
        with h5py.File(path, "r") as file:
            return _legacy(file.get("model_weights", file)) or _keras3(file)
    except (
        OSError,
        LookupError,
        RuntimeError,
        ValueError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"weights file {path.name} is not a complete {path.suffix} file: {error}",
            code="damaged_file",
        ) from error


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _legacy(group: Any) -> dict[str, np.ndarray]:
    """The layout of Keras 2, still written by Model.save("x.h5"): one group per layer, with the
    names of its weights in an attribute.
    """
    arrays = {}
    for layer in map(_text, group.attrs.get("layer_names", ())):
        for name in map(_text, group[layer].attrs["weight_names"]):
            *path, variable = name.split(":")[0].split("/")
            is_whole = not path or "/".join(path) == layer  # older names have a slash: conv1/bn
            arrays[f"{layer if is_whole else path[-1]}/{variable}"] = group[layer][name][()]
    return arrays


def _keras3(file: Any) -> dict[str, np.ndarray]:
    """The layout of Keras 3: groups `vars` of numbered variables, with the name of the layer in an
    attribute.
    """
    arrays: dict[str, np.ndarray] = {}

    def visit(path: str, item: Any) -> None:
        if path.split("/")[-1] != "vars" or not isinstance(item, h5py.Group) or not len(item):
            return
        if "name" not in item.attrs:
            raise WeightsError(
                "the file does not hold the names of its layers; save the model again with Keras "
                "3.15 or later, or as .h5",
                code="no_layer_names",
            )
        layer = _text(item.attrs["name"])
        names = ORDER.get(len(item), tuple(map(str, range(len(item)))))
        if len(item) == 2 and item["0"].ndim == 1:
            names = ("gamma", "beta")
        arrays.update({f"{layer}/{name}": item[str(i)][()] for i, name in enumerate(names)})

    file.visititems(visit)
    return arrays
