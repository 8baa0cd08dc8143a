"""Ingest with masks: what belongs together, what is refused, and what WORK says about it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import fails, medres, raises_code
from mask_writers import (
    FRAME_OF_REFERENCE,
    lps_to_ras,
    rtstruct_bytes,
    seg_bytes,
    write_nifti,
    write_png,
)
from PIL import Image

from data_pipelines.annotations import read_label_map
from data_pipelines.errors import InputError, ManifestError
from data_pipelines.ingestion import Manifest, ingest

N, ROWS, COLUMNS = 6, 16, 20
SPACING, STEP, ORIGIN = (0.8, 0.7), 2.5, (-7.0, 4.0, 50.0)
AFFINE = np.array(
    [[0, 0, 0.7, -7.0], [0, 0.8, 0, 4.0], [2.5, 0, 0, 50.0], [0, 0, 0, 1]], np.float64
)
GEOMETRY = {"orientation": (1, 0, 0, 0, 1, 0), "spacing": SPACING}
REFUSED = ("state", "reason")


@pytest.fixture(autouse=True)
def _in_process(in_process: None) -> None:
    """No worker is needed here."""


@pytest.fixture
def series(tmp_path: Path, grey, to_bytes) -> Path:
    """A CT series of 6 slices in tmp_path/images/case1, its files not in the order of position."""
    folder = tmp_path / "images/case1"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n in range(N):
        dataset = grey(
            rng.integers(0, 2000, (ROWS, COLUMNS)).astype(np.int16),
            SOPInstanceUID=f"1.2.7.{n}",
            ImagePositionPatient=list(position(n)),
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=list(SPACING),
            FrameOfReferenceUID=FRAME_OF_REFERENCE,
            RescaleSlope=1,
            RescaleIntercept=-1024,
        )
        (folder / f"{(n * 5) % N}.dcm").write_bytes(to_bytes(dataset))
    return folder.parent


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    folder = tmp_path / "masks"
    folder.mkdir()
    return folder


def position(n: float) -> tuple[float, float, float]:
    return ORIGIN[0], ORIGIN[1], ORIGIN[2] + STEP * n


def volume(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (N, ROWS, COLUMNS)).astype(np.uint8)


def frames_of(values: np.ndarray, labels=(1, 2), **at: object) -> list:
    return [
        (label, values[n] == label, position(n), (f"1.2.7.{n}", 1))
        for label in labels
        for n in reversed(range(len(values)))
    ]


def run(tmp_path: Path, source: Path, masks: Path, **options: object) -> Manifest:
    number = len(list(tmp_path.glob("work*")))
    return ingest(source, None, tmp_path / f"work{number}", masks=masks, no_split=True, **options)


def report_of(manifest: Manifest) -> pd.DataFrame:
    assert manifest.work is not None
    return pd.read_csv(manifest.work / "annotations.csv", dtype=str, keep_default_na=False)


def reasons_of(manifest: Manifest) -> list[str]:
    return report_of(manifest)["reason"].tolist()


def series_map(manifest: Manifest):
    assert manifest.work is not None
    return read_label_map(manifest.work, manifest.table["series"].iloc[0])


def test_a_segmentation_in_another_slice_order(tmp_path: Path, series: Path, masks: Path) -> None:
    values = volume()
    (masks / "any.dcm").write_bytes(seg_bytes(frames_of(values), ["lung", "lesion"], **GEOMETRY))
    manifest = run(tmp_path, series, masks)
    label_map = series_map(manifest)
    assert label_map.classes == ("lesion", "lung")
    np.testing.assert_array_equal(label_map.plane("lung"), values == 1)
    np.testing.assert_array_equal(label_map.plane("lesion"), values == 2)
    np.testing.assert_allclose(label_map.affine, AFFINE, atol=1e-9)
    table = manifest.table.sort_values("order")
    assert set(table["mask_state"]) == {"annotated"}
    assert table["voxels:lung"].tolist() == (values == 1).sum(axis=(1, 2)).tolist()
    # one image gives one slice, and any order of images gives the slices in that order
    images = table["image"].tolist()
    one = read_label_map(manifest.work, images[3])
    np.testing.assert_array_equal(one.single(), np.where(values[3] == 0, 0, 3 - values[3]))
    both = read_label_map(manifest.work, [images[4], images[1]])
    np.testing.assert_array_equal(both.plane("lung"), values[[4, 1]] == 1)
    block = manifest.summary["annotations"]
    assert (block["given"], block["used"], block["rejected"], block["unmatched"]) == (1, 1, 0, 0)
    assert block["images"] == {"annotated": N, "not_annotated": 0, "rejected": 0}
    ml = (values == 1).sum() * 0.7 * 0.8 * 2.5 / 1000
    assert block["volume_ml"]["lung"] == pytest.approx(ml, abs=1e-4)
    assert block["voxels"] == {
        "lesion": int((values == 2).sum()),
        "lung": int((values == 1).sum()),
    }


def test_a_sparse_segmentation_is_background_elsewhere(
    tmp_path: Path, series: Path, masks: Path
) -> None:
    values = volume()
    frames = [frame for n, frame in enumerate(frames_of(values, labels=(1,))) if n in (1, 4)]
    (masks / "a").write_bytes(seg_bytes(frames, ["lung"], **GEOMETRY))
    label_map = series_map(run(tmp_path, series, masks))
    expected = np.zeros(values.shape, bool)
    expected[[4, 1]] = values[[4, 1]] == 1  # frames 1 and 4 of the reversed slices
    np.testing.assert_array_equal(label_map.plane("lung"), expected)


def test_two_readers_of_one_class_are_joined_and_flagged(
    tmp_path: Path, series: Path, masks: Path
) -> None:
    for n in (1, 2):
        frames = frames_of(volume(n), labels=(1,))
        (masks / f"reader{n}").write_bytes(seg_bytes(frames, ["nodule"], **GEOMETRY))
    manifest = run(tmp_path, series, masks)
    both = (volume(1) == 1) | (volume(2) == 1)
    np.testing.assert_array_equal(series_map(manifest).plane("nodule"), both)
    assert report_of(manifest)["flags"].tolist() == ["class_in_several_masks"] * 2


def test_contours_of_a_structure_set(tmp_path: Path, series: Path, masks: Path) -> None:
    corners = np.array([(1.5, 2.5), (6.5, 2.5), (6.5, 8.5), (1.5, 8.5)])
    contours = [
        ("CLOSED_PLANAR", (np.array([(n, y, x, 1) for x, y in corners]) @ AFFINE.T)[:, :3])
        for n in (2, 3)
    ]
    data = rtstruct_bytes({"heart": contours}, [f"1.2.7.{n}" for n in range(N)])
    (masks / "plan.dcm").write_bytes(data)
    label_map = series_map(run(tmp_path, series, masks))
    expected = np.zeros((N, ROWS, COLUMNS), bool)
    expected[2:4, 3:9, 2:7] = True
    np.testing.assert_array_equal(label_map.plane("heart"), expected)


@pytest.mark.parametrize("code", ["RAS", "PSR"])
def test_a_nifti_in_any_orientation(tmp_path: Path, series: Path, masks: Path, code: str) -> None:
    """The volume of one folder is named by the folder."""
    nib = pytest.importorskip("nibabel")
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    values = volume()
    stored, affine = lps_to_ras(values, AFFINE)
    image = nib.Nifti1Image(stored, affine)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(code)))
    nib.save(image.as_reoriented(turn), masks / "case1.nii.gz")
    manifest = run(tmp_path, series, masks, mask_classes={"1": "a", "2": "b"})
    np.testing.assert_array_equal(series_map(manifest).single(), values)
    assert manifest.summary["annotations"]["classes"] == ["a", "b"]
    assert report_of(manifest)["changed_share"].tolist() == ["0.0"]


def bad_seg(**changes: object) -> bytes:
    values = np.ones((N, ROWS, COLUMNS), np.uint8)
    return seg_bytes(frames_of(values, labels=(1,)), ["a"], **{**GEOMETRY, **changes})


def without_references(shift: float = 0.0) -> bytes:
    values = np.ones((ROWS, COLUMNS), np.uint8)
    frames = [(1, values, (*position(n)[:2], position(n)[2] + shift), None) for n in range(N)]
    elements = {"FrameOfReferenceUID": "1.2.1"} if not shift else {}
    return seg_bytes(frames, ["a"], **GEOMETRY, **elements)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (lambda: bad_seg(PatientID="SOMEBODY ELSE"), "wrong_patient"),
        (lambda: bad_seg(spacing=(0.9, 0.7)), "other_grid"),
        (
            lambda: bad_seg(spacing=(0.9, 0.7), FrameOfReferenceUID="1.2.1"),
            "wrong_frame_of_reference",
        ),
        (
            lambda: seg_bytes(
                [(1, np.ones((ROWS, COLUMNS)), position(n), ("1.2.7.0", 1)) for n in (0, N)],
                ["a"],
                **GEOMETRY,
            ),
            "off_image",
        ),
        (
            lambda: seg_bytes(
                [(1, np.ones((ROWS, COLUMNS)), position(n), ("1.2.7.0", 1)) for n in (99, 98)],
                ["a"],
                **GEOMETRY,
            ),
            "off_image",
        ),
    ],
)
def test_a_segmentation_that_does_not_belong(
    tmp_path: Path, series: Path, masks: Path, data, code: str
) -> None:
    (masks / "a.dcm").write_bytes(data())
    manifest = run(tmp_path, series, masks)
    assert reasons_of(manifest) == [code]
    assert set(manifest.table["mask_state"]) == {"rejected"}
    label_map = series_map(manifest)
    assert label_map.state == "rejected"
    assert not label_map.layers.any()
    assert manifest.summary["annotations"]["rejected"] == 1
    assert any(code in text for text in manifest.summary["warnings"])


@pytest.mark.parametrize("uid", ["1.2.1", None])
def test_another_frame_of_reference_is_flagged_where_images_and_geometry_agree(
    tmp_path: Path, series: Path, masks: Path, uid: str | None
) -> None:
    (masks / "a.dcm").write_bytes(bad_seg(FrameOfReferenceUID=uid))
    manifest = run(tmp_path, series, masks)
    flag = "frame_of_reference_differs" if uid else "frame_of_reference_absent"
    assert report_of(manifest)["flags"].tolist() == [flag]
    assert set(manifest.table["mask_state"]) == {"annotated"}


def nifti(masks: Path, values: np.ndarray, affine: np.ndarray) -> None:
    write_nifti(masks / "case1.nii.gz", *lps_to_ras(values, affine))


def sheared() -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 1] = 0.3
    return affine


@pytest.mark.parametrize(
    ("values", "affine", "code"),
    [
        (volume() * np.float32(0.4), AFFINE, "float_mask"),
        (volume()[:-1], AFFINE, "missing_slice"),
        (volume(), sheared(), "sheared_affine"),
        (volume(), AFFINE @ np.diag([1.0, 1.1, 1, 1]), "other_grid"),
        (volume(), AFFINE + np.eye(4)[:, [3, 0, 1, 2]] * 500, "off_image"),
        (volume() + 1, AFFINE, "unknown_label"),
    ],
)
def test_a_nifti_that_cannot_be_used(
    tmp_path: Path, series: Path, masks: Path, values, affine, code: str
) -> None:
    pytest.importorskip("nibabel")
    nifti(masks, values, affine)
    manifest = run(tmp_path, series, masks, mask_classes={"1": "a", "2": "b"})
    assert reasons_of(manifest) == [code]
    assert set(manifest.table["mask_state"]) == {"rejected"}


def test_a_nifti_with_an_affine_of_zeros(tmp_path: Path, series: Path, masks: Path) -> None:
    pytest.importorskip("nibabel")
    path = masks / "case1.nii"
    write_nifti(path, *lps_to_ras(volume(), AFFINE))
    data = bytearray(path.read_bytes())
    data[252:254] = bytes(2)  # qform_code
    data[280:328] = bytes(48)  # srow_x, srow_y, srow_z
    path.write_bytes(data)
    assert reasons_of(run(tmp_path, series, masks)) == ["bad_spacing"]


def test_resampling_is_asked_for_and_recorded(tmp_path: Path, series: Path, masks: Path) -> None:
    """A mask of half the spacing, and a label that is too small to be left."""
    pytest.importorskip("nibabel")
    fine = volume()[:, :, :].repeat(2, axis=1).repeat(2, axis=2)
    fine[fine == 2] = 0
    fine[0, 0, 0] = 2
    affine = AFFINE @ np.diag([1, 0.5, 0.5, 1])
    affine[:3, 3] = (AFFINE @ [0, -0.25, -0.25, 1])[:3]
    nifti(masks, fine, affine)
    assert reasons_of(run(tmp_path, series, masks)) == ["other_grid"]
    manifest = run(tmp_path, series, masks, resample_masks=True)
    expected = volume() == 1
    expected[0, 0, 0] &= fine[0, 0, 0] != 2 or (fine[0, :2, :2] == 1).sum() >= 2
    np.testing.assert_array_equal(series_map(manifest).plane("1"), expected)
    report = report_of(manifest)
    assert report["flags"].tolist() == ["resampled;label_lost"]
    before = (fine == 1).sum() * 0.35 * 0.4 * 2.5 / 1000
    assert f"1 {before:.4g}>" in report["volume_before_after_ml"].iloc[0]
    assert 0 < float(report["changed_share"].iloc[0]) < 0.01
    assert manifest.summary["annotations"]["resampled"] == 1


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Four gray PNG images of 12 x 10 pixels in folders."""
    rng = np.random.default_rng(3)
    for n in range(4):
        write_png(
            tmp_path / f"films/p{n}/film.png", rng.integers(0, 256, (12, 10)).astype(np.uint8)
        )
    return tmp_path / "films"


