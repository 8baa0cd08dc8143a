"""Every format of boxes is converted once, to the same edges."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code

from data_pipelines.annotations.boxes.readers.boxes_table import read_boxes_table
from data_pipelines.annotations.boxes.readers.coco import read_coco
from data_pipelines.annotations.boxes.readers.raw_boxes import ListedImage
from data_pipelines.annotations.boxes.readers.voc import read_voc
from data_pipelines.annotations.boxes.readers.yolo import class_names, read_yolo
from data_pipelines.errors import AnnotationError, InputError, LabelError

#: columns 3 to 5 and rows 2 to 3 of an image of 20 columns and 10 rows
EDGES = (3, 2, 6, 4)


def table(tmp_path: Path, text: str) -> list[ListedImage]:
    path = tmp_path / "boxes.csv"
    path.write_text(text)
    return read_boxes_table(path)


def voc(objects: str, size: str = "<size><width>20</width><height>10</height></size>") -> bytes:
    return f"<annotation><filename>x.jpg</filename>{size}{objects}</annotation>".encode()


def voc_object(*corners: object, more: str = "", name: str = "cyst") -> str:
    tags = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, corners, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


def coco(images: list[dict], annotations: list[dict]) -> bytes:
    categories = [{"id": 7, "name": "cyst"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(content).encode()


def codes(listed: list[ListedImage] | None) -> list[str]:
    assert listed is not None
    return [box.code for image in listed for box in image.boxes]


def edges(listed: list[ListedImage] | None) -> list[tuple]:
    assert listed is not None
    return [box.edges for image in listed for box in image.boxes]


@pytest.mark.parametrize(
    "text",
    [
        "path,x_min,y_min,x_max,y_max,class\na.png,3,2,6,4,cyst\n",
        "path,x,y,width,height,class\na.png,3,2,3,2,cyst\n",
        "File Name,Class,x,y,width,height\n./a.png,cyst,3.0,2,3,2\n",
    ],
)
def test_both_forms_of_a_table_have_the_same_edges(tmp_path: Path, text: str) -> None:
    (listed,) = table(tmp_path, text)
    assert (listed.key, listed.values) == ("path", ("a.png",))
    assert edges([listed]) == [EDGES]
    assert listed.boxes[0].class_name == "cyst"


def test_an_empty_row_is_an_assessed_image(tmp_path: Path) -> None:
    first, second = table(
        tmp_path,
        "sop_instance_uid,x_min,y_min,x_max,y_max,class,score,reader,ignore,frame\n"
        "1.2,3,2,6,4,cyst,0.5,A,1,2\n1.2,3,2,6,4,cyst,,B,,2\n1.3,,,,,,,,,\n",
    )
    assert (first.values, first.frame, second.values, second.boxes) == (("1.2",), 1, ("1.3",), ())
    a, b = first.boxes
    assert (a.score, a.reader, a.ignore) == (0.5, "A", True)
    assert np.isnan(b.score)
    assert (b.reader, b.ignore) == ("B", False)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("a,x,2,6,4,cyst,", "bad_number"),
        ("a,nan,2,6,4,cyst,", "bad_number"),
        ("a,3,2,,4,cyst,", "bad_number"),
        ("a,3,2,6,4,cyst,high", "bad_number"),
        ("a,3,2,6,4,,", "no_class"),
    ],
)
def test_a_bad_row_has_a_code(tmp_path: Path, row: str, code: str) -> None:
    assert codes(table(tmp_path, f"path,x_min,y_min,x_max,y_max,class,score\n{row}\n")) == [code]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("path,x_min,y_min,x_max,class", "boxes_table"),
        ("path,x_min,y_min,x_max,y_max", "boxes_table"),
        ("x_min,y_min,x_max,y_max,class", "boxes_table"),
        ("path,x_min,y_min,x_max,y_max,class,colour", "boxes_table"),
        ("path,x_min,y_min,x_max,y_max,x,class", "boxes_table"),
        ("path,x_min,y_min,z_min,x_max,y_max,z_max,class", "volume_boxes"),
    ],
)
def test_a_table_with_other_columns_is_refused(tmp_path: Path, header: str, code: str) -> None:
    with raises_code(InputError, code):
        table(tmp_path, f"{header}\n{','.join('1' for _ in header.split(','))}\n")


def test_a_table_must_be_one(tmp_path: Path) -> None:
    with raises_code(LabelError, "semicolons"):
        table(tmp_path, "path;x;y\na;1;2\n")
    with raises_code(InputError, "boxes_table"):
        table(tmp_path, "path,x,y,width,height,class\n,1,2,3,4,c\n")
    with raises_code(InputError, "boxes_table"):
        table(tmp_path, "path,x,y,width,height,class,frame\na,1,2,3,4,c,0\n")


def test_coco_is_edges_and_keeps_crowds() -> None:
    image = {"id": 1, "file_name": "x.jpg", "width": 20, "height": 10}
    boxes = [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [3, 2, 3, 2]},
        {"id": 2, "image_id": 1, "category_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        {"id": 3, "image_id": 1, "category_id": 7, "bbox": [0, 0, 8, 9], "ignore": 1},
    ]
    listed = read_coco(coco([image, {"id": 2, "file_name": "y.jpg"}], boxes), "c.json")
    assert listed is not None
    assert [each.values for each in listed] == [("x.jpg",), ("y.jpg",)]
    assert listed[0].size == (10, 20)
    assert listed[1].boxes == ()
    assert edges(listed)[0] == EDGES
    assert [box.ignore for box in listed[0].boxes] == [False, True, True]
    assert [box.flags for box in listed[0].boxes] == [(), ("crowd",), ()]


def test_coco_agrees_with_pycocotools(tmp_path: Path) -> None:
    """Areas and overlaps of our edges are those that pycocotools computes from [x, y, w, h]."""
    pytest.importorskip("pycocotools")
    from pycocotools import mask
    from pycocotools.coco import COCO

    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, 40, (6, 2)), rng.uniform(1, 20, (6, 2))], axis=1)
    records = [
        {
            **{"id": n, "image_id": 1, "category_id": 7, "iscrowd": 0},
            **{"bbox": box.tolist(), "area": float(box[2] * box[3])},
        }
        for n, box in enumerate(boxes, start=1)
    ]
    path = tmp_path / "c.json"
    path.write_bytes(coco([{"id": 1, "file_name": "x", "width": 64, "height": 64}], records))
    theirs = COCO(str(path))
    ours = np.array(edges(read_coco(path.read_bytes(), "c.json")))
    sides = ours[:, 2:] - ours[:, :2]
    low = np.maximum(ours[:, np.newaxis, :2], ours[np.newaxis, :, :2])
    high = np.minimum(ours[:, np.newaxis, 2:], ours[np.newaxis, :, 2:])
    inner = np.prod(np.clip(high - low, 0, None), axis=2)
    area = np.prod(sides, axis=1)
    iou = inner / (area[:, np.newaxis] + area - inner)
    known = [a["bbox"] for a in theirs.loadAnns(theirs.getAnnIds(imgIds=1))]
    np.testing.assert_allclose(iou, mask.iou(np.array(known), np.array(known), [0] * 6), atol=1e-9)
    # and the pixels that pycocotools fills for a box of whole numbers are those between the edges
    rle = mask.frPyObjects(np.array([[3.0, 2.0, 3.0, 2.0]]), 10, 20)
    rows, columns = np.nonzero(mask.decode(rle)[..., 0])
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == EDGES


def test_coco_names_what_is_wrong() -> None:
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2, 2)]
    box = {"category_id": 7, "bbox": [3, 2, 3, 2]}
    listed = read_coco(
        coco(
            images,
            [
                {**box, "image_id": 1, "category_id": 8},
                {**box, "image_id": 1, "bbox": [3, 2, 3]},
                {**box, "image_id": 1, "bbox": [3, 2, float("nan"), 1]},
                {**box, "image_id": 2},
                {**box, "image_id": 9},
            ],
        ),
        "c.json",
    )
    assert listed is not None
    assert codes(listed)[:3] == ["unknown_class", "bad_number", "bad_number"]
    duplicate = "duplicate_image_id"
    assert [each.code for each in listed] == ["", duplicate, duplicate, duplicate, "image_unlisted"]
    assert sum(len(each.boxes) for each in listed) == 5
    assert read_coco(b'{"splits": []}', "c.json") is None
    assert read_coco(b"[1]", "c.json") is None
    with raises_code(AnnotationError, "bad_json"):
        read_coco(b'{"images": [', "c.json")


BOX = {"category_id": 7, "bbox": [3, 2, 3, 2]}


def test_coco_images_of_one_id_are_told_apart_by_file_name() -> None:
    """Where the boxes themselves name the file; a box with the id alone refuses both images."""
    towns = [{"id": 7, "file_name": f"Town0{n}_7.jpg"} for n in (1, 2)]
    named = [{**BOX, "image_id": 7, "file_name": "Town02_7.jpg"}]
    by_name = [{**BOX, "image_id": "Town02_7"}]
    for boxes in (named, by_name):
        listed = read_coco(coco(towns, boxes), "c.json")
        assert listed is not None
        assert [(each.code, len(each.boxes)) for each in listed] == [("", 0), ("", 1)]
    listed = read_coco(coco(towns, [*named, {**BOX, "image_id": 7}]), "c.json")
    assert listed is not None
    assert [(each.code, len(each.boxes)) for each in listed] == [
        *[("duplicate_image_id", 0)] * 2,
        ("duplicate_image_id", 1),
    ]


def test_coco_names_of_files_are_not_mistaken_for_ids() -> None:
    images = [{"id": 1, "file_name": "2.jpg"}, {"id": 2, "file_name": "1.jpg"}]
    listed = read_coco(coco(images, [{**BOX, "image_id": 1}]), "c.json")
    assert listed is not None
    assert [len(each.boxes) for each in listed] == [1, 0]
    images = [{"id": "a", "file_name": "a.jpg"}, {"id": "a", "file_name": "b.jpg"}]
    listed = read_coco(coco(images, [{**BOX, "image_id": "a"}]), "c.json")
    assert listed is not None
    assert {each.code for each in listed} == {"duplicate_image_id"}


def test_coco_ids_of_text_tell_images_of_one_file_name_apart() -> None:
    images = [{"id": f"Town0{n}_7", "file_name": "7.jpg"} for n in (1, 2)]
    listed = read_coco(coco(images, [{**BOX, "image_id": "Town02_7"}]), "c.json")
    assert listed is not None
    assert [(each.values[0], len(each.boxes)) for each in listed] == [
        ("Town01_7", 0),
        ("Town02_7", 1),
    ]


def test_voc_counts_pixels_from_1_and_includes_the_last() -> None:
    more = "<difficult>1</difficult><truncated>1</truncated>"
    content = voc(voc_object(4, 3, 6, 4) + voc_object(1, 1, 20, 10, more=more))
    (listed,) = read_voc(content, "a/y.xml") or []
    assert listed.values == ("a/y", "x.jpg")
    assert listed.size == (10, 20)
    assert edges([listed]) == [EDGES, (0, 0, 20, 10)]
    assert [(b.ignore, b.flags) for b in listed.boxes] == [
        (False, ()),
        (True, ("difficult", "truncated")),
    ]
    (empty,) = read_voc(voc("", size=""), "y.xml") or []
    assert (empty.boxes, empty.size) == ((), None)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (voc_object(4, 3, 4, 3), "zero_area"),
        (voc_object(4, 3, 6, 3), "zero_area"),
        (voc_object(6, 3, 4, 4), "reversed_corners"),
        (voc_object(4, "", 6, 4), "bad_number"),
        ("<object><name>cyst</name></object>", "bad_number"),
        (voc_object(4, 3, 6, 4, name=""), "no_class"),
    ],
)
def test_a_bad_object_of_voc_has_a_code(content: str, code: str) -> None:
    assert codes(read_voc(voc(content), "y.xml")) == [code]


def test_xml_that_is_no_voc() -> None:
    assert read_voc(b"<html/>", "y.xml") is None
    bomb = b'<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'
    for data in (b"<annotation>", bomb):
        with raises_code(AnnotationError, "bad_xml"):
            read_voc(data, "y.xml")


def test_yolo_is_center_and_size_in_shares() -> None:
    line = "0 0.225 0.3 0.15 0.2"
    (listed,) = read_yolo(f"{line}\n\n1 0.225 0.3 0.15 0.2 0.9\n".encode(), "labels/y.txt") or []
    assert listed.values == ("labels/y", "images/y")
    assert listed.relative
    for box in listed.boxes:
        np.testing.assert_allclose(np.multiply(box.edges, [20, 10, 20, 10]), EDGES)
    assert [box.class_name for box in listed.boxes] == ["0", "1"]
    assert listed.boxes[1].score == 0.9
    polygon = read_yolo(b"2 0.15 0.2 0.3 0.2 0.2 0.4", "y.txt")
    np.testing.assert_allclose(np.multiply(edges(polygon), [[20, 10, 20, 10]]), [EDGES])
    (empty,) = read_yolo(b"\n", "y.txt") or []
    assert empty.boxes == ()


def test_yolo_names_what_is_wrong() -> None:
    text = b"0 32 20 6 4\n0 0.5 x 0.1 0.1\n0 0.5 0.5 0.1 0.1 0.2 0.3 0.4"
    assert codes(read_yolo(text, "y.txt")) == ["not_normalized", "bad_number", "bad_number"]
    assert read_yolo(b"BloodImage_00001", "train.txt") is None
    assert read_yolo(b"\xff\xfe", "train.txt") is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "car\nbig truck\n"),
        ("obj.names", "car\nbig truck"),
        ("own.names", "car\nbig truck"),
        ("data.yaml", "train: x\nnames: ['car', \"big truck\"]\n"),
        ("data.yaml", "names:\n  0: car\n  1: big truck\nnc: 2\n"),
        ("data.yaml", "nc: 2\nnames:\n- car\n- big truck\n"),
    ],
)
def test_the_names_of_the_classes_of_yolo(tmp_path: Path, name: str, text: str) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    assert class_names(folder) == ()
    (tmp_path / name).write_text(text)
    assert class_names(folder) == ("car", "big truck")
    assert class_names(tmp_path) == ("car", "big truck")
