from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from helpers import raises_code
from scipy.interpolate import BSpline
from scipy.ndimage import affine_transform, map_coordinates

from data_pipelines.augment import AugmentSpec, apply, draw, move_boxes, move_points, warp_mask
from data_pipelines.augment.spatial import coordinates, warp
from data_pipelines.errors import SpecError

WIDE = 60


def arrays(key: np.ndarray, spec: AugmentSpec, dims: int) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in draw(key, spec, dims).items()}


def plane(angle: float, i: int, j: int, dims: int) -> np.ndarray:
    matrix, angle = np.eye(dims), np.deg2rad(angle)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


def forward_matrix(
    drawn: dict, i: int, dims: int, spacing: tuple[float, ...] | None = None
) -> np.ndarray:
    """From the image's frame to the result's, in float64; mm where spacing is given."""
    matrix = (
        plane(drawn["rotation"][i, 0], dims - 2, dims - 1, dims)
        if "rotation" in drawn
        else np.eye(dims)
    )
    if "tilt" in drawn:
        matrix = matrix @ plane(drawn["tilt"][i, 0], 0, 1, 3) @ plane(drawn["tilt"][i, 1], 0, 2, 3)
    if "shear" in drawn:
        for (a, b), amount in zip(
            [(0, 1)] if dims == 2 else [(0, 1), (0, 2), (1, 2)], drawn["shear"][i], strict=True
        ):
            one = np.eye(dims)
            one[a, b] = amount
            matrix = matrix @ one
    if "zoom" in drawn:
        matrix = matrix * (1 + drawn["zoom"][i, 0])
    if "flip" in drawn:
        matrix = matrix @ np.diag(drawn["flip"][i])
    if spacing is None:
        return matrix
    return np.diag(1 / np.array(spacing)) @ matrix @ np.diag(spacing)


