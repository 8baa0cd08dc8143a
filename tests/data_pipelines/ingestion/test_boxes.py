"""Ingest with boxes: which image they belong to, what is refused, and what WORK says about it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import fails, medres, raises_code
from mask_writers import write_nifti, write_png
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from report_writers import group, image, region, report

from data_pipelines.annotations.boxes import read_boxes
from data_pipelines.errors import InputError, ManifestError
from data_pipelines.ingestion import Manifest, ingest

ROWS, COLUMNS = 16, 24
CORNERS = "path,x_min,y_min,x_max,y_max,class\n"


@pytest.fixture(autouse=True)
def _in_process(in_process: None) -> None:
    """No worker is needed here."""


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Images a/0.png, a/1.png, b/2.png and b/3.png."""
    rng = np.random.default_rng(0)
    for n, folder in enumerate("aabb"):
        write_png(
            tmp_path / f"films/{folder}/{n}.png",
            rng.integers(0, 255, (ROWS, COLUMNS)).astype(np.uint8),
        )
    return tmp_path / "films"


def run(tmp_path: Path, source: Path, boxes: Path, **options: object) -> Manifest:
    number = len(list(tmp_path.glob("work*")))
    options = {"units": "display", "no_split": True, **options}
    return ingest(source, None, tmp_path / f"work{number}", boxes=boxes, **options)


def table(tmp_path: Path, rows: str, header: str = CORNERS) -> Path:
    (tmp_path / "boxes.csv").write_text(header + rows)
    return tmp_path / "boxes.csv"


def states_of(manifest: Manifest) -> dict[str, str]:
    return dict(zip(manifest.table["path"], manifest.table["box_state"], strict=True))


def report_of(manifest: Manifest) -> pd.DataFrame:
    assert manifest.work is not None
    return pd.read_csv(manifest.work / "annotations.csv", dtype=str, keep_default_na=False)


def boxes_of(manifest: Manifest, path: str):
    assert manifest.work is not None
    image = manifest.table["image"][manifest.table["path"] == path].iloc[0]
    return read_boxes(manifest.work, image)


def test_a_table_of_boxes(tmp_path: Path, films: Path) -> None:
    rows = "a/0.png,3,2,6,4,cyst\na/0.png,1,1,9,9,mass\na/0.png,4,4,5,6,cyst\nb/2.png,,,,,\n"
    manifest = run(tmp_path, films, table(tmp_path, rows))
    assert states_of(manifest) == {
        "a/0.png": "annotated",
        "a/1.png": "not_annotated",
        "b/2.png": "annotated",
        "b/3.png": "not_annotated",
    }
    by_path = manifest.table.set_index("path")
    assert by_path.loc["a/0.png", ["boxes:cyst", "boxes:mass"]].tolist() == [2, 1]
    assert by_path.loc["b/2.png", ["boxes:cyst", "boxes:mass"]].tolist() == [0, 0]
    assert by_path.loc["a/1.png", ["boxes:cyst", "boxes:mass"]].isna().all()
    assert by_path["box_classes"].tolist() == ["cyst;mass", "", "", ""]
    boxes = boxes_of(manifest, "a/0.png")
    assert boxes.edges.tolist() == [[3, 2, 6, 4], [1, 1, 9, 9], [4, 4, 5, 6]]
    assert [boxes.classes[n] for n in boxes.labels] == ["cyst", "mass", "cyst"]
    assert boxes.size == (ROWS, COLUMNS)
    negative, unknown = boxes_of(manifest, "b/2.png"), boxes_of(manifest, "b/3.png")
    assert (len(negative), negative.annotated) == (0, True)
    assert (len(unknown), unknown.annotated) == (0, False)
    block = manifest.summary["boxes"]
    fates = ("given", "used", "rejected", "unmatched", "skipped")
    assert [block[name] for name in fates] == [3, 3, 0, 0, 0]
    assert block["images"] == {"annotated": 2, "not_annotated": 2, "rejected": 0}
    assert (block["boxes"], block["images_without_objects"]) == ({"cyst": 2, "mass": 1}, 1)
    assert Manifest.load(manifest.work).summary["boxes"] == block


