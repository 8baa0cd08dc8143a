"""One map of coordinates for rotation, tilt, scale, shear, shift, flips, elastic deformation and
crop; masks, points and boxes follow it.
"""

from __future__ import annotations

import itertools

import keras
from keras import ops

from data_pipelines.augment.bspline import field, field_at
from data_pipelines.augment.interpolation import interpolate
from data_pipelines.augment.spec import AugmentSpec, axis_pairs, check_fill, check_spacing
from data_pipelines.augment.tensors import Parameters, Tensor, per_image

GEOMETRY = ("rotation", "tilt", "zoom", "shear", "shift", "flip", "elastic", "crop", "pad")
DEGREE = 3.141592653589793 / 180.0
Spacing = tuple[float, ...]
#: The linear part of a map: rows of entries that are tensors (batch,), or the numbers 0.0 and 1.0,
#: which are known before anything is drawn.
Matrix = list[list[Tensor]]


def has_geometry(params: Parameters) -> bool:
    """Whether the parameters move any pixel."""
    return any(name in params for name in GEOMETRY)


def warp(
    image: Tensor, params: Parameters, spec: AugmentSpec, spacing: Spacing | None = None
) -> Tensor:
    """image (batch, [slices,] rows, columns, channels) float32, moved with one interpolation;
    `spec.fill` outside.

    The image is mirrored, zoomed, sheared, tilted and rotated about its center (in mm if `spacing`
    gives the length of a pixel along each axis), then shifted, deformed, and cropped. If every
    parameter is zero, the image comes back unchanged, to the bit.
    """
    if not has_geometry(params):
        return image
    positions = coordinates(params, spec, tuple(image.shape[1:-1]), spacing)
    return interpolate(image, positions, spec.fill, nearest=spec.interpolation == "nearest")


def warp_mask(
    mask: Tensor,
    params: Parameters,
    spec: AugmentSpec,
    spacing: Spacing | None = None,
    *,
    fill: float = 0,
) -> Tensor:
    """mask (batch, [slices,] rows, columns, channels) of any dtype, moved with its image: nearest
    value, `fill` outside.

    Raises SpecError (code fill) if the dtype cannot hold the fill value.
    """
    check_fill(fill, keras.backend.standardize_dtype(mask.dtype))
    if not has_geometry(params):
        return mask
    positions = coordinates(params, spec, tuple(mask.shape[1:-1]), spacing)
    return interpolate(mask, positions, fill, nearest=True)


def coordinates(
    params: Parameters, spec: AugmentSpec, shape: tuple[int, ...], spacing: Spacing | None = None
) -> list[Tensor]:
    """For each axis, the position in the image that each pixel of the result comes from, in pixels:
    float32, broadcast to (batch, *size). shape: spatial size of the image.
    """
    dims, size = len(shape), spec.size(shape)
    matrix = _matrix(params, dims, spacing, inverse=True)
    centers = [(side - 1) / 2 for side in shape]
    origin, shift = _origin(params, spec, shape), _shift(params, shape)
    offsets = []
    for axis in range(dims):
        along_axis = (1,) * (axis + 1) + (size[axis],) + (1,) * (dims - 1 - axis)
        index = ops.reshape(ops.arange(size[axis], dtype="float32"), along_axis)
        offsets.append(index - centers[axis] + _broadcast(origin[axis] - shift[axis], dims))
    positions = []
    for axis in range(dims):
        terms = [
            offset if _is(entry, 1.0) else _broadcast(entry, dims) * offset
            for entry, offset in zip(matrix[axis], offsets, strict=True)
            if not _is(entry, 0.0)
        ]
        position = sum(terms[1:], terms[0]) + centers[axis]
        if "elastic" in params:
            position = position + field(_displacement(params, spec, size, axis), size)
        positions.append(position)
    return positions


