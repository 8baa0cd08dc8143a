"""Captions of the drawn parameters of an augmentation, and each parameter at its two extremes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from data_pipelines.augment import AugmentSpec, draw
from data_pipelines.augment.parameters import RULES
from data_pipelines.kinds import UNITS

MINUS = "\N{MINUS SIGN}"


def captions(params: dict[str, Any], spec: AugmentSpec, index: int) -> list[str]:
    """One phrase per parameter for the image `index` of a batch of drawn parameters; parameters
    that do not change the image are left out.

    >>> spec = AugmentSpec(units="HU", offset=50, rotation=10)
    >>> captions({"offset": [[20.0]], "rotation": [[0.0]]}, spec, 0)
    ['offset +20 HU']
    """
    phrases = (
        caption(name, np.asarray(values)[index], spec)
        for name, values in params.items()
        if name != "key"
    )
    return [phrase for phrase in phrases if phrase]


def caption(name: str, values: np.ndarray, spec: AugmentSpec) -> str:
    """The phrase for one parameter of one image, or "" if it does not change the image. A parameter
    without a phrase of its own gets its name and its values.
    """
    suffix = UNITS[spec.units].suffix
    if name in SCALARS:
        value = float(values.ravel()[0])
        if not value:
            return ""
        return (
            f"{name.replace('_', ' ')} {SCALARS[name](value)}{suffix if name in IN_UNITS else ''}"
        )
    if name in PHRASES:
        return PHRASES[name](values, suffix)
    if not values.any():
        return ""
    return f"{name.replace('_', ' ')} {', '.join(f'{value:.2g}' for value in values.ravel()[:3])}"


def extremes(spec: AugmentSpec, dims: int, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Parameter -> a drawn batch of two images in which only this parameter acts: at its low and at
    its high end.

    The ends are those of the rule by which the parameter is drawn. One-sided parameters: half the
    maximum, and the maximum. Fields (elastic, bias) and boxes (cutout) have no ends: two random
    draws are returned. dims: 2, or 3 for volumes.
    """
    key = np.array([[seed, 0], [seed, 1]], np.int32)
    spec = spec.model_copy(update={"share": 1.0})
    params = {name: np.array(values) for name, values in draw(key, spec, dims).items()}
    alone = {}
    for name, values in params.items():
        if name in ("key", "crop"):
            continue
        if name == "flip":
            values[0], values[1] = 1.0, [-1.0 if flipped else 1.0 for flipped in spec.flips(dims)]
        elif name == "bias":
            values *= spec.bias / np.abs(values).max()
        elif name not in ("elastic", "cutout"):
            values = _ends(name, values.shape[1], spec)
        alone[name] = {"key": key, name: values}
    return alone


def _ends(name: str, count: int, spec: AugmentSpec) -> np.ndarray:
    """The low and the high end (2, count) of a parameter, from the rule by which it is drawn."""
    uniform = np.array([0.0, 0.5, np.nextafter(np.float32(1), np.float32(0))], np.float32)
    drawn = RULES[name].values(np.repeat(uniform[:, None], count, axis=1), spec)
    low, middle, high = np.asarray(drawn)
    symmetric = np.allclose(low, -high, rtol=1e-5)
    return np.stack([low if symmetric else middle, high])


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", MINUS)


def _percent(value: float) -> str:
    return f"{_signed(100 * value, 0)} %"


def _number(value: float) -> str:
    return f"{value:+.2g}".replace("-", MINUS)


def _flip(values: np.ndarray, suffix: str) -> str:
    directions = ("front-back", "up-down", "left-right")[3 - len(values) :]
    flipped = [name for name, value in zip(directions, values, strict=True) if value < 0]
    return "mirrored " + " and ".join(flipped) if flipped else ""


def _cutout(values: np.ndarray, suffix: str) -> str:
    sides = values[len(values) // 2 :]
    return f"cut out {' × '.join(f'{100 * side:.0f}' for side in sides)} %" if sides.any() else ""


def _percents(values: np.ndarray) -> str:
    return ", ".join(f"{100 * value:.0f}" for value in values) + " %"


IN_UNITS = ("offset", "window_centre", "noise", "quantum")  # of the image
SCALARS: dict[str, Callable[[float], str]] = {
    "rotation": lambda value: f"{_signed(value, 1)}°",
    "zoom": _percent,
    "shear": _percent,
    "scale": lambda value: f"{_signed(100 * value, 1)} %",
    "contrast": _percent,
    "saturation": _percent,
    "window_width": _percent,
    "offset": _number,
    "window_centre": _number,
    "noise": lambda value: f"{value:.2g}",
    "quantum": lambda value: f"{value:.2g}",
    "blur": lambda value: f"{value:.2f} px",
}
PHRASES: dict[str, Callable[[np.ndarray, str], str]] = {
    "low_resolution": lambda v, _: f"resolution ÷ {v[0]:.1f}" if v[0] > 1 else "",
    "gamma": lambda v, _: f"gamma {np.exp(v[0]):.2f}" if v[0] else "",
    "tilt": lambda v, _: f"tilt {_signed(v[0], 0)}°, {_signed(v[1], 0)}°",
    "shift": lambda v, _: f"shift {', '.join(_signed(100 * value, 0) for value in v)} %",
    "flip": _flip,
    "elastic": lambda v, _: f"bent by up to {np.abs(v).max():.2f} cell",
    "bias": lambda v, suffix: f"bias up to {np.abs(v).max():.2g}{suffix}" if v.any() else "",
    "cutout": _cutout,
    "crop": lambda v, _: f"cropped at {_percents(v)}",
}