def test_every_fault_of_a_box_is_named_and_counted(tmp_path: Path, films: Path) -> None:
    rows = (
        "a/0.png,3,2,6,4,cyst\na/0.png,3,2,6,4,cyst\na/0.png,9,9,9,9,cyst\n"
        "a/0.png,30,2,36,4,cyst\na/0.png,20,2,26,4,cyst\n"
        "a/1.png,0,0,4,4,cyst\na/1.png,6,2,3,4,cyst\n"
        "gone.png,3,2,6,4,cyst\n"
    )
    manifest = run(tmp_path, films, table(tmp_path, rows))
    report = report_of(manifest)
    assert report["boxes"].tolist() == sorted(report["boxes"])
    assert dict(zip(report["boxes"], report["reason"], strict=True)) == {
        "boxes.csv row 2": "",
        "boxes.csv row 3": "duplicate_box",
        "boxes.csv row 4": "zero_area",
        "boxes.csv row 5": "off_image",
        "boxes.csv row 6": "",
        "boxes.csv row 7": "other_box_rejected",
        "boxes.csv row 8": "reversed_corners",
        "boxes.csv row 9": "image_unmatched",
    }
    states = states_of(manifest)
    assert (states["a/0.png"], states["a/1.png"]) == ("annotated", "rejected")
    assert boxes_of(manifest, "a/0.png").edges.tolist() == [[3, 2, 6, 4], [20, 2, 24, 4]]
    assert boxes_of(manifest, "a/0.png").flags == ("clipped",)
    rejected = boxes_of(manifest, "a/1.png")
    assert (len(rejected), rejected.state) == (0, "rejected")
    block = manifest.summary["boxes"]
    fates = ("given", "used", "rejected", "unmatched", "skipped")
    assert [block[name] for name in fates] == [8, 2, 5, 1, 0]
    assert block["flags"] == {"clipped": 1}
    assert len(manifest.summary["warnings"]) >= 3


def write_voc(path: Path, corners: tuple, name: str = "cyst") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = list(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=bool(corners)))
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    item = f"<object><name>{name}</name><bndbox>{box}</bndbox></object>" if corners else ""
    size = f"<size><width>{COLUMNS}</width><height>{ROWS}</height></size>"
    path.write_text(f"<annotation>{size}{item}</annotation>")


def write_coco(path: Path, images: list[dict], annotations: list[dict]) -> None:
    categories = [{"id": 1, "name": "cyst"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))


def test_all_formats_give_the_same_boxes(tmp_path: Path, films: Path) -> None:
    """Also an image without an object, in each format."""
    write_voc(tmp_path / "voc/0.xml", (4, 3, 6, 4))
    write_voc(tmp_path / "voc/3.xml", ())
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo/0.txt").write_text(f"0 {4.5 / COLUMNS} {3 / ROWS} {3 / COLUMNS} {2 / ROWS}\n")
    (tmp_path / "yolo/3.txt").write_text("")
    (tmp_path / "yolo/classes.txt").write_text("cyst\n")
    size = {"width": COLUMNS, "height": ROWS}
    write_coco(
        tmp_path / "coco.json",
        [{"id": 5, "file_name": "0.png", **size}, {"id": 6, "file_name": "b/3.png", **size}],
        [{"id": 1, "image_id": 5, "category_id": 1, "bbox": [3, 2, 3, 2]}],
    )
    mask = np.zeros((ROWS, COLUMNS), np.uint8)
    write_png(tmp_path / "masks/b/3.png", mask)
    mask[2:4, 3:6] = 7
    write_png(tmp_path / "masks/a/0.png", mask)
    rows = "a/0.png,3,2,3,2,cyst\nb/3.png,,,,,\n"
    csv = table(tmp_path, rows, "path,x,y,width,height,class\n")
    masks = {"mask_objects": "labels", "box_classes": {"*": "cyst"}}
    for path, options in (
        (csv, {}),
        (tmp_path / "voc", {}),
        (tmp_path / "yolo", {}),
        (tmp_path / "coco.json", {}),
        (tmp_path / "masks", masks),
    ):
        manifest = run(tmp_path, films, path, **options)
        assert boxes_of(manifest, "a/0.png").edges.tolist() == [[3, 2, 6, 4]], path
        assert boxes_of(manifest, "a/0.png").classes == ("cyst",)
        assert list(states_of(manifest).values()) == [
            *("annotated", "not_annotated", "not_annotated", "annotated")
        ]
        assert manifest.summary["boxes"]["images_without_objects"] == 1


