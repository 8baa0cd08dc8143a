"""One map of coordinates for rotation, tilt, scale, shear, shift, flips, elastic deformation and
crop; masks and boxes follow it.
"""

from __future__ import annotations

import itertools
from typing import Any

import keras
from keras import ops

from data_pipelines.augment.bspline import field, field_at
from data_pipelines.augment.interpolation import sample
from data_pipelines.augment.spec import AugmentSpec, check_fill, check_spacing, pairs

GEOMETRY = ("rotation", "tilt", "zoom", "shear", "shift", "flip", "elastic", "crop")
DEGREE = 3.141592653589793 / 180.0
Spacing = tuple[float, ...]


def moves(drawn: dict[str, Any]) -> bool:
    return any(name in drawn for name in GEOMETRY)


def warp(image, drawn: dict[str, Any], spec: AugmentSpec, spacing: Spacing | None = None):
    """image (batch, [slices,] rows, cols, channels) float32, moved as drawn with one interpolation;
    `spec.fill` outside.

    The picture is mirrored, zoomed, sheared, tilted, rotated about its centre, in mm where
    `spacing` (an axis each) is given, then shifted, deformed, and cropped. With every parameter at
    rest the image comes back unchanged, to the bit.
    """
    if not moves(drawn):
        return image
    places = coordinates(drawn, spec, tuple(image.shape[1:-1]), spacing)
    return sample(image, places, spec.fill, nearest=spec.interpolation == "nearest")


def warp_mask(
    mask,
    drawn: dict[str, Any],
    spec: AugmentSpec,
    spacing: Spacing | None = None,
    *,
    fill: float = 0,
):
    """mask (batch, [slices,] rows, cols, channels) of any dtype, moved with its image: nearest
    value, `fill` outside.

    Raises SpecError where the dtype cannot hold the fill value.
    """
    check_fill(fill, keras.backend.standardize_dtype(mask.dtype))
    if not moves(drawn):
        return mask
    return sample(
        mask, coordinates(drawn, spec, tuple(mask.shape[1:-1]), spacing), fill, nearest=True
    )


def coordinates(
    drawn: dict[str, Any], spec: AugmentSpec, shape: tuple[int, ...], spacing: Spacing | None = None
) -> list:
    """For each axis where each pixel of the result comes from, in pixels of the image: float32,
    broadcast to (batch, *size).
    """
    dims, size = len(shape), spec.size(shape)
    matrix = _matrix(drawn, dims, spacing, inverse=True)
    centres = [(side - 1) / 2 for side in shape]
    origin, shift = _origin(drawn, spec, shape), _shift(drawn, shape)
    offsets = []
    for axis in range(dims):
        place = (1,) * (axis + 1) + (size[axis],) + (1,) * (dims - 1 - axis)
        index = ops.reshape(ops.arange(size[axis], dtype="float32"), place)
        offsets.append(index - centres[axis] + _column(origin[axis] - shift[axis], dims))
    found = []
    for axis in range(dims):
        terms = [
            offset if _is(entry, 1.0) else _column(entry, dims) * offset
            for entry, offset in zip(matrix[axis], offsets, strict=True)
            if not _is(entry, 0.0)
        ]
        place = sum(terms[1:], terms[0]) + centres[axis]
        if "elastic" in drawn:
            place = place + field(
                drawn["elastic"][..., axis] * (size[axis] / spec.elastic_cells), size
            )
        found.append(place)
    return found


def move_points(
    points,
    drawn: dict[str, Any],
    spec: AugmentSpec,
    shape: tuple[int, ...],
    spacing: Spacing | None = None,
):
    """Where points (batch, n, dims) in pixels of the image lie in the result: the inverse of
    `coordinates`, float32.

    shape: spatial size of the image. Exact without elastic deformation; with it, 16 steps of a
        contraction (error below 0.01 pixel).
    """
    dims, size = len(shape), spec.size(shape)
    points = ops.cast(points, "float32")
    matrix = _matrix(drawn, dims, spacing, inverse=False)
    origin, shift = _origin(drawn, spec, shape), _shift(drawn, shape)

    def forward(source):
        centred = [source[..., axis] - (shape[axis] - 1) / 2 for axis in range(dims)]
        placed = []
        for axis in range(dims):
            total = sum(
                _column(entry, 1) * value
                for entry, value in zip(matrix[axis], centred, strict=True)
            )
            placed.append(total + (shape[axis] - 1) / 2 + _column(shift[axis] - origin[axis], 1))
        return ops.stack(placed, axis=-1)

    moved = forward(points)
    if "elastic" in drawn:
        for _ in range(16):
            bent = [
                field_at(
                    drawn["elastic"][..., axis] * (size[axis] / spec.elastic_cells), moved, size
                )
                for axis in range(dims)
            ]
            moved = forward(points - ops.stack(bent, axis=-1))
    return moved


