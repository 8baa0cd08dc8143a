"""Synthetic images: a chest radiograph and an axial CT slice from formulas, with or without a
nodule.

They resemble anatomy only roughly. They are for testing software, not for training a model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter


@dataclass(frozen=True)
class Anatomy:
    """One synthetic patient. Lengths are in half-widths of the image (x to the right, y down, 0 in
    the center).
    """

    girth: float  # body half-width
    lung: float  # lung half-width
    heart: float  # heart half-width
    ribs: float  # phase of the first rib
    lean: float  # asymmetry of the two lungs
    caliber: float  # strength of the vessels


@dataclass(frozen=True)
class Nodule:
    """A soft ball in a lung: `side` -1 or 1, `u` and `v` its position in that lung (-1..1),
    `radius`, and `contrast` (0..1.5).
    """

    side: int
    u: float
    v: float
    radius: float
    contrast: float


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Return a random patient."""
    return Anatomy(
        girth=rng.uniform(0.82, 0.95),
        lung=rng.uniform(0.26, 0.33),
        heart=rng.uniform(0.20, 0.30),
        ribs=rng.uniform(0.0, 0.17),
        lean=rng.uniform(-0.06, 0.06),
        caliber=rng.uniform(0.5, 1.0),
    )


def radiograph(
    anatomy: Anatomy, rng: np.random.Generator, rows: int, cols: int, nodule: Nodule | None = None
) -> np.ndarray:
    """Return a chest-like radiograph: float64 (rows, cols), 0..1, bright = dense.

    `rng` gives the position, the vessels and the noise.
    """
    x, y = _grid(rows, cols, rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05))
    body = _inside((np.abs(x) / anatomy.girth) ** 4 + (np.abs(y - 0.3) / 1.5) ** 4, 0.05)
    lungs = np.zeros_like(x)
    for side in (-1, 1):
        cx, cy, wx, wy = _lung(anatomy, side)
        lungs = np.maximum(lungs, _inside(((x - cx) / wx) ** 2 + ((y - cy) / wy) ** 2, 0.1))
    heart = _inside(((x - 0.10) / anatomy.heart) ** 2 + ((y - 0.28) / 0.30) ** 2, 0.15)
    spine = np.exp(-((x / 0.07) ** 2))
    density = body * (0.68 - 0.42 * lungs * (1 - 0.75 * heart) + 0.10 * heart + 0.10 * spine)
    density += 0.05 * body * _ribs(x, y, anatomy.ribs)
    vessels = gaussian_filter(rng.standard_normal(x.shape), cols / 60) * cols / 60 * 3.5
    density += 0.028 * anatomy.caliber * lungs * vessels
    if nodule is not None:
        cx, cy, wx, wy = _lung(anatomy, nodule.side)
        d2 = (x - cx - nodule.u * wx) ** 2 + (y - cy - nodule.v * wy) ** 2
        density += 0.35 * nodule.contrast * np.exp(-d2 / (2 * (0.6 * nodule.radius) ** 2))
    return np.clip(0.04 + density + rng.normal(0, 0.015, x.shape), 0.0, 1.0)


def radiograph_labels(
    anatomy: Anatomy, rng: np.random.Generator, rows: int, cols: int, nodule: Nodule | None = None
) -> np.ndarray:
    """The label map of `radiograph` with an equal `rng`, uint8 (rows, cols): 1 lung outside of the
    heart, 2 nodule.
    """
    x, y = _grid(rows, cols, rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05))
    labels = np.zeros((rows, cols), np.uint8)
    for side in (-1, 1):
        cx, cy, wx, wy = _lung(anatomy, side)
        labels[((x - cx) / wx) ** 2 + ((y - cy) / wy) ** 2 < 1] = 1
    labels[((x - 0.10) / anatomy.heart) ** 2 + ((y - 0.28) / 0.30) ** 2 < 1] = 0
    if nodule is not None:
        cx, cy, wx, wy = _lung(anatomy, nodule.side)
        d2 = (x - cx - nodule.u * wx) ** 2 + (y - cy - nodule.v * wy) ** 2
        labels[d2 < nodule.radius**2] = 2
    return labels