def test_coco_that_repeats_ids_and_names_says_what_to_do(tmp_path: Path, films: Path) -> None:
    """As of drives whose towns are missing in the names: nothing tells the images apart."""
    images = [{"id": "7", "file_name": "7.png"}] * 2
    box = {"image_id": "7", "category_id": 1, "bbox": [3, 2, 3, 2]}
    write_coco(tmp_path / "c.json", images, [box])
    with raises_code(InputError, "boxes_unmatched", "duplicate_image_id 3", "c.json"):
        run(tmp_path, films, tmp_path / "c.json")


def test_files_of_boxes_may_lie_among_the_images(tmp_path: Path, films: Path) -> None:
    write_voc(films / "a/0.xml", (4, 3, 6, 4))
    (films / "train.txt").write_text("0\n")
    (films / "notes.txt").write_text("")
    manifest = run(tmp_path, films, films)
    assert manifest.summary["boxes"]["used"] == 1
    assert manifest.summary["boxes"]["format"] == "voc"
    assert len(manifest.table) == 4
    assert manifest.summary["skipped"] == 2  # the two texts
    (films / "b/2.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with raises_code(InputError, "several_formats", "voc 1", "yolo 2"):
        run(tmp_path, films, films)


def test_a_name_that_two_images_have(tmp_path: Path, films: Path) -> None:
    write_png(films / "b/0.png", np.eye(ROWS, COLUMNS, dtype=np.uint8))
    write_voc(tmp_path / "voc/0.xml", (4, 3, 6, 4))
    write_voc(tmp_path / "voc/2.xml", (4, 3, 6, 4))
    manifest = run(tmp_path, films, tmp_path / "voc")
    assert manifest.summary["boxes"]["reasons"] == {"ambiguous_image": 1}
    # and an image that two files list
    write_voc(tmp_path / "voc/b/2.xml", (4, 3, 6, 4))
    write_voc(tmp_path / "voc/3.xml", ())
    manifest = run(tmp_path, films, tmp_path / "voc")
    assert states_of(manifest)["b/2.png"] == "rejected"
    assert manifest.summary["boxes"]["reasons"]["listed_twice"] == 2


@pytest.fixture
def copied(tmp_path: Path, grey, to_bytes) -> Path:
    """other.dcm, and visit1.dcm with a copy of it: an export with other UIDs, that comes first."""
    (tmp_path / "dicom").mkdir()
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 999, (ROWS, COLUMNS)).astype(np.int16) for _ in range(2)]
    for uid, (name, n) in enumerate([("visit1", 0), ("other", 1), ("copy", 0)]):
        dataset = grey(
            pixels[n],
            SOPInstanceUID=f"1.2.8.{uid}",
            SeriesInstanceUID=f"1.2.9.{uid}",
            RescaleSlope=1,
            RescaleIntercept=-1024,
        )
        (tmp_path / f"dicom/{name}.dcm").write_bytes(to_bytes(dataset))
    return tmp_path / "dicom"


OTHER = "other.dcm,1,1,9,9,cyst\n"


@pytest.mark.parametrize(
    ("key", "name", "other"),
    [("path", "visit1.dcm", "other.dcm"), ("sop_instance_uid", "1.2.8.0", "1.2.8.1")],
)
def test_boxes_of_a_copy_belong_to_the_image_that_stays(
    tmp_path: Path, copied: Path, key: str, name: str, other: str
) -> None:
    rows = f"{name},3,2,6,4,cyst\n{other},1,1,9,9,cyst\n"
    header = CORNERS.replace("path", key)
    manifest = run(tmp_path, copied, table(tmp_path, rows, header), units=None)
    assert states_of(manifest) == {"copy.dcm": "annotated", "other.dcm": "annotated"}
    assert boxes_of(manifest, "copy.dcm").edges.tolist() == [[3, 2, 6, 4]]
    assert manifest.summary["boxes"]["reasons"] == {}


def test_a_file_named_after_a_copy_belongs_to_the_image_that_stays(
    tmp_path: Path, copied: Path
) -> None:
    write_voc(tmp_path / "voc/visit1.xml", (4, 3, 6, 4))
    write_voc(tmp_path / "voc/other.xml", (4, 3, 6, 4))
    manifest = run(tmp_path, copied, tmp_path / "voc", units=None)
    assert boxes_of(manifest, "copy.dcm").edges.tolist() == [[3, 2, 6, 4]]
    assert manifest.summary["boxes"]["images"]["annotated"] == 2