def flat(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (12, 10)).astype(np.uint8)


def label_of(manifest: Manifest, path: str):
    row = manifest.table[manifest.table["path"] == path].iloc[0]
    return read_label_map(manifest.work, row["image"]), row


@pytest.mark.parametrize("palette", [False, True])
def test_png_masks_by_path_for_half_of_the_cohort(
    tmp_path: Path, films: Path, masks: Path, palette: bool
) -> None:
    write_png(masks / "p0/film.png", flat(0), palette=palette)
    write_png(masks / "p1/film.png", np.zeros((12, 10), np.uint8), palette=palette)
    write_png(masks / "elsewhere.png", flat(0))
    (masks / "README.md").write_text("no mask")
    manifest = run(tmp_path, films, masks, units="display")
    label_map, row = label_of(manifest, "p0/film.png")
    np.testing.assert_array_equal(label_map.single(), flat(0))
    assert row["mask_state"] == "annotated"
    assert row["mask_classes"] == "1;2"
    assert row["voxels:2"] == (flat(0) == 2).sum()
    empty, row = label_of(manifest, "p1/film.png")
    assert empty.annotated  # nothing there is not the same as not annotated
    assert row["voxels:1"] == 0
    nobody, row = label_of(manifest, "p2/film.png")
    assert nobody.state == row["mask_state"] == "not_annotated"
    assert np.isnan(row["voxels:1"])
    block = manifest.summary["annotations"]
    assert block["images"] == {"annotated": 2, "not_annotated": 2, "rejected": 0}
    counts = ("given", "used", "rejected", "unmatched", "skipped")
    assert [block[k] for k in counts] == [4, 2, 0, 1, 1]
    assert block["flags"] == {"empty_mask": 1}
    assert block["reasons"] == {"mask_unmatched": 1}