def ct_labels(anatomy: Anatomy, size: int, z: float, nodule: Nodule | None = None) -> np.ndarray:
    """The label map of `ct_slice`, uint8 (size, size): 1 lung, 2 nodule."""
    x, y = _grid(size, size, 0.0, 0.0)
    labels = np.zeros((size, size), np.uint8)
    width = anatomy.lung * (1.0 - 0.35 * z**2)
    for side in (-1, 1):
        labels[((x - side * 0.42) / width) ** 2 + (y / (1.35 * width)) ** 2 < 1] = 1
    labels[((x - 0.1) / anatomy.heart) ** 2 + ((y + 0.1) / 0.2) ** 2 < max(0.0, 0.9 - z)] = 0
    labels[(x / 0.1) ** 2 + ((y - 0.42) / 0.1) ** 2 < 1] = 0
    if nodule is not None:
        center = nodule.side * 0.42 + 0.5 * nodule.u * width
        d2 = (x - center) ** 2 + y**2 + (0.5 * (z - nodule.v)) ** 2
        labels[d2 < nodule.radius**2] = 2
    return labels


def ct_slice(
    anatomy: Anatomy, rng: np.random.Generator, size: int, z: float, nodule: Nodule | None = None
) -> np.ndarray:
    """Return an axial chest slice in HU: float64 (size, size), air is -1000.

    z: from -1 (feet) to 1 (head). The nodule's `v` is its z; it is visible where the slice cuts it.
    """
    x, y = _grid(size, size, 0.0, 0.0)
    body = (x / anatomy.girth) ** 2 + (y / (0.7 * anatomy.girth)) ** 2 < 1
    hu = np.where(body, 45.0, -1000.0)
    hu[body & ((x / anatomy.girth) ** 2 + (y / (0.7 * anatomy.girth)) ** 2 > 0.86)] = -90.0  # fat
    width = anatomy.lung * (1.0 - 0.35 * z**2)
    for side in (-1, 1):
        lung = ((x - side * 0.42) / width) ** 2 + (y / (1.35 * width)) ** 2 < 1
        hu[lung] = -860.0
    hu[((x - 0.1) / anatomy.heart) ** 2 + ((y + 0.1) / 0.2) ** 2 < max(0.0, 0.9 - z)] = 40.0
    hu[(x / 0.1) ** 2 + ((y - 0.42) / 0.1) ** 2 < 1] = 600.0  # vertebra
    if nodule is not None:
        d2 = (
            (x - nodule.side * 0.42 - 0.5 * nodule.u * width) ** 2
            + y**2
            + (0.5 * (z - nodule.v)) ** 2
        )
        hu = np.where(d2 < nodule.radius**2, np.maximum(hu, -860.0 + 900.0 * nodule.contrast), hu)
    return gaussian_filter(hu, 0.6) + rng.normal(0, 22.0, hu.shape)


def _grid(rows: int, cols: int, dx: float, dy: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:rows, 0:cols].astype(float)
    return (x - (cols - 1) / 2) / (cols / 2) - dx, (y - (rows - 1) / 2) / (rows / 2) - dy


def _lung(anatomy: Anatomy, side: int) -> tuple[float, float, float, float]:
    width = anatomy.lung * (1 + side * anatomy.lean)
    return side * 0.43, -0.08, width, 0.60


def _inside(level: np.ndarray, softness: float) -> np.ndarray:
    """1 where level < 1, 0 elsewhere, with a soft edge (float64 from 0 to 1)."""
    return 1 / (1 + np.exp(np.clip((level - 1) / softness, -40, 40)))


def _ribs(x: np.ndarray, y: np.ndarray, phase: float) -> np.ndarray:
    """Eight pairs of arcs that slope down towards the side."""
    height = (y + 0.9 - phase - 0.45 * x**2) / 0.2
    return np.where(
        (height > -0.5) & (height < 7.5), np.exp(-(((height - np.round(height)) / 0.16) ** 2)), 0.0
    )