def move_points(
    points: Tensor,
    params: Parameters,
    spec: AugmentSpec,
    shape: tuple[int, ...],
    spacing: Spacing | None = None,
) -> Tensor:
    """Where points (batch, n, dims) in pixels of the image lie in the result: the inverse of
    `coordinates`, float32 (batch, n, dims).

    shape: spatial size of the image. Exact without elastic deformation; with it, 16 steps of a
    contraction (error below 0.01 pixel).
    """
    dims, size = len(shape), spec.size(shape)
    points = ops.cast(points, "float32")
    matrix = _matrix(params, dims, spacing, inverse=False)
    origin, shift = _origin(params, spec, shape), _shift(params, shape)

    def forward(source: Tensor) -> Tensor:
        centered = [source[..., axis] - (shape[axis] - 1) / 2 for axis in range(dims)]
        positions = []
        for axis in range(dims):
            total = sum(
                _broadcast(entry, 1) * value
                for entry, value in zip(matrix[axis], centered, strict=True)
            )
            offset = _broadcast(shift[axis] - origin[axis], 1)
            positions.append(total + (shape[axis] - 1) / 2 + offset)
        return ops.stack(positions, axis=-1)

    moved = forward(points)
    if "elastic" in params:
        for _ in range(16):
            bend = [
                field_at(_displacement(params, spec, size, axis), moved, size)
                for axis in range(dims)
            ]
            moved = forward(points - ops.stack(bend, axis=-1))
    return moved


def move_boxes(
    boxes: Tensor,
    params: Parameters,
    spec: AugmentSpec,
    shape: tuple[int, ...],
    spacing: Spacing | None = None,
) -> Tensor:
    """Boxes around the moved contents of boxes (batch, n, 2 * dims): the low corner, then the high
    corner, in pixels. Returns float32 of the same shape; n may be 0.

    Edges are coordinates of pixel centers: [r0, c0, r1, c1] holds the pixels r0..r1 and c0..c1. For
    half-open edges, as COCO and detectors have them, see `move_edge_boxes`. Results are clipped to
    the image; a box that has left it has its high corner below its low one. shape: spatial size of
    the image.
    """
    low, high = _hulls(boxes, params, spec, shape, spacing)
    last = ops.convert_to_tensor([float(side - 1) for side in spec.size(shape)])
    return ops.concatenate([ops.maximum(low, 0.0), ops.minimum(high, last)], axis=-1)


def move_edge_boxes(
    boxes: Tensor,
    params: Parameters,
    spec: AugmentSpec,
    shape: tuple[int, ...],
    spacing: Spacing | None = None,
    *,
    min_visible: float = 0.25,
) -> tuple[Tensor, Tensor]:
    """Half-open boxes moved with their image, and which of them can still be seen.

    boxes: (batch, n, 2 * dims), the low corner, then the high corner, as edges: 0 is the outer edge
        of the first pixel, so that [r0, c0, r1, c1] holds the pixels r0..r1 - 1 and c0..c1 - 1.
        `EdgeBoxes.corners_by_axis` has this order. n may be 0.
    shape: spatial size of the image. min_visible: share (0..1) of the area of a moved box that must
        be inside of the image.

    Returns float32 boxes of the same shape, clipped to the image, and bool (batch, n): true where
    at least `min_visible` of the box, and a part of it, is inside. The others are boxes of nothing:
    leave them out of the loss. A box that is turned becomes the box around it.
    """
    low, high = _hulls(ops.cast(boxes, "float32") - 0.5, params, spec, shape, spacing)
    low, high = low + 0.5, high + 0.5
    size = ops.convert_to_tensor([float(side) for side in spec.size(shape)])
    inner_low, inner_high = ops.clip(low, 0.0, size), ops.clip(high, 0.0, size)
    area = ops.prod(inner_high - inner_low, axis=-1)
    visible = (area > 0.0) & (area >= min_visible * ops.prod(high - low, axis=-1))
    return ops.concatenate([inner_low, inner_high], axis=-1), visible


def _hulls(
    boxes: Tensor,
    params: Parameters,
    spec: AugmentSpec,
    shape: tuple[int, ...],
    spacing: Spacing | None,
) -> tuple[Tensor, Tensor]:
    """The low and high corners (batch, n, dims) of the boxes around moved boxes, in coordinates of
    pixel centers.
    """
    dims, steps = len(shape), 5 if "elastic" in params else 2
    boxes = ops.cast(boxes, "float32")
    batch, count = ops.shape(boxes)[0], ops.shape(boxes)[1]
    low, high = ops.expand_dims(boxes[..., :dims], 2), ops.expand_dims(boxes[..., dims:], 2)
    lattice = ops.convert_to_tensor(
        list(itertools.product([i / (steps - 1) for i in range(steps)], repeat=dims))
    )
    points = low + (high - low) * ops.cast(lattice, "float32")
    flat = ops.reshape(points, (batch, count * steps**dims, dims))  # sizes in full: n may be 0
    moved = move_points(flat, params, spec, shape, spacing)
    moved = ops.reshape(moved, (batch, count, steps**dims, dims))
    infinite = float("inf")  # an initial value: Keras refuses the minimum of no boxes without one
    return ops.min(moved, 2, initial=infinite), ops.max(moved, 2, initial=-infinite)