def test_one_file_per_class_below_a_folder_of_the_class(
    tmp_path: Path, films: Path, masks: Path
) -> None:
    left, right = flat(0) > 0, flat(1) > 0
    write_png(masks / "left/p0/film.png", left.astype(np.uint8) * 255)
    write_png(masks / "right/p0/film.png", right.astype(np.uint8) * 255)
    manifest = run(tmp_path, films, masks, units="display")
    label_map, _ = label_of(manifest, "p0/film.png")
    np.testing.assert_array_equal(label_map.plane("left")[0], left)
    np.testing.assert_array_equal(label_map.plane("right")[0], right)
    overlap = int((left & right).sum())
    assert manifest.summary["annotations"]["overlap_voxels"] == overlap > 0
    ordered = run(tmp_path, films, masks, units="display", label_order="right<left")
    label_map, _ = label_of(ordered, "p0/film.png")
    assert len(label_map.layers) == 1
    np.testing.assert_array_equal(label_map.plane("left")[0], left)
    np.testing.assert_array_equal(label_map.plane("right")[0], right & ~left)
    assert ordered.summary["annotations"]["flags"] == {"overlap": 2, "overlap_resolved": 2}
    assert any(f"{overlap} voxels" in text for text in manifest.summary["warnings"])
    with raises_code(InputError, "label_order"):
        run(tmp_path, films, masks, units="display", label_order="right<up")


