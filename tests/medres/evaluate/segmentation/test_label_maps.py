"""Reading label maps, and whether two are on one grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medres.errors import EvaluationError
from medres.evaluate.segmentation.label_maps import LabelMap, read_label_map, same_grid
from tests.helpers import raises_code


def test_png_values_are_kept_for_palettes_bits_and_16_bits(tmp_path: Path) -> None:
    values = np.array([[0, 1], [2, 0]], np.uint8)
    palette = Image.fromarray(values)
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(values > 0).save(tmp_path / "bits.png")
    Image.fromarray(values.astype(np.uint16) * 300).save(tmp_path / "deep.png")
    assert read_label_map(tmp_path / "palette.png").values.tolist() == values.tolist()
    assert read_label_map(tmp_path / "bits.png").labels() == {1}
    assert read_label_map(tmp_path / "deep.png").labels() == {300, 600}
    assert read_label_map(tmp_path / "deep.png").spacing is None


def test_files_that_are_no_label_maps(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "color.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "text.txt").write_text("1")
    for name, code in (
        ("color.png", "color_mask"),
        ("broken.png", "unreadable_mask"),
        ("text.txt", "unknown_format"),
    ):
        with raises_code(EvaluationError, code):
            read_label_map(tmp_path / name)


def test_nifti_in_other_axes_is_the_same_map(save_nifti) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(np.int16)
    plain = np.diag([2.0, 3.0, 5.0, 1.0])
    flipped = plain.copy()
    flipped[0, 0], flipped[0, 3] = -2.0, 2.0
    swapped = plain[:, [1, 0, 2, 3]]
    maps = [
        read_label_map(save_nifti(name, affine, case=array) / "case.nii.gz")
        for name, affine, array in (
            ("a", plain, values),
            ("b", flipped, values[::-1]),
            ("c", swapped, values.transpose(1, 0, 2)),
        )
    ]
    assert maps[0].spacing == pytest.approx((5.0, 3.0, 2.0))
    for other in maps[1:]:
        assert same_grid(maps[0], other) is None
        assert other.values.tolist() == maps[0].values.tolist()


def test_float_nifti_with_whole_numbers_is_read_and_fractions_are_refused(save_nifti) -> None:
    values = np.array([[[0.0, 1.0, 2.0]]] * 2)
    folder = save_nifti("f", whole=values, parts=values / 2)
    whole = read_label_map(folder / "whole.nii.gz")
    assert whole.labels() == {1, 2}
    assert whole.values.dtype.kind == "i"
    with raises_code(EvaluationError, "float_mask"):
        read_label_map(folder / "parts.nii.gz")


def test_single_slice_is_an_image(save_nifti) -> None:
    folder = save_nifti("one", case=np.ones((4, 6, 1), np.uint8))
    found = read_label_map(folder / "case.nii.gz")
    assert found.values.shape == (6, 4)
    assert found.spacing == (2.0, 2.0)


def test_grids_differ_by_size_place_and_spacing() -> None:
    values, grid = np.zeros((2, 3, 4), np.uint8), np.eye(4)
    moved = grid.copy()
    moved[2, 3] = 0.01
    a = LabelMap(values, (1.0, 1.0, 1.0), grid)
    assert same_grid(a, LabelMap(values, (1.0, 1.0, 1.0), grid + 1e-5 * np.eye(4))) is None
    assert "0.01 mm" in str(same_grid(a, LabelMap(values, (1.0, 1.0, 1.0), moved)))
    assert "voxels" in str(same_grid(a, LabelMap(values[:1])))
    assert "only one" in str(same_grid(a, LabelMap(values)))
    plain = LabelMap(values, (1.0, 1.0, 1.0))
    assert "spacing" in str(same_grid(plain, LabelMap(values, (1.0, 1.0, 1.01))))
    assert same_grid(plain, LabelMap(values)) is None


def test_spacing_is_for_files_without() -> None:
    values = np.zeros((3, 4), np.uint8)
    assert LabelMap(values).with_spacing((0.5, 0.6)).spacing == (0.5, 0.6)
    assert LabelMap(values, (0.5, 0.6)).with_spacing(None).spacing == (0.5, 0.6)
    with raises_code(EvaluationError, "spacing_axes"):
        LabelMap(values).with_spacing((1.0, 0.5, 0.5))
    with raises_code(EvaluationError, "spacing_conflict"):
        LabelMap(values, (0.5, 0.6)).with_spacing((0.5, 0.7))
