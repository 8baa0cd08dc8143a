"""Recognize the source of weights, and rename each to "layer/variable" in the layout of Keras.

medres              stage1_block1_conv1/kernel
keras.applications  conv2_block1_1_conv/kernel  its v1 ResNets, and RadImageNet's .h5
torch               layer1.0.conv1.weight       torchvision, timm, akamaster (linear), MedicalNet
                                                (module., conv_seg)
                    backbone.4.0.conv1.weight   RadImageNet's .pt: the children of a Sequential by
                                                number

The names of DenseNets are in `dense_names`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medres.backbones.weights import dense_names
from medres.backbones.weights.dense_names import HEAD
from medres.errors import WeightsError

TRUNK = re.compile(r"^(conv\d|bn1|layer\d|stem|stage\d|last)")

PREFIX = re.compile(r"^(?:(?:module|model|backbone|encoder|net|densenet\d+)\.)+")
SEQUENTIAL = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
TORCH = [
    (r"^conv1$", "stem_conv"),
    (r"^bn1$", "stem_norm"),
    (r"^conv1\.0$", "stem_conv1"),
    (r"^conv1\.1$", "stem_norm1"),
    (r"^conv1\.3$", "stem_conv2"),
    (r"^conv1\.4$", "stem_norm2"),
    (r"^conv1\.6$", "stem_conv"),
    (r"^(?:layer)(\d)\.(\d+)\.conv(\d)$", "stage{0}_block{1}_conv{2}"),
    (r"^(?:layer)(\d)\.(\d+)\.bn(\d)$", "stage{0}_block{1}_norm{2}"),
    (r"^(?:layer)(\d)\.(\d+)\.(?:downsample|shortcut)\.\d$", "stage{0}_block{1}_shortcut_{kind}"),
    (r"^(?:layer)(\d)\.(\d+)\.se\.fc1$", "stage{0}_block{1}_se_reduce"),
    (r"^(?:layer)(\d)\.(\d+)\.se\.fc2$", "stage{0}_block{1}_se_expand"),
    (r"^(?:fc|linear)$", HEAD),
]
TORCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
APPLICATIONS = re.compile(r"^conv(\d)_block(\d+)_(\d)_(conv|bn)$")


@dataclass(frozen=True)
class SourceWeights:
    """Weights by the names of this package. names: ours -> the name in the source. foreign: names
    in the source of weights that are not of a trunk, such as those of another head.
    """

    kind: str
    arrays: dict[str, np.ndarray]
    names: dict[str, str]
    foreign: tuple[str, ...]


def translate(raw: Mapping[str, np.ndarray]) -> SourceWeights:
    """Rename and transpose. Raises WeightsError if the names are not those of a ResNet or
    DenseNet, or of a trunk with parts that this package does not build.
    """
    kind = _kind(raw)
    sequential = kind == "torch" and _is_sequential(raw)
    dense = kind != "medres" and dense_names.is_dense(raw)
    arrays: dict[str, np.ndarray] = {}
    names: dict[str, str] = {}
    foreign = []
    for name, array in raw.items():
        if name.endswith("num_batches_tracked"):
            continue  # a counter of torch that is not a weight
        plain = _plain(name, sequential=sequential) if kind == "torch" else name
        if dense:
            rename = dense_names.torch_name if kind == "torch" else dense_names.keras_name
            ours = rename(plain)
        else:
            ours = _torch(plain, array) if kind == "torch" else _keras(name)
        if ours is None:
            foreign.append(name)
        elif ours in arrays:
            raise WeightsError(
                f"{names[ours]} and {name} both mean {ours}: the file holds more than one network",
                code="several_networks",
            )
        else:
            arrays[ours] = _keras_layout(array, ours) if kind == "torch" else np.asarray(array)
            names[ours] = name
    trunk = dense_names.TRUNK if dense else TRUNK
    unsupported = [name for name in foreign if trunk.match(_plain(name, sequential=sequential))]
    if unsupported:
        raise WeightsError(
            f"{len(unsupported)} weights belong to a trunk that this package does not build: "
            f"{', '.join(unsupported[:8])}",
            code="unsupported_trunk",
        )
    return SourceWeights(kind, arrays, names, tuple(foreign))


def _kind(raw: Mapping[str, np.ndarray]) -> str:
    if any("_preact_bn/" in name for name in raw):
        raise WeightsError(
            "these are the V2 weights of keras.applications, whose architecture (pooling "
            "shortcuts, biases) differs from version 2 of this package; use its ResNet50, "
            "ResNet101 or ResNet152",
            code="unsupported_trunk",
        )
    if any(name.startswith("stem_conv") for name in raw):
        return "medres"
    if any(name.startswith("conv2_block1_") for name in raw):
        return "keras.applications"
    if any(name.endswith(".running_mean") for name in raw):
        return "torch"
    first_names = ", ".join(sorted(raw)[:3]) or "nothing"
    raise WeightsError(
        f"the names are not those of a ResNet or DenseNet of medres, keras.applications or torch, "
        f"which begin with stem_conv/, conv1_conv/, conv1.weight or features.conv0.weight; the "
        f"first names are: {first_names}",
        code="unknown_names",
    )


def _keras(name: str) -> str | None:
    layer, _, variable = name.rpartition("/")
    match = APPLICATIONS.match(layer)
    if match:
        stage, block, part, kind = (
            int(match[1]) - 1,
            match[2],
            match[3],
            {"conv": "conv", "bn": "norm"}[match[4]],
        )
        return (
            f"stage{stage}_block{block}_"
            + (f"shortcut_{kind}" if part == "0" else f"{kind}{part}")
            + f"/{variable}"
        )
    layer = {"conv1_conv": "stem_conv", "conv1_bn": "stem_norm", "predictions": HEAD}.get(
        layer, layer
    )
    return f"{layer}/{variable}" if re.match(r"^(stem|stage\d|last|logits)", layer) else None


def _is_sequential(raw: Mapping[str, np.ndarray]) -> bool:
    return {"0.weight", "1.running_mean"} <= {PREFIX.sub("", name) for name in raw}


def _plain(name: str, *, sequential: bool) -> str:
    """A torch name without the names of wrappers, and with names for the numbered children of a
    Sequential.
    """
    name = PREFIX.sub("", name)
    number, _, rest = name.partition(".")
    return (
        f"{SEQUENTIAL[int(number)]}.{rest}"
        if sequential and number in map(str, range(len(SEQUENTIAL)))
        else name
    )


def _torch(name: str, array: np.ndarray) -> str | None:
    layer, _, variable = name.rpartition(".")
    is_norm = variable in ("running_mean", "running_var") or (
        np.ndim(array) == 1 and not layer.endswith(("fc", "linear", "fc1", "fc2"))
    )
    for pattern, template in TORCH:
        match = re.match(pattern, layer)
        if match:
            groups = list(match.groups())
            if len(groups) > 1:
                groups[1] = str(int(groups[1]) + 1)
            ours = template.format(*groups, kind="norm" if is_norm else "conv")
            table = TORCH_NORM if "norm" in ours else {"weight": "kernel", "bias": "bias"}
            return f"{ours}/{table[variable]}" if variable in table else None
    return None


def _keras_layout(array: np.ndarray, name: str) -> np.ndarray:
    """(out, in, ...) -> (..., in, out), for kernels."""
    array = np.asarray(array)
    return (
        np.moveaxis(array, (1, 0), (-2, -1))
        if name.endswith("/kernel") and array.ndim > 1
        else array
    )
