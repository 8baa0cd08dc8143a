"""The table of DenseNets: a name -> the specification. Adding a variant is one row here.

The CIFAR nets are named after their depth and growth rate: densenet40_k12, densenet100_k24, and
densenet_bc100_k12 for the one with bottleneck and compression.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, NamedTuple

from medres.backbones.dense.spec import DenseNetSpec
from medres.backbones.spec import STEMS, differing_fields, one_of
from medres.errors import ModelError


class DenseVariant(NamedTuple):
    """One row of the table: dense layers per block, and the growth rate."""

    depths: tuple[int, ...]
    growth: int = 32


DENSENETS: dict[str, DenseVariant] = {
    "densenet121": DenseVariant((6, 12, 24, 16)),
    "densenet161": DenseVariant((6, 12, 36, 24), 48),
    "densenet169": DenseVariant((6, 12, 32, 32)),
    "densenet201": DenseVariant((6, 12, 48, 32)),
    "densenet264": DenseVariant((6, 12, 64, 48)),
}
CIFAR_GROWTH, CIFAR_WIDTH = 12, 16  # of the paper's networks without compression
COMPRESSION = 0.5  # of every network of the paper with the letter C
CIFAR_NAME = re.compile(r"(?:densenet)?(_bc)?(\d+)(?:_k(\d+))?")


def densenet_spec(
    variant: int | str,
    *,
    stem: str = "imagenet",
    growth: int | None = None,
    bottleneck: bool | None = None,
    compression: float | None = None,
    width: int | None = None,
    norm: str = "batch",
    **spec_fields: Any,
) -> DenseNetSpec:
    """The spec of a named variant; `spec_fields` are other fields of DenseNetSpec. The options are
    those of `medres.backbones.densenet`. Raises ModelError.

    >>> densenet_spec(121).depths
    (6, 12, 24, 16)
    >>> densenet_spec(40, stem="cifar", growth=24).depths
    (12, 12, 12)
    """
    one_of("stem", stem, STEMS)
    allowed = {field.name for field in fields(DenseNetSpec)} - {"depths"}
    unknown = sorted(set(spec_fields) - allowed)
    if unknown:
        raise ModelError(
            f"unknown option {', '.join(unknown)}: a DenseNet has {', '.join(sorted(allowed))}",
            code="unknown_option",
        )
    options = (growth, bottleneck, compression)
    row = _cifar_row(variant, *options) if stem == "cifar" else _table_row(variant, *options)
    if width is None and isinstance(row["growth"], int):
        is_plain_cifar = stem == "cifar" and row["compression"] == 1
        width = CIFAR_WIDTH if is_plain_cifar else 2 * row["growth"]
    options_by_name: dict[str, Any] = {"width": width, **row, **spec_fields}
    return DenseNetSpec(stem=stem, norm=norm, **options_by_name)


def densenet_name(spec: DenseNetSpec) -> str:
    """The name of a network: its variant and stem, then every other field that differs from the
    variant's. Different specs have different names.

    >>> densenet_name(densenet_spec(169)), densenet_name(densenet_spec("_bc100", stem="cifar"))
    ('densenet169', 'densenet_bc100_k12_cifar')
    """
    name, variant_spec = _nearest_variant(spec)
    if spec.stem != "imagenet":
        name += f"_{spec.stem}"
    return name + differing_fields(spec, variant_spec, ("depths", "stem"))


def _nearest_variant(spec: DenseNetSpec) -> tuple[str, DenseNetSpec]:
    for name, row in DENSENETS.items():
        if row.depths == spec.depths:
            return name, DenseNetSpec(*row, width=2 * row.growth)
    growth = spec.growth
    if spec.stem == "cifar" and len(set(spec.depths)) == 1:
        if spec.bottleneck and spec.compression == COMPRESSION:
            plain = DenseNetSpec(spec.depths, growth, stem=spec.stem, width=max(4, 2 * growth))
            return f"densenet_bc{spec.depth}_k{growth}", plain
        plain = DenseNetSpec(spec.depths, growth, False, 1.0, spec.stem, CIFAR_WIDTH)
        return f"densenet{spec.depth}_k{growth}", plain
    name = f"densenet{spec.depth}_{'-'.join(map(str, spec.depths))}"
    return name, DenseNetSpec(spec.depths, stem=spec.stem)


def _table_row(
    variant: int | str, growth: int | None, bottleneck: bool | None, compression: float | None
) -> dict[str, Any]:
    name = variant if isinstance(variant, str) and not variant.isdigit() else f"densenet{variant}"
    if name not in DENSENETS:
        raise ModelError(
            f"variant {variant!r} is unknown: choose from {', '.join(DENSENETS)}, or with "
            f'stem="cifar" densenet40_k12, densenet100_k24, densenet_bc100_k12 and related',
            code="unknown_variant",
        )
    row = DENSENETS[name]
    return {
        "depths": row.depths,
        "growth": row.growth if growth is None else growth,
        "bottleneck": True if bottleneck is None else bottleneck,
        "compression": COMPRESSION if compression is None else compression,
    }


def _cifar_row(
    variant: int | str, growth: int | None, bottleneck: bool | None, compression: float | None
) -> dict[str, Any]:
    """Section 4.2 of the paper: three dense blocks of equal depth."""
    match = CIFAR_NAME.fullmatch(str(variant))
    has_letters = bool(match and match[1])
    bottleneck = has_letters if bottleneck is None else bottleneck
    depth, layers = int(match[2]) if match else 0, 6 if bottleneck else 3
    if depth < layers + 4 or (depth - 4) % layers:
        n = max(1, (depth - 4) // layers)
        raise ModelError(
            f'variant {variant!r}: with stem="cifar" the depth of a DenseNet '
            f"{'with' if bottleneck else 'without'} bottleneck is {layers}n+4; try "
            f"{layers * n + 4} or {layers * (n + 1) + 4}",
            code="unknown_variant",
        )
    named = int(match[3]) if match and match[3] else CIFAR_GROWTH
    return {
        "depths": ((depth - 4) // layers,) * 3,
        "growth": named if growth is None else growth,
        "bottleneck": bottleneck,
        "compression": (COMPRESSION if has_letters else 1.0)
        if compression is None
        else compression,
    }