def bend(control: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """The spline by SciPy's design matrix."""
    for axis, size in enumerate(sizes):
        cells = control.shape[axis] - 3
        design = BSpline.design_matrix(
            (np.arange(size) + 0.5) * cells / size, np.arange(-3, cells + 4), 3
        ).toarray()
        control = np.moveaxis(np.tensordot(design, control, (1, axis)), 0, axis)
    return control


def oracle(
    image: np.ndarray, drawn: dict, i: int, spec: AugmentSpec, spacing=None, order: int = 1
) -> np.ndarray:
    shape = image.shape
    size, dims = spec.crop or shape, len(shape)
    room = np.array(shape) - size
    origin = np.floor(drawn["crop"][i] * (room + 1)) if "crop" in drawn else np.zeros(dims)
    shift = drawn["shift"][i] * shape if "shift" in drawn else np.zeros(dims)
    center = (np.array(shape) - 1) / 2
    out = np.stack(np.meshgrid(*[np.arange(side, dtype=float) for side in size], indexing="ij"), -1)
    source = (out + origin - center - shift) @ np.linalg.inv(
        forward_matrix(drawn, i, dims, spacing)
    ).T + center
    if "elastic" in drawn:
        cell = np.array(size) / spec.elastic_cells
        source = source + np.stack(
            [bend(drawn["elastic"][i, ..., a] * cell[a], size) for a in range(dims)], -1
        )
    # A wide constant border makes SciPy blend with the fill value beyond the edge, as ours does.
    padded = np.pad(image.astype(float), WIDE, constant_values=spec.fill)
    return map_coordinates(padded, np.moveaxis(source, -1, 0) + WIDE, order=order)


@pytest.mark.parametrize("crop", [None, (11, 16)])
def test_every_move_at_once_equals_map_coordinates(image, key, moving: AugmentSpec, crop) -> None:
    spec = moving.model_copy(update={"crop": crop})
    drawn = arrays(key, spec, 2)
    got = np.asarray(warp(image, drawn, spec))
    for i in range(len(image)):
        for channel in range(2):
            assert (
                np.abs(got[i, ..., channel] - oracle(image[i, ..., channel], drawn, i, spec)).max()
                < 1e-4
            )


@pytest.mark.parametrize("spacing", [None, (3.0, 0.8, 0.5)])
def test_volumes_too_in_mm(volume, key, moving: AugmentSpec, spacing) -> None:
    spec = moving.model_copy(update={"tilt": 30, "flip_slices": True, "crop": (8, 9, 14)})
    drawn = arrays(key, spec, 3)
    got = np.asarray(warp(volume, drawn, spec, spacing))
    for i in range(len(volume)):
        assert (
            np.abs(got[i, ..., 0] - oracle(volume[i, ..., 0], drawn, i, spec, spacing)).max() < 1e-4
        )


def test_an_affine_map_equals_affine_transform(image, key) -> None:
    spec = AugmentSpec(rotation=25, zoom=0.3, shear=0.2, fill=0)
    drawn = arrays(key, spec, 2)
    got = np.asarray(warp(image, drawn, spec))
    center = (np.array(image.shape[1:3]) - 1) / 2
    for i in range(len(image)):
        inverse = np.linalg.inv(forward_matrix(drawn, i, 2))
        want = affine_transform(
            np.pad(image[i, ..., 0].astype(float), WIDE),
            inverse,
            center + WIDE - inverse @ (center + WIDE),
            order=1,
        )[WIDE:-WIDE, WIDE:-WIDE]
        assert np.abs(got[i, ..., 0] - want).max() < 1e-4


def test_nearest_takes_a_pixel_as_map_coordinates_does(image, key, moving: AugmentSpec) -> None:
    spec = moving.model_copy(update={"interpolation": "nearest"})
    drawn = arrays(key, spec, 2)
    got = np.asarray(warp(image, drawn, spec))
    want = np.stack([oracle(image[i, ..., 0], drawn, i, spec, order=0) for i in range(len(image))])
    assert (np.abs(got[..., 0] - want) > 1e-6).mean() < 1e-3  # halves may be rounded either way
    assert set(np.unique(got)) <= set(np.unique(image)) | {np.float32(-3)}


def at_rest(drawn: dict) -> dict:
    still = {"flip": 1.0, "low_resolution": 1.0}
    return {n: v if n == "key" else np.full_like(v, still.get(n, 0.0)) for n, v in drawn.items()}


def test_at_rest_every_bit_comes_back(image, volume, key, moving: AugmentSpec) -> None:
    rest = {"offset": 0.1, "contrast": 0.2, "gamma": 0.3, "window_centre": 0.1, "window_width": 0.2}
    rest |= {
        "blur": 1.0,
        "low_resolution": 3.0,
        "noise": 0.2,
        "quantum": 0.1,
        "bias": 0.4,
        "cutout": 0.5,
    }
    for pixels, dims in ((image, 2), (volume, 3)):
        spec = moving.model_copy(update=rest | ({"tilt": 9.0} if dims == 3 else {}))
        got = np.asarray(apply(pixels, at_rest(arrays(key, spec, dims)), spec))
        assert (got == pixels).all()
        crop = spec.model_copy(update={"crop": (7, 8, 9)[3 - dims :]})
        got = np.asarray(apply(pixels, at_rest(arrays(key, crop, dims)), crop))
        assert (got == pixels[(slice(None), *[slice(0, side) for side in crop.crop])]).all()


def test_a_flip_is_a_mirror_exactly(image, key) -> None:
    spec = AugmentSpec(flip_left_right=True)
    drawn = arrays(key, spec, 2)
    got = np.asarray(warp(image, drawn, spec))
    mirrored = drawn["flip"][:, 1] == -1
    assert 0 < mirrored.sum() < len(mirrored)
    assert (got[mirrored] == image[mirrored, :, ::-1]).all()
    assert (got[~mirrored] == image[~mirrored]).all()


def test_a_shift_moves_towards_larger_indices_and_fills_with_air(key) -> None:
    image = np.zeros((6, 20, 20, 1), np.float32)
    image[:, 5, 5] = 1000
    spec = AugmentSpec(units="HU", shift=0.5, fill=-1024)
    drawn = {"key": key, "shift": np.full((6, 2), 0.1, np.float32)}
    got = np.asarray(warp(image, drawn, spec))[0, :, :, 0]
    assert got[7, 7] == pytest.approx(1000, abs=1e-2)
    assert (got[:2] == -1024).all()
    assert (got[:, :2] == -1024).all()


def test_a_turn_is_counter_clockwise_as_displayed(key) -> None:
    image = np.zeros((6, 21, 21, 1), np.float32)
    image[:, 10, 18] = 1
    got = np.asarray(
        warp(
            image,
            {"key": key, "rotation": np.full((6, 1), 90, np.float32)},
            AugmentSpec(rotation=90),
        )
    )
    assert np.unravel_index(got[0].argmax(), got[0].shape)[:2] == (2, 10)


def test_there_and_back_again(key) -> None:
    grid = np.linspace(0, 3, 40)
    image = np.repeat((np.sin(grid)[:, None] * np.cos(grid))[None, ..., None], 6, axis=0).astype(
        np.float32
    )
    spec = AugmentSpec(rotation=30, shift=0.2)
    drawn = arrays(key, spec, 2)
    turned = warp(image, {"key": key, "rotation": drawn["rotation"]}, spec)
    back = np.asarray(warp(turned, {"key": key, "rotation": -drawn["rotation"]}, spec))
    assert np.abs(back - image)[:, 12:28, 12:28].max() < 5e-3


def test_a_flat_volume_is_its_slices(image, key) -> None:
    flat = np.repeat(image[:, None], 5, axis=1)
    spec = AugmentSpec(rotation=30, zoom=0.2, shear=0.2, shift=0.1)
    drawn = arrays(key, spec, 2)
    got2 = np.asarray(warp(image, drawn, spec))
    still = np.zeros((6, 1), np.float32)
    drawn3 = drawn | {
        "shear": np.concatenate([still, still, drawn["shear"]], axis=1),
        "shift": np.concatenate([still, drawn["shift"]], axis=1),
        "zoom": still,
    }
    got3 = np.asarray(warp(flat, drawn3, spec))
    got2 = np.asarray(warp(image, drawn | {"zoom": still}, spec))
    assert np.abs(got3 - got2[:, None]).max() < 1e-5


def test_masks_move_with_their_image_and_keep_their_labels(image, key, moving: AugmentSpec) -> None:
    mask = (image[..., :1] > 0.5).astype(np.uint8) * 7
    spec = moving.model_copy(update={"interpolation": "nearest", "fill": 0.0})
    drawn = arrays(key, spec, 2)
    moved = np.asarray(warp_mask(mask, drawn, spec))
    assert moved.dtype == np.uint8
    assert (moved == np.asarray(warp(mask.astype(np.float32), drawn, spec))).all()
    outside = np.asarray(warp_mask(mask, drawn, spec, fill=255))
    assert set(np.unique(outside)) == {0, 7, 255}


@pytest.mark.parametrize(
    ("dtype", "fill"), [(np.uint8, -1024), (np.int16, 0.5), (np.uint8, 256), (bool, 2)]
)
def test_a_fill_that_would_overflow_is_refused(key, dtype, fill) -> None:
    spec = AugmentSpec(shift=0.1)
    with raises_code(SpecError, "fill", f"{fill:g}"):
        warp_mask(np.zeros((6, 8, 8, 1), dtype), draw(key, spec), spec, fill=fill)


@pytest.mark.parametrize("dims", [2, 3])
def test_points_go_where_the_image_goes(key, moving: AugmentSpec, dims: int) -> None:
    shape = (30, 40, 44)[3 - dims :]
    crop = (26, 33, 38)[3 - dims :]
    spec = moving.model_copy(update={"crop": crop} | ({"tilt": 20.0} if dims == 3 else {}))
    drawn = arrays(key, spec, dims)
    start = np.random.default_rng(1).uniform(8, 20, (6, 5, dims)).astype(np.float32)
    moved = np.asarray(move_points(start, drawn, spec, shape))
    positions = [
        np.broadcast_to(np.asarray(p), (6, *crop)) for p in coordinates(drawn, spec, shape)
    ]
    inside = ((moved >= 0) & (moved <= np.array(crop) - 1)).all(axis=-1)
    assert inside.sum() > 10
    for i, j in np.argwhere(inside):
        back = [
            map_coordinates(p[i].astype(float), moved[i, j][:, None], order=1)[0] for p in positions
        ]
        assert np.abs(back - start[i, j]).max() < 0.15  # the map itself is bent between pixels
    straight = {name: values for name, values in drawn.items() if name != "elastic"}
    exact = np.asarray(move_points(start, straight, spec, shape))
    origin = np.floor(drawn["crop"] * (np.array(shape) - crop + 1))
    for i in range(6):
        center = (np.array(shape) - 1) / 2
        want = (
            (start[i] - center) @ forward_matrix(straight, i, dims).T
            + center
            + drawn["shift"][i] * shape
            - origin[i]
        )
        assert np.abs(exact[i] - want).max() < 1e-4


def test_a_box_holds_what_it_held(key, moving: AugmentSpec) -> None:
    image = np.zeros((6, 40, 44, 1), np.float32)
    image[:, 12:21, 15:30] = 1
    spec = moving.model_copy(update={"fill": 0.0, "shift": 0.02})
    drawn = arrays(key, spec, 2)
    moved = np.asarray(warp(image, drawn, spec))[..., 0] > 0.5
    boxes = np.tile(np.array([[[12, 15, 20, 29]]], np.float32), (6, 1, 1))
    moved_boxes = np.asarray(move_boxes(boxes, drawn, spec, (40, 44)))[:, 0]
    for i in range(6):
        rows, cols = np.nonzero(moved[i])
        want = np.array([rows.min(), cols.min(), rows.max(), cols.max()])
        assert np.abs(moved_boxes[i] - want).max() <= 1.5  # bent edges and half pixels
    gone = {"key": key, "shift": np.full((6, 2), 0.9, np.float32)}
    left = np.asarray(move_boxes(boxes, gone, spec, (40, 44)))[0, 0]
    assert left[2] < left[0] or left[3] < left[1]


def test_a_bend_never_folds(key) -> None:
    spec = AugmentSpec(elastic=0.4, elastic_cells=3)
    rows, cols = (
        np.broadcast_to(np.asarray(p), (6, 50, 60))
        for p in coordinates(draw(key, spec), spec, (50, 60))
    )
    jacobian = np.gradient(rows, axis=1) * np.gradient(cols, axis=2) - np.gradient(
        rows, axis=2
    ) * np.gradient(cols, axis=1)
    assert jacobian.min() > 0
    assert jacobian.max() > 1.1


def test_integers_and_floats_alike(key) -> None:
    hu = np.random.default_rng(3).integers(-1000, 1000, (6, 12, 12, 1)).astype(np.int16)
    spec = AugmentSpec(units="HU", rotation=20, offset=10, fill=-1024)
    drawn = draw(key, spec)
    assert (
        np.asarray(apply(tf.constant(hu), drawn, spec))
        == np.asarray(apply(hu.astype(np.float32), drawn, spec))
    ).all()
