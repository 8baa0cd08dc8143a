"""How large the piece of a mask's surface is that passes between neighboring voxels.

Each group of 2 x 2 x 2 voxels (2 x 2 pixels) is a cube whose corners are inside or outside. By
marching cubes the surface meets those edges of the cube that join both, at their middle. Where a
face leaves a choice, the corners of the rarer kind in the cube are cut off one by one. Polygons of
the surface are divided into triangles such that the area in the unit cube is greatest. This gives
the areas of DeepMind's surface-distance (Nikolov and others 2021), which benchmarks/masks_peers.py
shows.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, ...]
Segment = tuple[Point, Point]
FloatArray = NDArray[np.float64]


def element_sizes(spacing: tuple[float, ...]) -> FloatArray:
    """(2 ** n,) the area in mm2 (the length in mm in two dimensions) of the surface within a group
    of voxels, by its code: the bit i is set if `corners(n)[i]` is inside. spacing: n values in mm.

    >>> float(element_sizes((1.0, 2.0))[0b0011])  # two neighbors along the second axis
    2.0
    """
    scale = np.prod(spacing) / np.asarray(spacing, np.float64)
    return np.array(
        [
            sum(np.linalg.norm(normal * scale) for normal in normals)
            for normals in _normals(len(spacing))
        ]
    )


def corners(n_axes: int) -> list[tuple[int, ...]]:
    """The corners of a group of voxels, in the order of the bits of its code."""
    return list(product((0, 1), repeat=n_axes))


@cache
def _normals(n_axes: int) -> tuple[tuple[FloatArray, ...], ...]:
    """Normals of the pieces of the surface for each code; their length is the size of the piece."""
    make = _line_normals if n_axes == 2 else _triangle_normals
    codes = range(2**2**n_axes)
    return tuple(tuple(make(_inside(code, n_axes))) for code in codes)


def _inside(code: int, n_axes: int) -> dict[Point, bool]:
    return {corner: bool(code >> bit & 1) for bit, corner in enumerate(corners(n_axes))}


def _line_normals(inside: dict[Point, bool]) -> list[FloatArray]:
    square: list[Point] = [(0, 0), (0, 1), (1, 1), (1, 0)]
    lines = _cut(square, inside, rare=True)
    return [np.array([b[1] - a[1], b[0] - a[0]]) for a, b in lines]


def _triangle_normals(inside: dict[Point, bool]) -> list[FloatArray]:
    rare = sum(inside.values()) <= 4
    lines = [line for face in _faces() for line in _cut(face, inside, rare=rare)]
    return [normal for polygon in _polygons(lines) for normal in _largest(polygon)]


@cache
def _faces() -> tuple[list[Point], ...]:
    """The corners of each face of the unit cube, in circular order."""
    faces: list[list[Point]] = []
    for axis, side in product(range(3), (0, 1)):
        around = ((0, 0), (0, 1), (1, 1), (1, 0))
        faces.append([(*pair[:axis], side, *pair[axis:]) for pair in around])
    return tuple(faces)


def _cut(face: list[Point], inside: dict[Point, bool], *, rare: bool) -> list[Segment]:
    """The lines in which the surface meets a face. rare: whether corners inside are cut off where
    two opposite ones are."""
    middle = [
        tuple((np.asarray(a) + np.asarray(b)) / 2.0)
        for a, b in zip(face, [*face[1:], face[0]], strict=True)
    ]
    change = [i for i in range(4) if inside[face[i]] != inside[face[(i + 1) % 4]]]
    if len(change) < 4:
        return [(middle[change[0]], middle[change[1]])] if change else []
    return [(middle[i - 1], middle[i]) for i in range(4) if inside[face[i]] == rare]


def _polygons(lines: list[Segment]) -> list[list[Point]]:
    """Lines joined end to end; each point is on two lines."""
    remaining, polygons = list(lines), []
    while remaining:
        first, point = remaining.pop()
        polygon = [first]
        while point != first:
            polygon.append(point)
            line = next(line for line in remaining if point in line)
            remaining.remove(line)
            point = line[1] if line[0] == point else line[0]
        polygons.append(polygon)
    return polygons


def _largest(polygon: list[Point]) -> list[FloatArray]:
    """The triangles of a polygon whose areas have the greatest sum, as normals."""
    if len(polygon) < 3:
        return []
    a, b = polygon[0], polygon[-1]
    choices = []
    for i in range(1, len(polygon) - 1):
        side = np.asarray(polygon[i]) - a
        triangle = np.cross(side, np.asarray(b) - a) / 2.0
        choices.append([triangle, *_largest(polygon[: i + 1]), *_largest(polygon[i:])])
    return max(choices, key=lambda normals: sum(np.linalg.norm(normal) for normal in normals))
