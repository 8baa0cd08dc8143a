"""DICOM segmentations as predictions and as references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medres.errors import EvaluationError
from medres.evaluate import evaluate_masks
from medres.evaluate.segmentation.label_maps import on_one_grid, read_label_map, same_grid
from tests.helpers import raises_code
from tests.mask_writers import CT, dicom_bytes, item, seg_bytes

STEP, SPACING = 2.5, (0.7, 0.8)


def save_seg(
    path: Path, planes: dict[str, np.ndarray], *, sparse: bool = True, **options: Any
) -> Path:
    """A segmentation of bool volumes (slices, rows, columns) by label, without empty frames."""
    frames = [
        (n, plane[z], (1.0, 2.0, 3.0 + STEP * z), None)
        for n, plane in enumerate(planes.values(), start=1)
        for z in range(len(plane))
        if plane[z].any() or not sparse
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(seg_bytes(frames, list(planes), spacing=SPACING, **options))
    return path


def nifti_affine() -> np.ndarray:
    """To RAS mm of an array (column, row, slice) on the grid of `save_seg`."""
    affine = np.diag([-SPACING[1], -SPACING[0], STEP, 1.0])
    affine[:3, 3] = (-1.0, -2.0, 3.0)
    return affine


def volumes(seed: int = 0) -> dict[str, np.ndarray]:
    """Two overlapping classes on slices 1, 2 and 4 of 6."""
    random = np.random.default_rng(seed)
    planes = {name: random.random((6, 8, 9)) < 0.4 for name in ("liver", "tumor")}
    for plane in planes.values():
        plane[[0, 3, 5]] = False
    return planes


def test_a_sparse_segmentation_against_a_nifti_reference(save_nifti, tmp_path: Path) -> None:
    planes = volumes()
    values = np.where(planes["tumor"], 2, planes["liver"]).astype(np.uint8)
    apart = {"liver": values == 1, "tumor": values == 2}
    save_seg(tmp_path / "pred" / "case.dcm", apart)
    reference = save_nifti("ref", nifti_affine(), case=values.transpose(2, 1, 0))
    found = evaluate_masks(tmp_path / "pred", reference, classes="1=liver,2=tumor")
    for name in apart:
        assert found.numbers["findings"][name]["dice"]["estimate"] == 1.0
    # by hand: one of the slices is absent from the prediction
    apart["tumor"] = apart["tumor"].copy()
    apart["tumor"][4] = False
    save_seg(tmp_path / "pred" / "case.dcm", apart)
    a, b = int((values == 2).sum()), int(apart["tumor"].sum())
    found = evaluate_masks(tmp_path / "pred", reference, classes="1=liver,2=tumor")
    dice = found.numbers["findings"]["tumor"]["dice"]["estimate"]
    assert dice == pytest.approx(2 * b / (a + b))


def test_segments_are_classes_by_label_whatever_their_number(tmp_path: Path) -> None:
    planes = volumes()
    save_seg(tmp_path / "ref" / "case.dcm", planes)
    turned = {"Tumor": planes["tumor"], "LIVER": planes["liver"]}
    save_seg(tmp_path / "pred" / "case.dcm", turned)
    findings = evaluate_masks(tmp_path / "pred", tmp_path / "ref").numbers["findings"]
    assert list(findings) == ["liver", "tumor"]
    assert [finding["dice"]["estimate"] for finding in findings.values()] == [1.0, 1.0]
    save_seg(tmp_path / "pred" / "case.dcm", {"spleen": planes["liver"]})
    with raises_code(EvaluationError, "unknown_label"):
        evaluate_masks(tmp_path / "pred", tmp_path / "ref")
    by_number = evaluate_masks(tmp_path / "pred", tmp_path / "ref", classes="1=a,2=b")
    assert by_number.numbers["findings"]["a"]["dice"]["estimate"] == 1.0


def test_two_sparse_segmentations_meet_on_the_slices_of_both(tmp_path: Path) -> None:
    one, other = np.zeros((6, 8, 9), bool), np.zeros((6, 8, 9), bool)
    one[[1, 2]], other[[2, 5]] = True, True
    a = read_label_map(save_seg(tmp_path / "a" / "c.dcm", {"liver": one}))
    b = read_label_map(save_seg(tmp_path / "b" / "c.dcm", {"liver": other}))
    assert b.values.shape == (2, 8, 9)  # 7.5 mm apart, as far as the file says
    a, b = on_one_grid(a, b)
    assert same_grid(a, b) is None
    assert a.spacing == pytest.approx((STEP, *SPACING))
    assert a.mask(1).any(axis=(1, 2)).tolist() == [True, True, False, False, False]
    assert b.mask(1).any(axis=(1, 2)).tolist() == [False, True, False, False, True]


@pytest.mark.parametrize("shift", [(0.0, 0.1, 0.0), (0.0, 0.0, 0.1)])
def test_another_grid_is_an_error(save_nifti, tmp_path: Path, shift: Sequence[float]) -> None:
    planes = volumes()
    save_seg(tmp_path / "pred" / "case.dcm", planes)
    affine = nifti_affine()
    affine[:3, 3] += shift
    values = planes["liver"].astype(np.uint8)
    reference = save_nifti("ref", affine, case=values.transpose(2, 1, 0))
    with raises_code(EvaluationError, "other_grid"):
        evaluate_masks(tmp_path / "pred", reference, classes="1=liver,2=tumor")


def test_voxels_beyond_the_slices_of_the_reference_are_an_error(save_nifti, tmp_path: Path) -> None:
    planes = {"liver": np.ones((6, 8, 9), bool)}
    save_seg(tmp_path / "pred" / "case.dcm", planes)
    values = np.ones((5, 8, 9), np.uint8)
    reference = save_nifti("ref", nifti_affine(), case=values.transpose(2, 1, 0))
    with raises_code(EvaluationError, "other_grid"):
        evaluate_masks(tmp_path / "pred", reference, classes="1=liver")


def test_label_maps_fractions_and_other_dicom_files(tmp_path: Path) -> None:
    planes = {"liver": volumes()["liver"]}
    frames = [(1, plane * 2, (0, 0, z), None) for z, plane in enumerate(planes["liver"])]
    data = seg_bytes(frames, ["background", "liver"], kind="LABELMAP")
    (tmp_path / "map.dcm").write_bytes(data)
    read = read_label_map(tmp_path / "map.dcm")
    np.testing.assert_array_equal(read.mask(2), planes["liver"])
    path = save_seg(tmp_path / "fraction.dcm", planes, kind="FRACTIONAL", maximum=1)
    assert read_label_map(path).labels() == {1}
    other = item(SOPClassUID=CT, SOPInstanceUID="1.2", StudyInstanceUID="1.3", Modality="CT")
    (tmp_path / "ct.dcm").write_bytes(dicom_bytes(other))
    with raises_code(EvaluationError, "no_segmentation"):
        read_label_map(tmp_path / "ct.dcm")


def test_slices_without_a_constant_step(tmp_path: Path) -> None:
    frames = [(1, np.ones((4, 4), bool), (0, 0, z), None) for z in (0.0, 1.0, 2.3)]
    (tmp_path / "odd.dcm").write_bytes(seg_bytes(frames, ["a"]))
    with raises_code(EvaluationError, "irregular_mask"):
        read_label_map(tmp_path / "odd.dcm")
