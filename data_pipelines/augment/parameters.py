"""Parameters from keys: what happens to each image, before anything happens to it.

A new parameter is a field of `AugmentSpec`, a row of `RULES`, and the operation that reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from keras import ops

from data_pipelines.augment.philox import uniforms
from data_pipelines.augment.spec import AugmentSpec, axis_pairs
from data_pipelines.augment.tensors import Parameters, Tensor

BIAS_CELLS = 2


@dataclass(frozen=True)
class Rule:
    """How a parameter comes from uniform random numbers.

    stream: number of its random stream; see `RULES`. count: random numbers per image for a spec and
    2 or 3 dimensions; 0 switches the parameter off. values: uniform numbers (batch, count) in
    [0, 1) -> parameter (batch, count).
    """

    stream: int
    count: Callable[[AugmentSpec, int], int]
    values: Callable[[Tensor, AugmentSpec], Tensor]


def draw(key: Tensor, spec: AugmentSpec, dims: int = 2) -> Parameters:
    """Parameters of each image, a function of its key alone: replay them with `apply`, save them
    with numpy.savez.

    key: int32 (batch, 2), from `data_pipelines.datasets`: (hash of seed and epoch, image number).
    dims: 2 for images, 3 for volumes.
    Returns name -> (batch, n) in the spec's units, only for what is switched on, and "key" itself
    (for noise). Per axis (slices, rows, columns): `shift` in fractions of the side, `pad` in whole
    pixels, `flip` 1 or -1,
    `crop` the position 0..1. `tilt`: about the column axis and the row axis. `shear`: one for each
    pair of axes. `elastic` (batch, controls..., dims) in cells, `bias` (batch, controls...) in
    model units. `cutout`: center, then side, for each axis, in fractions.
    """
    counts = {name: rule.count(spec, dims) for name, rule in RULES.items()}
    names = [name for name, count in counts.items() if count]
    streams = [(RULES[name].stream, counts[name]) for name in names]
    numbers = uniforms(key, streams) if streams else []
    params = {
        name: RULES[name].values(uniform, spec)
        for name, uniform in zip(names, numbers, strict=True)
    }
    if "bias" in params:
        field = _grid(params.pop("bias_field"), BIAS_CELLS, dims)
        params["bias"] = field * ops.reshape(params["bias"], (-1,) + (1,) * dims)
    if "elastic" in params:
        params["elastic"] = _grid(params["elastic"], spec.elastic_cells, dims, dims)
    return params | {"key": key}


def _one(spec: AugmentSpec, dims: int) -> int:
    return 1


def _per_axis(spec: AugmentSpec, dims: int) -> int:
    return dims


def _symmetric(stream: int, field: str, count: Callable[[AugmentSpec, int], int] = _one) -> Rule:
    """Uniform in -p..p."""
    return Rule(
        stream,
        lambda spec, dims: count(spec, dims) if spec.is_on(field) else 0,
        lambda u, spec: (2.0 * u - 1.0) * getattr(spec, field),
    )


def _degradation(stream: int, field: str) -> Rule:
    """0 for most images; uniform in 0..p for a random part of them, with probability `share`."""
    return Rule(
        stream,
        lambda spec, dims: int(spec.is_on(field)),
        lambda u, spec: _with_probability(u, getattr(spec, field), spec.share),
    )


def _with_probability(u: Tensor, limit: float, probability: float) -> Tensor:
    return ops.where(u < probability, u * (limit / probability), 0.0)


def _flips(u: Tensor, spec: AugmentSpec) -> Tensor:
    allowed = ops.convert_to_tensor(spec.flips(u.shape[1]))
    return ops.where((u < 0.5) & allowed, -1.0, 1.0)


def _boxes(u: Tensor, spec: AugmentSpec) -> Tensor:
    """Centers anywhere; sides from half the largest to the largest, or all 0. The random number of
    the first side decides whether there is a box.
    """
    dims = u.shape[1] // 2
    centers, first, rest = u[:, :dims], u[:, dims : dims + 1], u[:, dims + 1 :]
    sides = 0.5 + 0.5 * ops.concatenate([first / spec.share, rest], axis=1)
    boxed = ops.where(first < spec.share, sides * spec.cutout, 0.0)
    return ops.concatenate([centers, boxed], axis=1)


#: A rule for each parameter. The random numbers of a parameter depend on its stream alone, so
#: stream numbers must never change. A new parameter takes the next free number: 27. Numbers 21 to
#: 23 are those of `mixup`, 26 is that of `joint`.
RULES: dict[str, Rule] = {
    "rotation": _symmetric(0, "rotation"),
    "tilt": _symmetric(1, "tilt", lambda spec, dims: 2),
    "zoom": _symmetric(2, "zoom"),
    "shear": _symmetric(3, "shear", lambda spec, dims: len(axis_pairs(dims))),
    "shift": _symmetric(4, "shift", _per_axis),
    "elastic": _symmetric(6, "elastic", lambda spec, dims: dims * (spec.elastic_cells + 3) ** dims),
    "offset": _symmetric(8, "offset"),
    "scale": _symmetric(9, "scale"),
    "contrast": _symmetric(10, "contrast"),
    "gamma": _symmetric(11, "gamma"),
    "window_centre": _symmetric(12, "window_centre"),
    "window_width": _symmetric(13, "window_width"),
    "blur": _degradation(14, "blur"),
    "noise": _degradation(16, "noise"),
    "quantum": _degradation(17, "quantum"),
    "bias": _degradation(18, "bias"),
    "low_resolution": Rule(
        15,
        lambda spec, dims: int(spec.is_on("low_resolution")),
        lambda u, spec: 1.0 + _with_probability(u, spec.low_resolution - 1.0, spec.share),
    ),
    "bias_field": Rule(
        19,
        lambda spec, dims: (BIAS_CELLS + 3) ** dims if spec.is_on("bias") else 0,
        lambda u, spec: 2.0 * u - 1.0,
    ),
    "cutout": Rule(20, lambda spec, dims: 2 * dims if spec.is_on("cutout") else 0, _boxes),
    "flip": Rule(5, lambda spec, dims: dims if any(spec.flips(dims)) else 0, _flips),
    "crop": Rule(7, lambda spec, dims: dims if spec.is_on("crop") else 0, lambda u, spec: u),
    "saturation": _symmetric(24, "saturation"),
    "pad": Rule(
        25,
        lambda spec, dims: dims if spec.is_on("pad") else 0,
        lambda u, spec: ops.floor(u * (2 * spec.pad + 1)) - spec.pad,
    ),
}


def _grid(values: Tensor, cells: int, dims: int, channels: int | None = None) -> Tensor:
    """Control values of a B-spline: (batch, n) -> (batch, cells + 3, ... per axis [, channels])."""
    shape = (cells + 3,) * dims + (() if channels is None else (channels,))
    return ops.reshape(values, (-1, *shape))
