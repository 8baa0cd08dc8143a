"""Drawn parameters of augmentation in words, and each parameter at its two ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from data_pipelines.augment import AugmentSpec, draw

MINUS = "\N{MINUS SIGN}"


def captions(drawn: dict[str, Any], spec: AugmentSpec, row: int) -> list[str]:
    """What happens to one image of a drawn batch, a phrase a parameter; those at rest are left
    out.
    """
    found = []
    for name, values in drawn.items():
        if name != "key" and (said := _phrase(name, np.asarray(values)[row], spec)):
            found.append(said)
    return found


def ends(spec: AugmentSpec, dims: int, seed: int = 0) -> dict[str, dict[str, Any]]:
    """For each parameter that is switched on a drawn batch of two images in which it alone acts: at
    its low and its high end.

    Fields (elastic, bias) and boxes (cutout) have no ends: two draws are given. One-sided ones:
    half the largest, and the largest.
    """
    key = np.array([[seed, 0], [seed, 1]], np.int32)
    every = {
        name: np.array(values)
        for name, values in draw(key, spec.model_copy(update={"share": 1.0}), dims).items()
    }
    found = {}
    for name, values in every.items():
        if name in ("key", "crop"):
            continue
        if name == "flip":
            values[0], values[1] = 1.0, [-1.0 if flipped else 1.0 for flipped in spec.flips(dims)]
        elif name == "bias":
            values *= spec.bias / np.abs(values).max()
        elif name == "low_resolution":
            values[0], values[1] = 1 + (spec.low_resolution - 1) / 2, spec.low_resolution
        elif name in ("blur", "noise", "quantum"):
            values[0], values[1] = getattr(spec, name) / 2, getattr(spec, name)
        elif name not in ("elastic", "cutout"):
            values[0], values[1] = -getattr(spec, name), getattr(spec, name)
        found[name] = {"key": key, name: values}
    return found


def _phrase(name: str, values: np.ndarray, spec: AugmentSpec) -> str:
    """One image's values of one parameter in words; empty where it rests."""
    unit = " HU" if spec.units == "HU" else ""
    if name in _SCALARS:
        first = float(values.ravel()[0])
        return (
            f"{name.replace('_', ' ')} {_SCALARS[name](first)}"
            + (unit if name in _IN_UNITS else "")
            if first
            else ""
        )
    if name == "low_resolution":
        return f"resolution ÷ {values[0]:.1f}" if values[0] > 1 else ""
    if name == "gamma":
        return f"gamma {np.exp(values[0]):.2f}" if values[0] else ""
    if name == "tilt":
        return f"tilt {_signed(values[0], 0)}°, {_signed(values[1], 0)}°"
    if name == "shift":
        return "shift " + ", ".join(_signed(100 * value, 0) for value in values) + " %"
    if name == "flip":
        sides = ("front-back", "up-down", "left-right")[3 - len(values) :]
        flipped = [side for side, value in zip(sides, values, strict=True) if value < 0]
        return "mirrored " + " and ".join(flipped) if flipped else ""
    if name == "elastic":
        return f"bent by up to {np.abs(values).max():.2f} cell"
    if name == "bias":
        return f"bias up to {np.abs(values).max():.2g}{unit}" if values.any() else ""
    if name == "cutout":
        cut = values[len(values) // 2 :]
        return (
            "cut out " + " × ".join(f"{100 * side:.0f}" for side in cut) + " %" if cut.any() else ""
        )
    return f"cropped at {', '.join(f'{100 * value:.0f}' for value in values)} %"


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", MINUS)


def _percent(value: float) -> str:
    return f"{_signed(100 * value, 0)} %"


def _number(value: float) -> str:
    return f"{value:+.2g}".replace("-", MINUS)


_IN_UNITS = ("offset", "window_centre", "noise", "quantum")
_SCALARS: dict[str, Callable[[float], str]] = {
    "rotation": lambda value: f"{_signed(value, 1)}°",
    "zoom": _percent,
    "shear": _percent,
    "scale": lambda value: f"{_signed(100 * value, 1)} %",
    "contrast": _percent,
    "window_width": _percent,
    "offset": _number,
    "window_centre": _number,
    "noise": lambda value: f"{value:.2g}",
    "quantum": lambda value: f"{value:.2g}",
    "blur": lambda value: f"{value:.2f} px",
}