@pytest.mark.parametrize(
    ("of_copy", "state", "reasons"),
    [
        ("copy.dcm,3,2,6,4,cyst\n", "annotated", {"duplicate_box": 1}),
        ("copy.dcm,3,2,6,5,cyst\n", "rejected", {"duplicate_conflict": 2}),
        ("copy.dcm,,,,,\n", "rejected", {"duplicate_conflict": 2}),
    ],
)
def test_an_image_and_its_copy_that_are_both_listed(
    tmp_path: Path, copied: Path, of_copy: str, state: str, reasons: dict
) -> None:
    rows = table(tmp_path, f"visit1.dcm,3,2,6,4,cyst\n{of_copy}{OTHER}")
    manifest = run(tmp_path, copied, rows, units=None)
    assert states_of(manifest) == {"copy.dcm": state, "other.dcm": "annotated"}
    assert {
        code: n for code, n in manifest.summary["boxes"]["reasons"].items() if code in reasons
    } == reasons
    assert len(boxes_of(manifest, "copy.dcm")) == (state == "annotated")


def test_boxes_that_were_drawn_on_another_size(tmp_path: Path, films: Path) -> None:
    image = {"id": 1, "file_name": "a/0.png", "width": 2 * COLUMNS, "height": 2 * ROWS}
    box = {"image_id": 1, "category_id": 1, "bbox": [3, 2, 3, 2]}
    write_coco(tmp_path / "c.json", [image], [box])
    manifest = run(tmp_path, films, tmp_path / "c.json")
    assert report_of(manifest)["reason"].tolist() == ["wrong_size"]
    assert states_of(manifest)["a/0.png"] == "rejected"


def test_a_file_that_cannot_be_read_rejects_its_image(tmp_path: Path, films: Path) -> None:
    write_voc(tmp_path / "voc/0.xml", (4, 3, 6, 4))
    (tmp_path / "voc/2.xml").write_text("<annotation><object>")
    manifest = run(tmp_path, films, tmp_path / "voc")
    assert states_of(manifest)["b/2.png"] == "rejected"
    assert manifest.summary["boxes"]["reasons"] == {"bad_xml": 1}


def test_crowds_are_kept_apart(tmp_path: Path, films: Path) -> None:
    image = {"id": 1, "file_name": "a/0.png"}
    box = {"image_id": 1, "category_id": 1, "bbox": [3, 2, 3, 2]}
    write_coco(tmp_path / "c.json", [image], [box, {**box, "bbox": [0, 0, 9, 9], "iscrowd": 1}])
    manifest = run(tmp_path, films, tmp_path / "c.json")
    assert boxes_of(manifest, "a/0.png").ignore.tolist() == [False, True]
    block = manifest.summary["boxes"]
    assert (block["used"], block["ignore"], block["boxes"]) == (2, 1, {"cyst": 1})
    assert manifest.table["boxes:cyst"].iloc[0] == 1


@pytest.mark.parametrize(
    ("rows", "mention"),
    [
        ("a/0.png,1,1,6,4,cyst\na/1.png,2,1,6,9,cyst\n", "start at 1"),
        (f"a/0.png,0,2,{COLUMNS + 1},4,cyst\n", "one pixel beyond"),
        (f"a/0.png,3,0,6,{ROWS + 1},cyst\n", "one pixel beyond"),
    ],
)
def test_pixels_that_were_counted_from_1(
    tmp_path: Path, films: Path, rows: str, mention: str
) -> None:
    manifest = run(tmp_path, films, table(tmp_path, rows))
    assert len(manifest.summary["boxes"]["warnings"]) == 2  # images without boxes, and this one
    assert mention in manifest.summary["boxes"]["warnings"][1]
    assert set(manifest.summary["boxes"]["warnings"]) <= set(manifest.summary["warnings"])


def test_voc_files_that_count_from_0(tmp_path: Path, films: Path) -> None:
    write_voc(tmp_path / "voc/0.xml", (0, 3, 6, 4))
    write_voc(tmp_path / "voc/1.xml", (1, 3, 6, 4))
    manifest = run(tmp_path, films, tmp_path / "voc")
    assert boxes_of(manifest, "a/0.png").edges.tolist() == [[0, 2, 6, 4]]
    assert manifest.summary["boxes"]["flags"] == {"clipped": 1}
    assert "1 corners" in manifest.summary["boxes"]["warnings"][1]


