"""An image and its label map or its boxes, moved by one draw; and patches that hold foreground in a
stated share.

Geometry moves both, the label map to the nearest value; degradations, gray values and cutout change
the image alone. What comes from outside the image has the label IGNORED.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from data_pipelines.augment.layer import apply
from data_pipelines.augment.parameters import draw
from data_pipelines.augment.philox import uniforms
from data_pipelines.augment.spatial import (
    Spacing,
    has_geometry,
    move_edge_boxes,
    move_points,
    warp_mask,
)
from data_pipelines.augment.spec import AugmentSpec
from data_pipelines.augment.tensors import Parameters, Tensor

IGNORED = -1  # a label that losses and metrics leave out
IGNORED_BOX, NO_BOX = -2, -1  # classes of a region to ignore, and of a line without a box
AIM_STREAM = 26  # of the random numbers of `aimed`; see `data_pipelines.augment.parameters.RULES`


def apply_to_pair(
    image: Tensor,
    mask: Tensor,
    params: Parameters,
    spec: AugmentSpec,
    spacing: Spacing | None = None,
) -> tuple[Tensor, Tensor]:
    """The image as `apply` gives it, and its label map int32 (batch, [slices,] rows, columns),
    moved by the same parameters; IGNORED outside.
    """
    moved = warp_mask(ops.expand_dims(mask, -1), params, spec, spacing, fill=IGNORED)
    return apply(image, params, spec, spacing), moved[..., 0]


def apply_to_boxes(
    image: Tensor,
    boxes: Tensor,
    params: Parameters,
    spec: AugmentSpec,
    *,
    min_visible: float = 0.25,
) -> tuple[Tensor, Tensor]:
    """The image as `apply` gives it, and its boxes moved by the same parameters and clipped to it.

    boxes: float32 (batch, lines, 5), x_min, y_min, x_max, y_max (edges in pixels) and the class;
        there may be no line. An object of which less than `min_visible` of its area is left becomes
        a region to ignore (IGNORED_BOX): it is neither an object nor background. One of which
        nothing is left becomes a line without a box (NO_BOX).
    """
    moved_image = apply(image, params, spec)
    if not has_geometry(params):
        return moved_image, boxes
    shape = tuple(image.shape[1:-1])
    by_axis = ops.take(boxes, [1, 0, 3, 2], axis=-1)
    by_axis, visible = move_edge_boxes(by_axis, params, spec, shape, min_visible=min_visible)
    is_box = (boxes[..., 4] != NO_BOX) & (ops.prod(by_axis[..., 2:] - by_axis[..., :2], -1) > 0)
    label = ops.where(visible, boxes[..., 4], float(IGNORED_BOX))
    moved = ops.concatenate([ops.take(by_axis, [1, 0, 3, 2], axis=-1), label[..., None]], axis=-1)
    return moved_image, ops.where(is_box[..., None], moved, float(NO_BOX))


def aimed(mask: Tensor, params: Parameters, spec: AugmentSpec, share: float) -> Parameters:
    """The parameters with a crop that holds a foreground voxel (a label above 0) for a share of the
    images; the others keep the crop that was drawn, uniform over the image.

    The voxel is uniform among those of the image, and its place in the patch is uniform too, as far
    as the image reaches. All is a function of the key and the label map. Elastic deformation may
    move the voxel by a few pixels. An image without foreground keeps its crop.
    """
    if spec.crop is None or not share:
        return params
    shape = tuple(mask.shape[1:])
    dims = len(shape)
    (u,) = uniforms(params["key"], [(AIM_STREAM, 2 + dims)])
    flat = ops.reshape(ops.cast(mask > 0, "int32"), (-1, math.prod(shape)))
    below = ops.cumsum(flat, axis=1)
    count = below[:, -1]
    rank = ops.cast(u[:, 1] * ops.cast(count, "float32"), "int32")
    index = ops.sum(ops.cast(below <= rank[:, None], "int32"), axis=1)
    point: list[Tensor] = []
    for side in reversed(shape):
        point.insert(0, ops.cast(index % side, "float32"))
        index = index // side
    rest = {name: value for name, value in params.items() if name not in ("crop", "elastic")}
    whole = spec.model_copy(update={"crop": None})
    moved = move_points(ops.stack(point, axis=-1)[:, None], rest, whole, shape)[:, 0]
    crops = []
    for axis, (side, size) in enumerate(zip(shape, spec.crop, strict=True)):
        start = ops.round(moved[:, axis]) - ops.floor(u[:, 2 + axis] * size)
        start = ops.clip(start, 0.0, float(side - size))
        crops.append((start + 0.5) / (side - size + 1))
    aims = (u[:, 0] < share) & (count > 0)
    crop = ops.where(aims[:, None], ops.stack(crops, axis=-1), params["crop"])
    return params | {"crop": crop}


@functools.lru_cache(maxsize=32)
def compiled_pair(
    spec: AugmentSpec, share: float = 0.0, spacing: Spacing | None = None
) -> Callable[..., tuple[Tensor, Tensor]]:
    """A function (image, mask, key) -> (image, mask) that draws and applies, compiled by XLA by
    itself (see `data_pipelines.augment.layer.compiled`). share: see `aimed`.
    """

    def augmented(image: Tensor, mask: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        params = draw(key, spec, len(image.shape) - 2)
        return apply_to_pair(image, mask, aimed(mask, params, spec, share), spec, spacing)

    return _compiled(augmented)


@functools.lru_cache(maxsize=32)
def compiled_boxes(spec: AugmentSpec) -> Callable[..., tuple[Tensor, Tensor]]:
    """A function (image, boxes, key) -> (image, boxes) that draws and applies (`apply_to_boxes`),
    compiled by XLA by itself.
    """

    def augmented(image: Tensor, boxes: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return apply_to_boxes(image, boxes, draw(key, spec, len(image.shape) - 2), spec)

    return _compiled(augmented)


def _compiled(augmented: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    if keras.backend.backend() != "tensorflow":
        return augmented
    import tensorflow as tf

    return tf.function(augmented, jit_compile=True, autograph=False)
