"""Vessels of the synthetic lungs: a tree in a radiograph, cross-sections in a CT slice.

They belong to the patient: every image of one anatomy has the same tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

_STEP = 0.005  # between the points of a branch, in half-widths of the image
_GENERATIONS = 4


class Branch(NamedTuple):
    """A straight piece. Positions and lengths are in half-widths of the image."""

    x: float
    y: float
    angle: float
    length: float
    width: float


def tree(rng: np.random.Generator, side: int, x: float, y: float) -> list[Branch]:
    """The branches of one lung, from its hilum at (x, y) outwards. side: -1 or 1."""
    outwards = 0.0 if side > 0 else np.pi
    trunks = [
        Branch(x, y, outwards + side * turn, 0.17, 0.017)
        for turn in np.linspace(-1.25, 1.35, 6) + rng.uniform(-0.12, 0.12, 6)
    ]
    return [branch for trunk in trunks for branch in _grown(rng, trunk, _GENERATIONS)]


def _grown(rng: np.random.Generator, branch: Branch, generations: int) -> Iterator[Branch]:
    yield branch
    if generations == 0:
        return
    x = branch.x + branch.length * np.cos(branch.angle)
    y = branch.y + branch.length * np.sin(branch.angle)
    for turn in (-rng.uniform(0.2, 0.55), rng.uniform(0.2, 0.55)):
        length = branch.length * rng.uniform(0.65, 0.85)
        grown = Branch(x, y, branch.angle + turn, length, 0.7 * branch.width)
        yield from _grown(rng, grown, generations - 1)


def draw_tree(
    branches: list[Branch], x: np.ndarray, y: np.ndarray, strength: float = 1.0
) -> np.ndarray:
    """The tree as an image, float64 like `x`, about `strength` in the middle of a trunk and less in
    thin branches.

    x, y: the coordinates of the pixel centers, in half-widths.
    """
    pixel = x[0, 1] - x[0, 0]
    image = np.zeros_like(x)
    for width in sorted({branch.width for branch in branches}):
        points = np.zeros_like(x)
        across, down = _points([branch for branch in branches if branch.width == width])
        _add_points(points, (down - y[0, 0]) / (y[1, 0] - y[0, 0]), (across - x[0, 0]) / pixel)
        sigma = max(width / pixel, 0.5)
        peak = np.sqrt(2 * np.pi) * sigma * _STEP / pixel  # of a line of points
        image += strength * (width / 0.017) ** 0.8 * peak * gaussian_filter(points, sigma)
    return image


def _points(branches: list[Branch]) -> tuple[np.ndarray, np.ndarray]:
    """Points along all branches, x and y."""
    x, y, angle, length, _ = np.array(branches).T
    counts = np.ceil(length / _STEP).astype(int)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    along, angles = number * _STEP, np.repeat(angle, counts)
    return (
        np.repeat(x, counts) + along * np.cos(angles),
        np.repeat(y, counts) + along * np.sin(angles),
    )


def cross_sections(
    rng: np.random.Generator, x: np.ndarray, z: float, lungs: list[tuple[float, float, float]]
) -> np.ndarray:
    """Round sections of vessels in a CT slice, float64 like `x`, up to 1.

    lungs: center, half-width and half-height of each lung in this slice. Vessels that are thick lie
    near the mediastinum, and all move a little from slice to slice.
    """
    image, half = np.zeros_like(x), x.shape[0] / 2
    for center, width, height in lungs:
        far, angle = np.sqrt(rng.uniform(0.02, 0.85, 26)), rng.uniform(0, 2 * np.pi, 26)
        drift = rng.uniform(-0.5, 0.5, (2, 26)) * z
        across = far * np.cos(angle) + drift[0]
        columns = half + half * (center + width * across) - 0.5
        rows = half + half * height * (far * np.sin(angle) + drift[1]) - 0.5
        nearness = np.clip(0.5 - 0.5 * across * np.sign(center), 0, 1)
        for radius, chosen in ((0.008, nearness < 0.6), (0.014, nearness >= 0.6)):
            points = np.zeros_like(x)
            _add_points(points, rows[chosen], columns[chosen])
            sigma = max(radius * half, 0.5)
            image += 2 * np.pi * sigma**2 * gaussian_filter(points, sigma) * (radius / 0.014) ** 0.5
    return np.minimum(image, 1.0)


def _add_points(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """Count points in the pixels that hold them; those outside of the image are left out."""
    i, j = np.round(rows).astype(int), np.round(columns).astype(int)
    inside = (i >= 0) & (i < image.shape[0]) & (j >= 0) & (j < image.shape[1])
    np.add.at(image, (i[inside], j[inside]), 1.0)
