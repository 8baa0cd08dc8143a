"""The table of pretrained weights that have a name: what they are, from whom, under which terms,
and in which file. Adding weights is one row here.

The files of torchvision and the first eight hex digits of their SHA-256, which it publishes as part
of their names: torchvision/models/resnet.py and densenet.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from medres.errors import WeightsError


@dataclass(frozen=True)
class NamedWeights:
    """One row of the table.

    name: the value of `weights`, such as "imagenet". variant: the network that they fit. file: its
    name in the cache. source: who published it. terms: license and conditions of use. megabytes:
    of the file, or None if unknown. url: None for a file that people must fetch themselves.
    sha256: in hex, whole or the first digits; None if nothing is published. input_scaling: what is
    put into the graph before the stem (see ResNetSpec); None: the network receives -1..1. note:
    what else a network needs for them.
    """

    name: str
    variant: str
    file: str
    source: str
    terms: str
    megabytes: float | None
    url: str | None = None
    sha256: str | None = None
    input_scaling: str | None = None
    note: str = ""


def _torchvision(name: str, version: str, file: str, megabytes: float) -> NamedWeights:
    match = re.fullmatch(r"(\w+)-([0-9a-f]{8})\.pth", file)
    if match is None:
        raise ValueError(file)
    return NamedWeights(
        name=name,
        variant=match[1],
        file=file,
        source=f"torchvision, {version}",
        terms="torchvision: BSD-3-Clause; trained on ImageNet, whose terms of access allow "
        "non-commercial research and education only",
        megabytes=megabytes,
        url=f"https://download.pytorch.org/models/{file}",
        sha256=match[2],
        input_scaling="imagenet",
    )


def _imagenet(file: str, megabytes: float) -> NamedWeights:
    return _torchvision("imagenet", "IMAGENET1K_V1", file, megabytes)


def _imagenet_v2(file: str, megabytes: float) -> NamedWeights:
    return _torchvision("imagenet-v2", "IMAGENET1K_V2", file, megabytes)


def _radimagenet(variant: str, file: str) -> NamedWeights:
    return NamedWeights(
        name="radimagenet",
        variant=variant,
        file=f"radimagenet-{file}",
        source=f"the PyTorch models of RadImageNet (Mei et al. 2022), file {file}",
        terms="on request, under the terms of https://www.radimagenet.com; the code of "
        "BMEII-AI/RadImageNet: MIT",
        megabytes=None,
        note="its authors' scripts do not agree on the scaling of the input; it receives -1..1",
    )


def _medicalnet(variant: str, file: str, note: str = "") -> NamedWeights:
    scaling = "trained on volumes of mean 0 and standard deviation 1; it receives -1..1"
    return NamedWeights(
        name="medicalnet",
        variant=variant,
        file=file,
        source="MedicalNet (Chen et al. 2019), 23 data sets",
        terms="MIT (Tencent/MedicalNet)",
        megabytes=None,
        note=f"volumes; {note}{scaling}",
    )


_SHORTCUT_A = 'needs shortcut="A" (--shortcut A), channel_padding="end"; '

WEIGHTS: tuple[NamedWeights, ...] = (
    _imagenet("resnet18-f37072fd.pth", 44.661),
    _imagenet("resnet34-b627a593.pth", 83.275),
    _imagenet("resnet50-0676ba61.pth", 97.781),
    _imagenet("resnet101-63fe2227.pth", 170.511),
    _imagenet("resnet152-394f9c45.pth", 230.434),
    _imagenet("densenet121-a639ec97.pth", 30.845),
    _imagenet("densenet161-8d451a50.pth", 110.369),
    _imagenet("densenet169-b2777c0a.pth", 54.708),
    _imagenet("densenet201-c1103571.pth", 77.373),
    _imagenet_v2("resnet50-11ad3fa6.pth", 97.79),
    _imagenet_v2("resnet101-cd907fc2.pth", 170.53),
    _imagenet_v2("resnet152-f82ba261.pth", 230.474),
    _radimagenet("resnet50", "ResNet50.pt"),
    _radimagenet("densenet121", "DenseNet121.pt"),
    _medicalnet("resnet10", "resnet_10_23dataset.pth"),
    _medicalnet("resnet18", "resnet_18_23dataset.pth", _SHORTCUT_A),
    _medicalnet("resnet34", "resnet_34_23dataset.pth", _SHORTCUT_A),
    _medicalnet("resnet50", "resnet_50_23dataset.pth"),
)


def is_named(weights: object) -> bool:
    """Whether a value of `weights` is a name of the table; a Path, or a text that is no name, is a
    file.
    """
    return isinstance(weights, str) and any(row.name == weights for row in WEIGHTS)


def named_weights(name: str, variant: str) -> NamedWeights:
    """The row of a name and a variant. Raises WeightsError (code no_such_weights).

    >>> named_weights("imagenet", "resnet18").file
    'resnet18-f37072fd.pth'
    """
    for row in WEIGHTS:
        if (row.name, row.variant) == (name, variant):
            return row
    variants = ", ".join(row.variant for row in WEIGHTS if row.name == name)
    raise WeightsError(
        f'weights="{name}" do not exist for {variant}: choose {variants}, or give a file',
        code="no_such_weights",
    )
