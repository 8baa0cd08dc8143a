"""The names of the weights of DenseNets, each renamed to "layer/variable" of this package.

keras.applications  conv2_block1_1_conv/kernel, pool2_conv/kernel, bn/gamma; in older files
                    conv1/conv/kernel
torch               features.denseblock1.denselayer1.norm1.weight   torchvision, TorchXRayVision
                    ...denselayer1.norm.1.weight                    older files, such as CheXNet's
                    ...denselayer1.layers.norm1.weight              MONAI
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HEAD = "logits"
DENSE = re.compile(r"(^|\.)denseblock\d+\.|^pool\d_(bn|conv)/")
TRUNK = re.compile(r"^(features\.|(conv|pool)\d|bn/|stem|stage\d|last)")
TORCH = [
    (r"conv0", "stem_conv"),
    (r"norm0", "stem_norm"),
    (
        r"denseblock(?P<stage>\d)\.denselayer(?P<layer>\d+)\.(?:layers\.)?"
        r"(?P<kind>norm|conv)\.?(?P<number>[12])",
        "stage{stage}_layer{layer}_{kind}{number}",
    ),
    (r"transition(?P<before>\d)\.(?P<kind>norm|conv)", "stage{stage}_transition_{kind}"),
    (r"norm5|norm_final", "last_norm"),
    (r"classifier(?:\.\d)?|class_layers\.out", HEAD),
]
KERAS = [
    (r"conv1[/_]conv", "stem_conv"),
    (r"conv1[/_]bn", "stem_norm"),
    (
        r"conv(?P<before>\d)_block(?P<layer>\d+)_(?P<part>0_bn|1_conv|1_bn|2_conv)",
        "stage{stage}_layer{layer}_{part}",
    ),
    (r"pool(?P<stage>\d)_(?P<part>bn|conv)", "stage{stage}_transition_{part}"),
    (r"bn", "last_norm"),
    (r"predictions", HEAD),
]
KERAS_PARTS = {
    "0_bn": "norm1",
    "1_conv": "conv1",
    "1_bn": "norm2",
    "2_conv": "conv2",
    "bn": "norm",
    "conv": "conv",
}
VARIABLES = {
    "norm": {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    },
    "conv": {"weight": "kernel", "bias": "bias"},
    HEAD: {"weight": "kernel", "bias": "bias"},
}


def is_dense(names: Iterable[str]) -> bool:
    """Whether weights of torch or keras.applications are those of a DenseNet."""
    return any(DENSE.search(name) for name in names)


def torch_name(name: str) -> str | None:
    """The name in this package; None for a weight that is not of a DenseNet."""
    layer, _, variable = re.sub(r"^(features|0)\.", "", name).rpartition(".")
    for pattern, template in TORCH:
        match = re.fullmatch(pattern, layer)
        if match:
            parts = match.groupdict()
            if "before" in parts:  # the transition after a block begins the next stage
                parts["stage"] = str(int(parts["before"]) + 1)
            ours = template.format(**parts)
            kind = next(kind for kind in VARIABLES if kind in ours)
            new = VARIABLES[kind].get(variable)
            return f"{ours}/{new}" if new else None
    return None


def keras_name(name: str) -> str | None:
    """As torch_name, for keras.applications."""
    layer, _, variable = name.rpartition("/")
    for pattern, template in KERAS:
        match = re.fullmatch(pattern, layer)
        if match:
            parts = match.groupdict()
            if "before" in parts:  # its conv2 is the first stage
                parts["stage"] = str(int(parts["before"]) - 1)
            if "part" in parts:
                parts["part"] = KERAS_PARTS[parts["part"]]
            return f"{template.format(**parts)}/{variable}"
    return None