def move_boxes(
    boxes,
    drawn: dict[str, Any],
    spec: AugmentSpec,
    shape: tuple[int, ...],
    spacing: Spacing | None = None,
):
    """Boxes around the moved contents of boxes (batch, n, 2 * dims): the low corner, then the high
    one, in pixels.

    Edges are coordinates of pixel centres: [r0, c0, r1, c1] holds the pixels r0..r1 and c0..c1.
    Results are cut to the image; a box that has left it has its high corner below its low one.
    """
    dims, steps = len(shape), 5 if "elastic" in drawn else 2
    boxes = ops.cast(boxes, "float32")
    low, high = ops.expand_dims(boxes[..., :dims], 2), ops.expand_dims(boxes[..., dims:], 2)
    lattice = ops.convert_to_tensor(
        list(itertools.product([i / (steps - 1) for i in range(steps)], repeat=dims))
    )
    points = low + (high - low) * ops.cast(lattice, "float32")
    count = points.shape[1] * points.shape[2]
    moved = move_points(ops.reshape(points, (-1, count, dims)), drawn, spec, shape, spacing)
    moved = ops.reshape(moved, (-1, points.shape[1], points.shape[2], dims))
    last = ops.convert_to_tensor([float(side - 1) for side in spec.size(shape)])
    return ops.concatenate(
        [ops.maximum(ops.min(moved, 2), 0.0), ops.minimum(ops.max(moved, 2), last)], axis=-1
    )


def _origin(drawn: dict[str, Any], spec: AugmentSpec, shape: tuple[int, ...]) -> list:
    """First pixel of the crop along each axis: whole pixels."""
    if "crop" not in drawn:
        return [0.0] * len(shape)
    room = [side - size + 1 for side, size in zip(shape, spec.size(shape), strict=True)]
    return [ops.floor(drawn["crop"][:, axis] * room[axis]) for axis in range(len(shape))]


def _shift(drawn: dict[str, Any], shape: tuple[int, ...]) -> list:
    return [
        drawn["shift"][:, axis] * side if "shift" in drawn else 0.0
        for axis, side in enumerate(shape)
    ]


def _matrix(
    drawn: dict[str, Any], dims: int, spacing: Spacing | None, *, inverse: bool
) -> list[list]:
    """The linear part in pixels, rows of entries that are (batch,) or plain 0.0 and 1.0.

    Entries are added by hand: matrix products may be rounded to TF32 on a GPU, and coordinates need
    all of float32.
    """
    check_spacing(spacing, dims)
    sign = -1.0 if inverse else 1.0
    factors = []
    if "rotation" in drawn:
        factors.append(_turn(dims, dims - 2, dims - 1, sign * drawn["rotation"][:, 0]))
    if "tilt" in drawn:
        factors += [_turn(3, 0, axis, sign * drawn["tilt"][:, axis - 1]) for axis in (1, 2)]
    if "shear" in drawn:
        factors += [
            _put(_eye(dims), {pair: sign * drawn["shear"][:, i]})
            for i, pair in enumerate(pairs(dims))
        ]
    if "zoom" in drawn:
        zoom = 1.0 + drawn["zoom"][:, 0]
        factors.append(
            _put(_eye(dims), {(i, i): 1.0 / zoom if inverse else zoom for i in range(dims)})
        )
    if "flip" in drawn:
        factors.append(_put(_eye(dims), {(i, i): drawn["flip"][:, i] for i in range(dims)}))
    product = _eye(dims)
    for factor in reversed(factors) if inverse else factors:
        product = _times(product, factor)
    if spacing is None:
        return product
    return [
        [_scaled(product[i][j], spacing[j] / spacing[i]) for j in range(dims)] for i in range(dims)
    ]


def _turn(dims: int, i: int, j: int, degrees) -> list[list]:
    cos, sin = ops.cos(degrees * DEGREE), ops.sin(degrees * DEGREE)
    return _put(_eye(dims), {(i, i): cos, (i, j): -sin, (j, i): sin, (j, j): cos})


def _eye(dims: int) -> list[list]:
    return [[1.0 if i == j else 0.0 for j in range(dims)] for i in range(dims)]


def _put(matrix: list[list], entries: dict) -> list[list]:
    for (i, j), entry in entries.items():
        matrix[i][j] = entry
    return matrix


def _times(a: list[list], b: list[list]) -> list[list]:
    return [[_dot(row, column) for column in zip(*b, strict=True)] for row in a]


def _dot(row: list, column: tuple):
    total: Any = 0.0
    for x, y in zip(row, column, strict=True):
        if not (_is(x, 0.0) or _is(y, 0.0)):
            total = x * y if _is(total, 0.0) else total + x * y
    return total


def _is(entry, value: float) -> bool:
    """Is this the plain number, known before anything is drawn?"""
    return isinstance(entry, float) and entry == value


def _scaled(entry, ratio: float):
    return entry if ratio == 1.0 else entry * ratio


def _column(value, dims: int):
    """(batch,) -> (batch, 1, ... one an axis); plain numbers as they are."""
    return value if isinstance(value, float) else ops.reshape(value, (-1,) + (1,) * dims)
