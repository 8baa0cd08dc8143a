"""The table of variants: a name -> the specification of a ResNet. Adding a variant is one row here;
DenseNets have a table of their own in `medres.backbones.dense.variants`.

A row whose numbers need a new field also changes `spec.py` (the field) and `blocks.py` (its layer).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from medres.backbones.dense.spec import DenseNetSpec
from medres.backbones.dense.variants import DENSENETS, densenet_name, densenet_spec
from medres.backbones.spec import BLOCKS, STEMS, ResNetSpec, differing_fields, one_of
from medres.errors import ModelError


class Variant(NamedTuple):
    """One row of the table: the type of block, the number of blocks per stage, and the fields of
    the spec that differ from their defaults.
    """

    block: str
    depths: tuple[int, ...]
    spec_fields: dict[str, Any] = {}  # noqa: RUF012 - never changed


VARIANTS: dict[str, Variant] = {
    "resnet10": Variant("basic", (1, 1, 1, 1)),
    "resnet18": Variant("basic", (2, 2, 2, 2)),
    "resnet34": Variant("basic", (3, 4, 6, 3)),
    "resnet50": Variant("bottleneck", (3, 4, 6, 3)),
    "resnet101": Variant("bottleneck", (3, 4, 23, 3)),
    "resnet152": Variant("bottleneck", (3, 8, 36, 3)),
    "resnet200": Variant("bottleneck", (3, 24, 36, 3)),
    "resnext50_32x4d": Variant("bottleneck", (3, 4, 6, 3), {"cardinality": 32, "group_width": 4}),
    "resnext101_32x8d": Variant("bottleneck", (3, 4, 23, 3), {"cardinality": 32, "group_width": 8}),
    "wide_resnet50_2": Variant("bottleneck", (3, 4, 6, 3), {"group_width": 128}),
    "seresnet50": Variant("bottleneck", (3, 4, 6, 3), {"squeeze_excite": True}),
}
WIDTH = {"imagenet": 64, "small": 64, "cifar": 16}  # of the papers, by stem


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
    **spec_fields: Any,
) -> ResNetSpec:
    """The spec of a named variant; `spec_fields` are other fields of ResNetSpec. The options are
    those of `medres.backbones.resnet`. Raises ModelError.

    >>> resnet_spec(50).depths
    (3, 4, 6, 3)
    >>> resnet_spec(20, stem="cifar").depths
    (3, 3, 3)
    """
    one_of("stem", stem, STEMS)
    spec_fields = _with_current_names(spec_fields)
    allowed = {field.name for field in fields(ResNetSpec)} - {"depths"}
    unknown = sorted(set(spec_fields) - allowed)
    if unknown:
        raise ModelError(
            f"unknown option {', '.join(unknown)}: choose from {', '.join(sorted(allowed))}",
            code="unknown_option",
        )
    row = _cifar_variant(variant, block) if stem == "cifar" else _table_row(variant)
    return ResNetSpec(
        block=block or row.block,
        depths=row.depths,
        version=version,
        shortcut=shortcut,
        residual=residual,
        stem=stem,
        width=WIDTH[stem] if width is None else width,
        norm=norm,
        **{**row.spec_fields, **spec_fields},
    )


def variant_name(variant: int | str) -> str:
    """The name of a variant in the tables: 18 and "18" are "resnet18".

    >>> variant_name(18), variant_name("densenet121")
    ('resnet18', 'densenet121')
    """
    is_name = isinstance(variant, str) and not variant.isdigit()
    return str(variant) if is_name else f"resnet{variant}"


def network_options(network: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `network_spec` in the network of a config.json. Only the networks of runs that
    began from weights with an input scaling, or that have another norm or shortcut than the
    default, have these fields.
    """
    fields = ("input_scaling", "norm", "shortcut", "channel_padding")
    optional = [key for key in fields if key in network]
    return {key: network[key] for key in ["version", "stem", "width", *optional]}


def network_spec(
    variant: int | str, *, version: str = "1.5", stochastic_depth: float = 0.0, **options: Any
) -> ResNetSpec | DenseNetSpec:
    """The spec of any variant: of a DenseNet if the name says so, otherwise of a ResNet. The
    options are those of `resnet_spec` or `densenet_spec`. Raises ModelError.

    >>> network_spec("densenet121").depth, network_spec(50).depth
    (121, 50)
    """
    if not str(variant).startswith("densenet"):
        return resnet_spec(variant, version=version, stochastic_depth=stochastic_depth, **options)
    if version != "1.5" or stochastic_depth != 0:
        raise ModelError(
            f"version={version!r}, stochastic_depth={stochastic_depth!r}: a DenseNet has neither "
            f'versions nor residual branches; leave version at "1.5", and set stochastic_depth to '
            f"0 (some recipes have another value)",
            code="incompatible_options",
        )
    return densenet_spec(variant, **options)