def test_a_table_in_another_unit_is_refused(tmp_path: Path, films: Path) -> None:
    rows = "a/0.png,0.1,0.2,0.3,0.4,cyst\na/1.png,0,0,1,1,cyst\n"
    with raises_code(InputError, "normalized_boxes"):
        run(tmp_path, films, table(tmp_path, rows))


@pytest.mark.parametrize(
    ("path", "options", "code"),
    [
        ("nothing", {}, "no_boxes"),
        ("masks", {}, "mask_objects"),
        ("absent", {}, "no_source"),
        (None, {"mask_objects": "labels"}, "no_boxes"),
        (None, {"box_classes": {"a": "b"}}, "no_boxes"),
        ("bad.json", {}, "bad_json"),
    ],
)
def test_arguments_without_boxes(
    tmp_path: Path, films: Path, path: str | None, options: dict, code: str
) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing/readme.md").write_text("x")
    (tmp_path / "bad.json").write_text("{")
    write_png(tmp_path / "masks/a/0.png", np.ones((ROWS, COLUMNS), np.uint8))
    with raises_code(InputError, code):
        run(tmp_path, films, None if path is None else tmp_path / path, **options)


def test_images_that_do_not_exist(tmp_path: Path, films: Path) -> None:
    with raises_code(InputError, "boxes_unmatched", "image_unmatched 1"):
        run(tmp_path, films, table(tmp_path, "c/9.png,3,2,6,4,cyst\n"))
    # a name is not taken for that of an image in another folder
    write_coco(tmp_path / "c.json", [{"id": 1, "file_name": "c/0.png"}], [])
    with raises_code(InputError, "boxes_unmatched"):
        run(tmp_path, films, tmp_path / "c.json")


def test_volumes_are_refused_by_name(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(-100, 100, (8, 9, 3)).astype(np.int16)
    write_nifti(tmp_path / "ct/v.nii.gz", volume, np.eye(4))
    path = table(tmp_path, "v.nii.gz,3,2,6,4,cyst\n")
    with raises_code(InputError, "volume_boxes"):
        run(tmp_path, tmp_path / "ct", path, nifti_units="HU", units=None)


@pytest.fixture
def series(tmp_path: Path, grey, to_bytes) -> Path:
    """A CT series of 3 slices."""
    (tmp_path / "ct").mkdir()
    rng = np.random.default_rng(0)
    for n in range(3):
        dataset = grey(
            rng.integers(0, 2000, (ROWS, COLUMNS)).astype(np.int16),
            SOPInstanceUID=UID(f"1.2.7.{n}"),
            SeriesInstanceUID="1.2.7",
            ImagePositionPatient=[0, 0, 2.0 * n],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 1],
            RescaleSlope=1,
            RescaleIntercept=-1024,
        )
        (tmp_path / f"ct/{n}.dcm").write_bytes(to_bytes(dataset))
    return tmp_path / "ct"


def test_a_box_of_one_slice_and_none_of_all_slices(tmp_path: Path, series: Path) -> None:
    header = CORNERS.replace("path", "sop_instance_uid")
    manifest = run(tmp_path, series, table(tmp_path, "1.2.7.1,3,2,6,4,cyst\n", header), units=None)
    assert boxes_of(manifest, "1.dcm").edges.tolist() == [[3, 2, 6, 4]]
    header = CORNERS.replace("path", "series_instance_uid")
    with raises_code(InputError, "volume_boxes"):
        run(tmp_path, series, table(tmp_path, "1.2.7,3,2,6,4,cyst\n", header), units=None)


def write_report(path: Path, patient: str, to_bytes, uid: str = "1.2.7.1") -> None:
    dataset = report(group(region("CIRCLE", 10, 8, 10, 11, at=image(uid))))
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    dataset.SOPInstanceUID = generate_uid()
    dataset.PatientID = patient
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(to_bytes(dataset))


def test_a_report_refers_to_its_image(tmp_path: Path, series: Path, to_bytes) -> None:
    write_report(tmp_path / "sr/any", "P1", to_bytes)
    manifest = run(tmp_path, series, tmp_path / "sr", units=None)
    boxes = boxes_of(manifest, "1.dcm")
    assert (boxes.edges.tolist(), boxes.classes) == ([[7, 5, 13, 11]], ("Nodule",))
    write_report(series / "sr.dcm", "P1", to_bytes, "1.2.7.2")
    manifest = run(tmp_path, series, series, units=None)  # among the images
    assert list(states_of(manifest).values()) == ["not_annotated", "not_annotated", "annotated"]
    write_report(tmp_path / "sr/other", "P2", to_bytes)
    manifest = run(tmp_path, series, tmp_path / "sr", units=None)
    assert manifest.summary["boxes"]["reasons"] == {"wrong_patient": 1}


