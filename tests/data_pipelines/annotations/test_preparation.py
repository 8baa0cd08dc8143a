"""A label map goes through preparation in step with its image."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import raises_code

from data_pipelines.annotations import LabelMap, prepare_label_map
from data_pipelines.annotations.preparation import resize_labels
from data_pipelines.errors import AnnotationError
from data_pipelines.preprocessing import spec_from
from data_pipelines.preprocessing.preparation import resize_axes
from data_pipelines.preprocessing.resize import AxisResize, resize_image, stretch
from data_pipelines.preprocessing.samples import SampleSlices, prepare_samples
from data_pipelines.sources.nifti import NiftiVolume, nifti_image
from data_pipelines.volumes.plane import Plane
from data_pipelines.volumes.series import classify_spacing


def disc(shape: tuple[int, ...], center: tuple[float, ...], radius: float) -> np.ndarray:
    axes = np.indices(shape)
    return sum((a - c) ** 2 for a, c in zip(axes, center, strict=True)) <= radius**2


def of(mask: np.ndarray, affine: np.ndarray | None = None) -> LabelMap:
    volume = mask.reshape(-1, *mask.shape[-2:])
    label_map = LabelMap.empty(volume.shape, ("ball",)).with_plane("ball", volume)
    return label_map.changed(affine=affine)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def center(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(axis=0)


@pytest.mark.parametrize("shape", [(60, 90), (200, 130), (20, 24)])
@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_a_bright_disc_stays_where_its_mask_is(shape: tuple[int, int], fit: str) -> None:
    spec = spec_from({"kind": "radiograph", "rows": 48, "cols": 64, "fit": fit})
    mask = disc(shape, (shape[0] * 0.35, shape[1] * 0.6), shape[0] / 5)
    image = SimpleNamespace(pixels=mask.astype(np.float32), aspect=1.25)
    pixels = resize_image(image.pixels, resize_axes(image, spec), spec.fill)
    labels = prepare_label_map(of(mask), spec, aspect=image.aspect)
    assert labels.shape == (48, 64)
    assert labels.dtype == np.uint8
    assert dice(labels == 1, pixels >= 0.5) > 0.95
    np.testing.assert_allclose(center(labels == 1), center(pixels >= 0.5), atol=0.35)


def ct_planes(heights: list[float], affine: np.ndarray, shape: tuple[int, int]) -> list[Plane]:
    from data_pipelines.sources.nifti import planes_on_grid

    step = affine[:3, 0] / np.linalg.norm(affine[:3, 0])
    first = planes_on_grid(affine, (1, *shape))[0]
    origin = affine[:3, 3]
    return [
        replace(first, frame=n, position=tuple(origin + h * step)) for n, h in enumerate(heights)
    ]


@pytest.mark.parametrize(
    ("heights", "fields"),
    [
        ([3.0 * n for n in range(16)], {}),
        ([3.0 * n for n in range(16)], {"spacing_mm": (2, 2, 2)}),
        ([3.0 * n for n in range(16)], {"fit": "stretch"}),
        ([3.0 * n for n in range(17) if n not in (5, 9)], {}),  # gaps: a regular grid first
    ],
)
def test_a_bright_ball_stays_where_its_mask_is(heights: list[float], fields: dict) -> None:
    """The image goes through `prepare_samples`, as for the cache."""
    shape = (len(heights), 40, 50)
    affine = np.array([[0, 0, 1.1, 0], [0, 1.3, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    index = np.indices(shape).astype(float)
    distance = (np.asarray(heights)[:, None, None] - 20) ** 2
    distance = distance + ((index[1] - 18) * 1.3) ** 2 + ((index[2] - 30) * 1.1) ** 2
    mask = distance <= 14**2
    volume = NiftiVolume(np.where(mask, 1000, -1000).astype(np.float32), affine, ())
    planes = ct_planes(heights, affine, shape[1:])
    spec = spec_from(
        {"kind": "ct", "form": "volume", "rows": 32, "cols": 32, "slices": 24, **fields}
    )
    (prepared,) = prepare_samples(
        [SampleSlices(tuple(range(len(planes))))],
        planes,
        lambda n: nifti_image(volume, n, "HU", digest=False),
        spec,
    )
    group = classify_spacing([replace(p, source_index=n) for n, p in enumerate(planes)])
    labels = prepare_label_map(of(mask, group.affine), spec, group=group)
    bright = prepared >= 0
    assert labels.shape == prepared.shape
    assert dice(labels == 1, bright) > 0.93
    np.testing.assert_allclose(center(labels == 1), center(bright), atol=0.35)


def test_finer_is_nearest_and_coarser_is_half_a_voxel() -> None:
    labels = np.array([[0, 1, 1, 2]], np.uint8)
    fine = resize_labels(labels, stretch((1, 4), (2, 8)))
    assert fine.tolist() == [[0, 0, 1, 1, 1, 1, 2, 2]] * 2
    coarse = resize_labels(labels, stretch((1, 4), (1, 2)))
    assert coarse.tolist() == [[1, 1]]  # half and half: the smaller label
    third = resize_labels(np.array([[1, 1, 0, 0, 0, 2]], np.uint8), stretch((1, 6), (1, 2)))
    assert third.tolist() == [[1, 0]]


def test_padding_is_background_and_a_crop_is_central() -> None:
    labels = np.array([[1, 2, 3]], np.uint8)
    axes = [AxisResize(1, 1, 3), AxisResize(3, 3, 1)]
    assert resize_labels(labels, axes).tolist() == [[0], [2], [0]]


def test_only_annotated_samples_are_prepared() -> None:
    label_map = of(np.ones((4, 4), bool))
    for state in ("rejected", "not_annotated"):
        with raises_code(AnnotationError, "not_annotated"):
            prepare_label_map(label_map.changed(state=state), spec_from("xray-16"))


def test_the_middle_slice_is_the_label_of_a_stack() -> None:
    masks = np.zeros((3, 16, 16), bool)
    masks[1, 2:5] = True
    labels = prepare_label_map(of(masks), spec_from("ct25d-16"))
    np.testing.assert_array_equal(labels == 1, masks[1])