def model_name(spec: ResNetSpec | DenseNetSpec) -> str:
    """The name of a network: its variant, its version and stem, then every other field that differs
    from the variant's. Different specs have different names.

    >>> model_name(resnet_spec("resnext50_32x4d")), model_name(resnet_spec(18, version="2"))
    ('resnext50_32x4d', 'resnet18_v2')
    >>> model_name(resnet_spec(20, stem="cifar", residual=False, width=32))
    'plain20_cifar_width32'
    """
    if isinstance(spec, DenseNetSpec):
        return densenet_name(spec)
    name, variant_spec = _nearest_variant(spec)
    if not spec.residual:
        name = f"plain_{name}".replace("plain_resnet", "plain")
    if spec.version == "d":
        name = re.sub(r"(\d+)", r"\1d", name, count=1)
    elif spec.version != "1.5":
        name += f"_v{spec.version}"
    if spec.stem != "imagenet":
        name += f"_{spec.stem}"
    return name + differing_fields(spec, variant_spec, _IN_NAME)


_IN_NAME = ("block", "depths", "residual", "version", "stem")  # they come first in the name


def _nearest_variant(spec: ResNetSpec) -> tuple[str, ResNetSpec]:
    """The name and the spec of the variant from which `spec` differs in the fewest fields."""
    candidates = {
        name: ResNetSpec(row.block, row.depths, **row.spec_fields)
        for name, row in VARIANTS.items()
        if (row.block, row.depths) == (spec.block, spec.depths)
    }
    if candidates:
        name = min(candidates, key=lambda name: _differences(candidates[name], spec))
        return name, candidates[name]
    name = f"resnet{spec.depth}"
    if len(set(spec.depths)) > 1 or spec.stem != "cifar":
        name += "_" + "-".join(map(str, spec.depths))
    elif spec.block == "bottleneck" and (spec.depth - 2) % 6 == 0:
        name += "_bottleneck"  # 6n+2 and 9n+2 at once, such as 20
    plain = ResNetSpec(spec.block, spec.depths, stem=spec.stem, width=WIDTH[spec.stem])
    return name, plain


def _differences(a: ResNetSpec, b: ResNetSpec) -> int:
    return sum(getattr(a, f.name) != getattr(b, f.name) for f in fields(ResNetSpec))


def _with_current_names(spec_fields: dict[str, Any]) -> dict[str, Any]:
    """`zero_side` ("both" or "behind") is the former name of `channel_padding`."""
    if "zero_side" not in spec_fields:
        return spec_fields
    side = spec_fields["zero_side"]
    others = {name: value for name, value in spec_fields.items() if name != "zero_side"}
    return {"channel_padding": "end" if side == "behind" else side, **others}


def _table_row(variant: int | str) -> Variant:
    name = variant_name(variant)
    if name not in VARIANTS:
        raise ModelError(
            f"variant {variant!r} is unknown: choose from {', '.join([*VARIANTS, *DENSENETS])}, "
            f'or 6n+2 with stem="cifar"',
            code="unknown_variant",
        )
    return VARIANTS[name]


def _cifar_variant(variant: int | str, block: str | None) -> Variant:
    """Section 4.2 of the paper: three stages of n blocks."""
    block = block or "basic"
    one_of("block", block, BLOCKS)
    layers = 6 if block == "basic" else 9
    match = re.fullmatch(r"(?:resnet)?(\d+)", str(variant))
    depth = int(match[1]) if match and not isinstance(variant, bool) else 0
    if depth < layers + 2 or (depth - 2) % layers:
        blocks = max(1, (depth - 2) // layers)
        nearest = f"{layers * blocks + 2} or {layers * (blocks + 1) + 2}"
        raise ModelError(
            f'variant {variant!r}: with stem="cifar" and {block} blocks the depth is {layers}n+2; '
            f"try {nearest}",
            code="unknown_variant",
        )
    return Variant(block, ((depth - 2) // layers,) * 3)