def _origin(params: Parameters, spec: AugmentSpec, shape: tuple[int, ...]) -> list[Tensor]:
    """First pixel of the crop along each axis: whole pixels."""
    if "crop" not in params:
        return [0.0] * len(shape)
    starts = [side - size + 1 for side, size in zip(shape, spec.size(shape), strict=True)]
    return [ops.floor(params["crop"][:, axis] * starts[axis]) for axis in range(len(shape))]


def _shift(params: Parameters, shape: tuple[int, ...]) -> list[Tensor]:
    """Shift along each axis, in pixels."""
    shift: list[Tensor] = [0.0] * len(shape)
    if "shift" in params:
        shift = [params["shift"][:, axis] * side for axis, side in enumerate(shape)]
    if "pad" in params:
        shift = [moved + params["pad"][:, axis] for axis, moved in enumerate(shift)]
    return shift


def _displacement(
    params: Parameters, spec: AugmentSpec, size: tuple[int, ...], axis: int
) -> Tensor:
    """Control values of the elastic deformation along one axis, in pixels."""
    return params["elastic"][..., axis] * (size[axis] / spec.elastic_cells)


def _matrix(params: Parameters, dims: int, spacing: Spacing | None, *, inverse: bool) -> Matrix:
    """The linear part of the map, in pixels.

    Entries are added one by one: matrix products may be rounded to TF32 on a GPU, and coordinates
    need all of float32.
    """
    check_spacing(spacing, dims)
    sign = -1.0 if inverse else 1.0
    factors = []
    if "rotation" in params:
        factors.append(_rotation(dims, dims - 2, dims - 1, sign * params["rotation"][:, 0]))
    if "tilt" in params:
        factors += [_rotation(3, 0, axis, sign * params["tilt"][:, axis - 1]) for axis in (1, 2)]
    if "shear" in params:
        factors += [
            _identity(dims, {pair: sign * params["shear"][:, i]})
            for i, pair in enumerate(axis_pairs(dims))
        ]
    if "zoom" in params:
        zoom = 1.0 + params["zoom"][:, 0]
        factors.append(_diagonal([1.0 / zoom if inverse else zoom] * dims))
    if "flip" in params:
        factors.append(_diagonal([params["flip"][:, axis] for axis in range(dims)]))
    product = _identity(dims)
    for factor in reversed(factors) if inverse else factors:
        product = _multiply(product, factor)
    if spacing is None:
        return product
    return [
        [_scaled(product[i][j], spacing[j] / spacing[i]) for j in range(dims)] for i in range(dims)
    ]


def _identity(dims: int, changes: dict[tuple[int, int], Tensor] | None = None) -> Matrix:
    """The identity, with some entries changed."""
    matrix: Matrix = [[1.0 if i == j else 0.0 for j in range(dims)] for i in range(dims)]
    for (i, j), entry in (changes or {}).items():
        matrix[i][j] = entry
    return matrix


def _diagonal(entries: list[Tensor]) -> Matrix:
    return _identity(len(entries), {(i, i): entry for i, entry in enumerate(entries)})


def _rotation(dims: int, i: int, j: int, degrees: Tensor) -> Matrix:
    """Rotation in the plane of two axes."""
    cos, sin = ops.cos(degrees * DEGREE), ops.sin(degrees * DEGREE)
    return _identity(dims, {(i, i): cos, (i, j): -sin, (j, i): sin, (j, j): cos})


def _multiply(a: Matrix, b: Matrix) -> Matrix:
    return [[_dot(row, column) for column in zip(*b, strict=True)] for row in a]


def _dot(row: list[Tensor], column: tuple[Tensor, ...]) -> Tensor:
    total: Tensor = 0.0
    for x, y in zip(row, column, strict=True):
        if not (_is(x, 0.0) or _is(y, 0.0)):
            total = x * y if _is(total, 0.0) else total + x * y
    return total


def _scaled(entry: Tensor, ratio: float) -> Tensor:
    return entry if ratio == 1.0 else entry * ratio


def _is(entry: Tensor, value: float) -> bool:
    """Whether an entry is this number, known before anything is drawn."""
    return isinstance(entry, float) and entry == value


def _broadcast(value: Tensor, dims: int) -> Tensor:
    """(batch,) -> (batch, 1, ... per axis); numbers as they are."""
    return value if isinstance(value, float) else per_image(value, dims + 1)
