from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines.preprocessing.original_grid import OriginalGrid
from data_pipelines.preprocessing.resize import AxisResize
from data_pipelines.sources.nifti import read_nifti
from data_pipelines.volumes.plane import Plane
from medres.artefact.masks import ComponentRule, SegmentationFields, class_colors
from medres.inference.masks.files import nifti_bytes, png_bytes
from medres.inference.masks.study_mask import study_masks

NAMES = ("background", "lung", "tumor")
FIELDS = SegmentationFields(
    colors=class_colors(3),
    postprocess=[
        ComponentRule(name="lung", volume_error=0.2, alpha=0.1),
        ComponentRule(name="tumor"),
    ],
)
SAME = (AxisResize(4, 4, 4), AxisResize(6, 6, 6))


def plane(height: float, series: str = "s") -> Plane:
    return Plane(
        source_index=0,
        frame=0,
        series=series,
        frame_of_reference="f",
        modality="CT",
        rows=4,
        columns=6,
        spacing=(2.0, 3.0),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        position=(10.0, 20.0, height),
        image_type=(),
        kernel="",
        stack="",
        dimensions=(),
        temporal=None,
        acquisition=None,
        non_slice_reason="",
    )


def slices(heights: list[float], series: str = "s") -> tuple:
    labels = [np.full((4, 6), n, np.uint8) for n in range(len(heights))]
    grids = [OriginalGrid(SAME, (plane(h, series),)) for h in heights]
    return study_masks(
        labels, grids, [((f"uid{n}", 0),) for n in range(len(heights))], NAMES, FIELDS
    )


def test_slices_of_a_series_become_one_volume_in_the_order_of_space() -> None:
    (mask,) = slices([5.0, 0.0, 10.0])
    assert mask.labels[:, 0, 0].tolist() == [1, 0, 2]
    assert mask.slices == (("uid1", 0), ("uid0", 0), ("uid2", 0))
    assert mask.affine is not None
    np.testing.assert_allclose(mask.affine @ [1, 2, 3, 1], [10 + 9, 20 + 4, 5, 1])
    assert mask.spacing_mm == (5.0, 2.0, 3.0)
    volume = 24 * 5 * 2 * 3 / 1000
    expected = {"ml": volume, "ml_low": 0.8 * volume, "ml_high": 1.2 * volume, "alpha": 0.1}
    assert mask.volumes["lung"] == pytest.approx(expected)
    assert mask.volumes["tumor"] == pytest.approx({"ml": volume})


def test_slices_without_a_constant_step_stay_single() -> None:
    masks = slices([0.0, 5.0, 11.0])
    assert [mask.labels.ndim for mask in masks] == [2, 2, 2]
    assert masks[1].volumes["lung"] == {"mm2": pytest.approx(24 * 6.0)}


def test_a_resampled_series_has_no_slices_of_its_own() -> None:
    axes = (AxisResize(2, 2, 2), *SAME)
    affine = np.diag([4.0, 2.0, 3.0, 1.0])
    grid = OriginalGrid(axes, (plane(0), plane(4), plane(12)), affine, is_resampled=True)
    labels = np.ones((2, 4, 6), np.uint8)
    (mask,) = study_masks([labels], [grid], [(("a", 0), ("b", 0), ("c", 0))], NAMES, FIELDS)
    assert mask.slices == ()
    assert mask.is_resampled
    assert mask.counts == {"lung": 48, "tumor": 0}


def test_files_hold_the_label_map_and_its_place() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (3, 4, 5)).astype(np.uint8)
    affine = np.array([[0, 0, 0.7, 3], [0, 0.8, 0, -4], [2.5, 0, 0, 5], [0, 0, 0, 1]], float)
    volume = read_nifti(nifti_bytes(labels, affine))
    corner = volume.affine @ [0, 0, 0, 1]
    np.testing.assert_allclose(sorted(volume.spacing), [0.7, 0.8, 2.5], atol=1e-6)
    np.testing.assert_allclose(corner, affine @ [0, 0, 0, 1], atol=1e-5)
    np.testing.assert_array_equal(volume.array, labels)
    plane_labels = labels[0]
    np.testing.assert_array_equal(
        np.array(Image.open(io.BytesIO(png_bytes(plane_labels)))), plane_labels
    )