def test_masks_and_boxes_together(tmp_path: Path, films: Path) -> None:
    write_png(tmp_path / "masks/a/0.png", np.ones((ROWS, COLUMNS), np.uint8))
    path = table(tmp_path, "a/0.png,3,2,6,4,cyst\n")
    manifest = run(tmp_path, films, path, masks=tmp_path / "masks")
    report = report_of(manifest)
    assert report[["mask", "boxes", "state"]].to_numpy().tolist() == [
        ["a/0.png", "", "used"],
        ["", "boxes.csv row 2", "used"],
    ]
    assert {"annotations", "boxes"} <= manifest.summary.keys()


def test_a_changed_file_is_noticed(tmp_path: Path, films: Path) -> None:
    manifest = run(tmp_path, films, table(tmp_path, "a/0.png,3,2,6,4,cyst\n"))
    assert manifest.work is not None
    with raises_code(ManifestError, "unknown_sample"):
        read_boxes(manifest.work, "nobody")
    path = manifest.work / "boxes/boxes.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    (manifest.work / "boxes/classes.json").touch()
    with raises_code(ManifestError, "boxes_changed"):
        read_boxes(manifest.work, manifest.table["image"].iloc[0])
    with raises_code(ManifestError, "no_boxes"):
        read_boxes(tmp_path, "x")


def test_the_command(tmp_path: Path, films: Path) -> None:
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo/0.txt").write_text("0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.2 0.2\n")
    common = ["ingest", films, "--units", "display", "--no-split", "--boxes", tmp_path / "yolo"]
    result = medres(*common, "--box-classes", "0=car,*=", "--out", tmp_path / "cli")
    assert result.exit_code == 0
    assert "2 boxes: 1 used, 0 rejected, 0 unmatched, 1 skipped" in result.stdout
    assert "classes: car" in result.stdout
    for wrong in ("car", "=car", "0=car,0=bus"):
        fails(medres(*common, "--box-classes", wrong, "--out", tmp_path / "x"), code=2)


def test_a_table_of_splits_needs_no_finding_beside_boxes(tmp_path: Path, films: Path) -> None:
    splits = tmp_path / "splits.csv"
    splits.write_text(
        "path,patient,split\na/0.png,A,train\na/1.png,A,train\nb/2.png,B,val\nb/3.png,C,test\n"
    )
    path = table(tmp_path, "a/0.png,3,2,6,4,cyst\n")
    manifest = ingest(films, splits, boxes=path, units="display", key_file=None)
    assert manifest.table["split"].tolist() == ["train", "train", "tune", "test"]
    assert manifest.table["patient"].nunique() == 3
    assert manifest.summary["task"] == "none"
    assert manifest.summary["boxes"]["used"] == 1
    with raises_code(InputError, "no_finding"):
        ingest(films, splits, units="display")


def test_a_cohort_without_any_object(tmp_path: Path, films: Path) -> None:
    manifest = run(tmp_path, films, table(tmp_path, "a/0.png,,,,,\nb/2.png,,,,,\n"))
    assert list(states_of(manifest).values()).count("annotated") == 2
    boxes = boxes_of(manifest, "a/0.png")
    assert (len(boxes), boxes.annotated, boxes.classes) == (0, True, ())
    assert manifest.summary["boxes"]["images_without_objects"] == 2
    assert manifest.summary["boxes"]["given"] == 0


def test_colors_are_no_mask(tmp_path: Path, films: Path) -> None:
    write_png(tmp_path / "masks/a/0.png", np.ones((ROWS, COLUMNS), np.uint8))
    Image.new("RGB", (COLUMNS, ROWS)).save(tmp_path / "masks/a/1.png")
    manifest = run(tmp_path, films, tmp_path / "masks", mask_objects="labels")
    assert states_of(manifest)["a/1.png"] == "rejected"
    assert manifest.summary["boxes"]["reasons"] == {"mask_color": 1}
    assert boxes_of(manifest, "a/0.png").classes == ("object",)