def test_crops_with_a_table_of_offsets(tmp_path: Path, films: Path, masks: Path) -> None:
    write_png(masks / "crop.png", np.full((3, 4), 255, np.uint8))
    write_png(masks / "out.png", np.full((3, 4), 255, np.uint8))
    (masks / "masks.csv").write_text(
        "path,mask,class,x_offset,y_offset\n"
        "p0/film.png,crop.png,nodule,5,7\n"
        "p0/film.png,crop.png,nodule,0,0\n"
        "p1/film.png,,,,\n"
        "p2/film.png,out.png,nodule,7,0\n"
        "p3/film.png,absent.png,nodule,0,0\n"
        "p9/film.png,crop.png,nodule,0,0\n"
    )
    manifest = run(tmp_path, films, masks, units="display")
    expected = np.zeros((12, 10), bool)
    expected[7:10, 5:9] = expected[0:3, 0:4] = True
    label_map, _ = label_of(manifest, "p0/film.png")
    np.testing.assert_array_equal(label_map.plane("nodule")[0], expected)
    empty, row = label_of(manifest, "p1/film.png")
    assert empty.annotated
    assert row["voxels:nodule"] == 0
    report = report_of(manifest).set_index("mask")
    assert report.loc["out.png", list(REFUSED)].tolist() == ["rejected", "off_image"]
    assert report.loc["absent.png", list(REFUSED)].tolist() == ["rejected", "mask_missing"]
    states = manifest.table.set_index("path")["mask_state"]
    assert states.tolist() == ["annotated", "annotated", "rejected", "rejected"]


