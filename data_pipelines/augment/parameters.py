"""Parameters from keys: what happens to each image, before anything happens to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from data_pipelines.augment.philox import uniforms
from data_pipelines.augment.spec import AugmentSpec, pairs

BIAS_CELLS = 2

#: Stream numbers. Only ever append: a parameter's numbers must not change because another one came.
STREAMS = {
    name: number
    for number, name in enumerate(
        (
            *("rotation", "tilt", "zoom", "shear", "shift", "flip", "elastic", "crop"),
            *("offset", "scale", "contrast", "gamma", "window_centre", "window_width"),
            *("blur", "low_resolution", "noise", "quantum", "bias", "bias_field", "cutout"),
            *("mixup", "cutmix", "cutmix_place"),
        )
    )
}


def draw(key, spec: AugmentSpec, dims: int = 2) -> dict[str, Any]:
    """Parameters of each image, a function of its key alone: replay them with `apply`, keep them
    with numpy.savez.

    key: int32 (batch, 2), from `data_pipelines.datasets`: (hash of seed and epoch, image number).
        dims: 2, or 3 for volumes.
    Returns name -> (batch, n) in the spec's units, only for what is switched on, and "key" itself
    (for noise). Per axis (slices, rows, columns): `shift` in fractions of the side, `flip` 1 or -1,
    `crop` the place 0..1. `tilt`: about the column, the
    row axis. `shear`: one a pair of axes. `elastic` (batch, controls..., dims) in cells, `bias`
    (batch, controls...) in model units.
    `cutout`: centre, then side, an axis each, in fractions.
    """
    wanted = _wanted(spec, dims)
    found = uniforms(key, [(STREAMS[name], count) for name, count, _ in wanted]) if wanted else []
    drawn = {name: made(values) for (name, _, made), values in zip(wanted, found, strict=True)}
    if "bias" in drawn:
        field = _grid(drawn.pop("bias_field"), BIAS_CELLS, dims)
        drawn["bias"] = field * ops.reshape(drawn["bias"], (-1,) + (1,) * dims)
    if "elastic" in drawn:
        drawn["elastic"] = _grid(drawn["elastic"], spec.elastic_cells, dims, dims)
    return drawn | {"key": key}


def _wanted(spec: AugmentSpec, dims: int) -> list[tuple[str, int, Callable]]:
    """(name, count, uniform -> parameter) of everything that is switched on."""
    symmetric = {"rotation": 1, "tilt": 2, "zoom": 1, "shear": len(pairs(dims)), "shift": dims}
    symmetric |= {"elastic": dims * (spec.elastic_cells + 3) ** dims}
    symmetric |= dict.fromkeys(
        ("offset", "scale", "contrast", "gamma", "window_centre", "window_width"), 1
    )
    wanted = [
        (name, count, _symmetric(getattr(spec, name)))
        for name, count in symmetric.items()
        if getattr(spec, name)
    ]
    rare = [name for name in ("blur", "noise", "quantum", "bias") if getattr(spec, name)]
    wanted += [(name, 1, _with_probability(getattr(spec, name), spec.share)) for name in rare]
    if spec.low_resolution > 1:
        factor = _with_probability(spec.low_resolution - 1.0, spec.share)
        wanted.append(("low_resolution", 1, lambda u: 1.0 + factor(u)))
    if spec.bias:
        wanted.append(("bias_field", (BIAS_CELLS + 3) ** dims, _symmetric(1.0)))
    if spec.cutout:
        wanted.append(("cutout", 2 * dims, lambda u: _cutout(u, spec, dims)))
    if any(spec.flips(dims)):
        wanted.append(
            (
                "flip",
                dims,
                lambda u: ops.where((u < 0.5) & ops.convert_to_tensor(spec.flips(dims)), -1.0, 1.0),
            )
        )
    if spec.crop is not None:
        wanted.append(("crop", dims, lambda u: u))
    return wanted


def _symmetric(limit: float) -> Callable:
    return lambda u: (2.0 * u - 1.0) * limit


def _with_probability(limit: float, share: float) -> Callable:
    """0 for all but a share of the images, uniform in 0..limit for those."""
    return lambda u: ops.where(u < share, u * (limit / share), 0.0)


def _cutout(u, spec: AugmentSpec, dims: int):
    """Centres anywhere; sides from half the largest to the largest, or all 0. The first side's
    number decides whether.
    """
    struck, first = u[:, dims : dims + 1] < spec.share, u[:, dims : dims + 1] / spec.share
    sides = ops.concatenate([first, u[:, dims + 1 :]], axis=1)
    return ops.concatenate(
        [u[:, :dims], ops.where(struck, (0.5 + 0.5 * sides) * spec.cutout, 0.0)], axis=1
    )


def _grid(values, cells: int, dims: int, channels: int | None = None):
    shape = (cells + 3,) * dims + (() if channels is None else (channels,))
    return ops.reshape(values, (-1, *shape))
