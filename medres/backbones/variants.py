"""The table of variants: a name -> the spec of a ResNet. Adding a variant is one row."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from medres.backbones.spec import BLOCKS, STEMS, ResNetSpec, one_of
from medres.errors import ModelError

# One row a variant: block, blocks in each stage, further fields of the spec.
VARIANTS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "resnet10": ("basic", (1, 1, 1, 1), {}),
    "resnet18": ("basic", (2, 2, 2, 2), {}),
    "resnet34": ("basic", (3, 4, 6, 3), {}),
    "resnet50": ("bottleneck", (3, 4, 6, 3), {}),
    "resnet101": ("bottleneck", (3, 4, 23, 3), {}),
    "resnet152": ("bottleneck", (3, 8, 36, 3), {}),
    "resnet200": ("bottleneck", (3, 24, 36, 3), {}),
    "resnext50_32x4d": ("bottleneck", (3, 4, 6, 3), {"cardinality": 32, "group_width": 4}),
    "resnext101_32x8d": ("bottleneck", (3, 4, 23, 3), {"cardinality": 32, "group_width": 8}),
    "wide_resnet50_2": ("bottleneck", (3, 4, 6, 3), {"group_width": 128}),
    "seresnet50": ("bottleneck", (3, 4, 6, 3), {"squeeze_excite": True}),
}


def resnet_spec(
    variant: int | str,
    *,
    version: str = "1.5",
    block: str | None = None,
    shortcut: str = "B",
    residual: bool = True,
    stem: str = "imagenet",
    width: int | None = None,
    norm: str = "batch",
    **further: Any,
) -> ResNetSpec:
    """The spec of a named variant; `further` are other fields of ResNetSpec. See
    `medres.backbones.resnet`.
    """
    one_of("stem", stem, STEMS)
    unknown = set(further) - {field.name for field in fields(ResNetSpec)} | {"depths"} & set(
        further
    )
    if unknown:
        allowed = sorted({field.name for field in fields(ResNetSpec)} - {"depths"})
        raise ModelError(
            f"unknown option {', '.join(sorted(unknown))}: choose from {', '.join(allowed)}"
        )
    if stem == "cifar":
        own, depths, row = _cifar(variant, block)
    else:
        own, depths, row = _tabled(variant)
    return ResNetSpec(
        block=block or own,
        depths=depths,
        version=version,
        shortcut=shortcut,
        residual=residual,
        stem=stem,
        width=(16 if stem == "cifar" else 64) if width is None else width,
        norm=norm,
        **{**row, **further},
    )


def _tabled(variant: int | str) -> tuple[str, tuple[int, ...], dict[str, Any]]:
    name = f"resnet{variant}" if not isinstance(variant, str) or variant.isdigit() else variant
    if name not in VARIANTS:
        raise ModelError(
            f"variant {variant!r} is unknown: choose from {', '.join(VARIANTS)}, or 6n+2 with "
            f'stem="cifar"'
        )
    return VARIANTS[name]


def _cifar(variant: int | str, block: str | None) -> tuple[str, tuple[int, ...], dict[str, Any]]:
    """Section 4.2 of the paper: three stages of n blocks."""
    block = block or "basic"
    one_of("block", block, BLOCKS)
    layers = 6 if block == "basic" else 9
    match = re.fullmatch(r"(?:resnet)?(\d+)", str(variant))
    depth = int(match[1]) if match and not isinstance(variant, bool) else 0
    if depth < layers + 2 or (depth - 2) % layers:
        low = max(1, (depth - 2) // layers)
        near = f"{layers * low + 2} or {layers * (low + 1) + 2}"
        raise ModelError(
            f'variant {variant!r}: with stem="cifar" and {block} blocks the depth is {layers}n+2; '
            f"try {near}"
        )
    return block, ((depth - 2) // layers,) * 3, {}