def test_instances_are_one_class_on_request(tmp_path: Path, films: Path, masks: Path) -> None:
    values = np.arange(120, dtype=np.uint16).reshape(12, 10) * 5
    write_png(masks / "p0/film.png", values)
    manifest = run(tmp_path, films, masks, units="display", mask_classes={"*": "nucleus"})
    label_map, _ = label_of(manifest, "p0/film.png")
    assert label_map.counts() == {"nucleus": 119}


def save_rgb(path: Path) -> None:
    path.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((12, 10, 3), np.uint8)).save(path)


def save_jpeg(path: Path) -> None:
    path.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((12, 10), np.uint8)).save(path, format="JPEG")


def save_volume(path: Path) -> None:
    write_nifti(path.with_suffix(".nii"), np.zeros((10, 12, 4), np.uint8), np.diag([-1, -1, 1, 1]))
    assert path.with_suffix(".nii").exists()


@pytest.mark.parametrize(
    ("save", "code"),
    [
        (lambda path: write_png(path, np.zeros((12, 11), np.uint8)), "wrong_size"),
        (save_rgb, "mask_color"),
        (save_jpeg, "lossy_mask"),
        (save_volume, "volume_on_image"),
    ],
)
def test_a_film_with_a_mask_that_cannot_be_used(
    tmp_path: Path, films: Path, masks: Path, save, code: str
) -> None:
    pytest.importorskip("nibabel")
    save(masks / "p0/film.png")
    write_png(masks / "p1/film.png", flat(1))
    manifest = run(tmp_path, films, masks, units="display")
    assert set(reasons_of(manifest)) == {code, ""}
    states = manifest.table.set_index("path")["mask_state"]
    assert states.tolist() == ["rejected", "annotated", "not_annotated", "not_annotated"]


def test_a_smaller_mask_of_the_same_proportions_is_resized_on_request(
    tmp_path: Path, films: Path, masks: Path
) -> None:
    small = flat(0)[::2, ::2]
    write_png(masks / "p0/film.png", small)
    assert reasons_of(run(tmp_path, films, masks, units="display")) == ["wrong_size"]
    manifest = run(tmp_path, films, masks, units="display", resample_masks=True)
    label_map, _ = label_of(manifest, "p0/film.png")
    np.testing.assert_array_equal(label_map.single(), small.repeat(2, axis=0).repeat(2, axis=1))
    assert report_of(manifest)["flags"].tolist() == ["resampled"]


def test_a_stack_of_png_needs_every_slice(tmp_path: Path, series: Path, masks: Path) -> None:
    values = volume()
    for n in range(N):
        write_png(masks / f"case1/{(n * 5) % N}.png", values[n])
    np.testing.assert_array_equal(series_map(run(tmp_path, series, masks)).single(), values)
    (masks / "case1/0.png").unlink()
    manifest = run(tmp_path, series, masks)
    assert set(reasons_of(manifest)) == {"missing_slice"}
    assert set(manifest.table["mask_state"]) == {"rejected"}


def test_one_image_is_no_mask_of_a_volume(tmp_path: Path, series: Path, masks: Path) -> None:
    write_png(masks / "case1.png", volume()[0])
    assert reasons_of(run(tmp_path, series, masks)) == ["image_on_volume"]


def test_a_film_is_matched_by_sop_instance(tmp_path: Path, masks: Path, grey, to_bytes) -> None:
    """Radiographs have no frame of reference and no position."""
    folder = tmp_path / "dx"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 4000, (12, 10)).astype(np.uint16)
    for n in range(2):
        dataset = grey(
            pixels + n,
            Modality="DX",
            SOPInstanceUID=f"1.2.8.{n}",
            SeriesInstanceUID=f"1.2.9.{n}",
            ImageType=["ORIGINAL", "PRIMARY"],
            WindowCenter=2000,
            WindowWidth=4000,
            BurnedInAnnotation="NO",
            PresentationIntentType="FOR PRESENTATION",
        )
        (folder / f"{n}.dcm").write_bytes(to_bytes(dataset))
    mask = flat(0) > 0
    data = seg_bytes([(1, mask, None, ("1.2.8.1", 1))], ["lung"], FrameOfReferenceUID=None)
    (masks / "seg").write_bytes(data)
    manifest = run(tmp_path, folder, masks)
    label_map, _ = label_of(manifest, "1.dcm")
    np.testing.assert_array_equal(label_map.plane("lung")[0], mask)
    assert label_of(manifest, "0.dcm")[0].state == "not_annotated"
    data = seg_bytes([(1, mask[1:], None, ("1.2.8.0", 1))], ["lung"])
    (masks / "small").write_bytes(data)
    assert set(reasons_of(run(tmp_path, folder, masks))) == {"wrong_size", ""}


def test_masks_beside_the_images_are_no_images(tmp_path: Path, series: Path) -> None:
    """MASKS below SOURCE, or the same folder."""
    (series / "case1/seg.dcm").write_bytes(bad_seg())
    manifest = run(tmp_path, series, series)
    assert manifest.summary["given"] == N
    assert set(manifest.table["mask_state"]) == {"annotated"}
    assert manifest.summary["annotations"]["skipped"] == N


def test_splits_do_not_depend_on_masks(tmp_path: Path, films: Path, masks: Path) -> None:
    for n in range(4, 12):
        write_png(films / f"p{n}/film.png", flat(n))
    write_png(masks / "p0/film.png", flat(0))
    options: dict = {"units": "display", "seed": 3}
    with_masks = ingest(films, None, tmp_path / "a", masks=masks, **options)
    assert with_masks.work is not None
    without = ingest(
        films, None, tmp_path / "b", key_file=with_masks.work / "pseudonym.key", **options
    )
    columns = list(without.table)
    pd.testing.assert_frame_equal(with_masks.table[columns], without.table)
    assert not any(name.startswith(("mask_", "voxels:")) for name in columns)
    assert without.work is not None
    assert not (without.work / "annotations").exists()
    with raises_code(ManifestError, "no_annotations"):
        read_label_map(without.work, "x")


def test_damage_to_the_files_is_noticed(tmp_path: Path, films: Path, masks: Path) -> None:
    write_png(masks / "p0/film.png", flat(0))
    manifest = run(tmp_path, films, masks, units="display")
    assert manifest.work is not None
    image = manifest.table.set_index("path").loc["p0/film.png", "image"]
    with raises_code(ManifestError, "unknown_sample"):
        read_label_map(manifest.work, "no such image")
    path = manifest.work / f"annotations/{image}.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with raises_code(ManifestError, "annotations_changed"):
        read_label_map(manifest.work, image)


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ("path,class\np0/film.png,a\n", "masks_table"),
        ("path,mask,colour\np0/film.png,crop.png,red\n", "masks_table"),
        ("path,mask,x_offset,y_offset\np0/film.png,crop.png,1,\n", "masks_table"),
        ("path,mask,x_offset,y_offset\np0/film.png,crop.png,1.5,2\n", "masks_table"),
        ("path,mask\n,crop.png\n", "masks_table"),
        ("path,mask\nnowhere.png,crop.png\n", "masks_unmatched"),
    ],
)
def test_a_bad_table(tmp_path: Path, films: Path, masks: Path, table: str, code: str) -> None:
    write_png(masks / "crop.png", flat(0))
    (masks / "masks.csv").write_text(table)
    with raises_code(InputError, code):
        run(tmp_path, films, masks, units="display")
    assert not list(tmp_path.glob("work*"))


def test_no_mask_at_all(tmp_path: Path, films: Path, masks: Path) -> None:
    with raises_code(InputError, "no_masks"):
        run(tmp_path, films, masks, units="display")
    with raises_code(InputError, "no_masks"):
        ingest(films, None, units="display", resample_masks=True)


def test_a_path_of_two_images_is_ambiguous(tmp_path: Path, films: Path, masks: Path) -> None:
    write_png(masks / "p0/film.png", flat(0))
    write_png(masks / "p1/film.png", flat(1))
    (films / "p0/film.jpg").write_bytes((films / "p0/film.png").read_bytes())
    write_png(films / "p0/film.png", flat(5) * 40)
    manifest = run(tmp_path, films, masks, units="display")
    assert set(reasons_of(manifest)) == {"ambiguous_mask", ""}
    assert (manifest.table["mask_state"] == "annotated").sum() == 1


def test_the_command_says_what_became_of_the_masks(
    tmp_path: Path, films: Path, masks: Path
) -> None:
    write_png(masks / "p0/film.png", flat(0))
    common = ("ingest", films, "--units", "display", "--no-split", "--masks", masks)
    result = medres(*common, "--mask-classes", "1=lung,*=", "--out", tmp_path / "cli")
    assert result.exit_code == 0, result.output
    assert "1 masks: 1 used" in result.stdout
    assert "classes: lung" in result.stdout
    summary = json.loads((tmp_path / "cli/ingest.json").read_text())
    assert summary["annotations"]["voxels"] == {"lung": int((flat(0) == 1).sum())}
    for text in ("lung", "1=a,1=b", "=a"):
        fails(medres(*common, "--mask-classes", text, "--out", tmp_path / "x"), code=2)


def test_the_mask_of_a_copy_belongs_to_the_image_that_stays(tmp_path: Path, grey, to_bytes) -> None:
    source, masks = tmp_path / "images", tmp_path / "masks"
    source.mkdir()
    masks.mkdir()
    random = np.random.default_rng(0)
    for n, name in enumerate(["visit1", "other"]):
        image = grey(
            random.integers(0, 999, (8, 9)).astype(np.int16),
            SOPInstanceUID=f"1.2.8.{n}",
            RescaleSlope=1,
            RescaleIntercept=-1024,
        )
        data = to_bytes(image)
        (source / f"{name}.dcm").write_bytes(data)
        Image.fromarray(np.full((8, 9), n + 1, np.uint8)).save(masks / f"{name}.png")
    (source / "copy.dcm").write_bytes((source / "visit1.dcm").read_bytes())  # it comes first
    manifest = run(tmp_path, source, masks)
    assert dict(zip(manifest.table["path"], manifest.table["mask_state"], strict=True)) == {
        "copy.dcm": "annotated",
        "other.dcm": "annotated",
    }
    assert reasons_of(manifest) == ["", ""]
    assert manifest.summary["annotations"]["used"] == 2
    kept = manifest.table.loc[manifest.table["path"] == "copy.dcm", "image"].iloc[0]
    assert manifest.work is not None
    assert read_label_map(manifest.work, kept).counts() == {"1": 72, "2": 0}
