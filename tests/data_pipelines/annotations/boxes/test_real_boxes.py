"""Boxes of real data sets; skipped where MEDRES_DATA names no folder."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code

from data_pipelines.annotations.boxes import read_boxes
from data_pipelines.annotations.boxes.finding import BoxOptions, FoundBoxes, find_boxes
from data_pipelines.annotations.boxes.readers.raw_boxes import ListedImage
from data_pipelines.errors import InputError
from data_pipelines.ingestion import ingest

Boxes = list[tuple]


@pytest.fixture(autouse=True)
def _in_process(request: pytest.FixtureRequest) -> None:
    """No worker is needed here, except for the long ingests."""
    if request.node.get_closest_marker("long") is None:
        request.getfixturevalue("in_process")


def found_in(path: Path, **options: object) -> FoundBoxes:
    return find_boxes(BoxOptions(path, **options), [path.parent / "elsewhere"])


def of_image(image: ListedImage, scale: tuple[int, int] = (1, 1)) -> Boxes:
    """Class and whole-numbered edges of every box, sorted."""
    factor = np.array([*scale, *scale])
    return sorted(
        (box.class_name, *np.round(np.array(box.edges) * factor, 2).tolist()) for box in image.boxes
    )


def test_blood_cells_are_voc_from_1_on(medres_data: Path) -> None:
    """Boxes that the border cuts start at pixel 1 and end at pixel 640 or 480: the convention of
    VOC, whose edges are then exactly those of the image.
    """
    found = found_in(medres_data / "bccd/Annotations")
    boxes = [box for image in found.listed for box in image.boxes]
    assert (found.file_format, len(found.files), len(boxes)) == ("voc", 364, 4888)
    assert Counter(box.class_name for box in boxes) == {"RBC": 4155, "WBC": 372, "Platelets": 361}
    assert Counter(box.code for box in boxes) == {"": 4886, "zero_area": 2}
    edges = np.array([box.edges for box in boxes if not box.code])
    assert edges[:, :2].min(axis=0).tolist() == [0, 0]
    assert edges[:, 2:].max(axis=0).tolist() == [640, 480]
    (first,) = [image for image in found.listed if image.values[0] == "BloodImage_00000"]
    assert first.boxes[0][:3] == ("BloodImage_00000.xml object 1", "WBC", (259, 176, 491, 376))


def test_streets_have_the_same_boxes_in_three_notations(medres_data: Path) -> None:
    """COCO and VOC: equal. YOLO was written from xmax - xmin, without the last pixel. coco.json
    lacks the towns in its names: only images whose number is unique are compared, and one number
    whose images have no box.
    """
    folder = medres_data / "carla"
    by_format: dict[str, dict[str, Boxes]] = defaultdict(dict)
    for name, scale in (("voc", (1, 1)), ("yolo", (640, 380)), ("coco.json", (1, 1))):
        found = found_in(folder / name)
        for image in found.listed:
            if not image.code:
                stem = Path(image.values[0]).stem
                by_format[name][stem] = of_image(image, scale)
    voc, yolo, coco = (by_format[name] for name in ("voc", "yolo", "coco.json"))
    assert (len(voc), len(yolo), len(coco)) == (779, 779, 340)
    numbers = Counter(stem.split("_")[1] for stem in voc)
    compared = 0
    assert sum(map(len, voc.values())) == sum(map(len, yolo.values())) == 2556
    assert sum(not boxes for boxes in voc.values()) == 102
    for stem, boxes in voc.items():
        assert [box[0] for box in boxes] == [box[0] for box in yolo[stem]]
        short = [(name, x, y, right - 1, bottom - 1) for name, x, y, right, bottom in boxes]
        np.testing.assert_allclose(
            [b[1:] for b in sorted(short)], [b[1:] for b in yolo[stem]], atol=0.02
        )
        number = stem.split("_")[1]
        if number in coco and numbers[number] == 1:
            compared += 1
            assert coco[number] == boxes
    assert compared == 285
    with raises_code(InputError, "several_formats", "coco 1", "voc 779", "yolo 779"):
        found_in(folder)


def test_nuclei_are_boxes_of_their_masks(medres_data: Path, tmp_path: Path) -> None:
    from PIL import Image

    for path in sorted((medres_data / "nuclei/labels").glob("*.png"))[:12]:
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "copies").mkdir()
    for path in tmp_path.glob("*.png"):
        (tmp_path / "copies" / path.name).write_bytes(path.read_bytes())
    found = found_in(tmp_path / "copies", objects="labels")
    for image in found.listed:
        labels = np.asarray(Image.open(tmp_path / "copies" / image.name))
        assert len(image.boxes) == len(np.unique(labels)) - 1
        covered = np.zeros(labels.shape, bool)
        for box in image.boxes:
            x_min, y_min, x_max, y_max = map(int, box.edges)
            covered[y_min:y_max, x_min:x_max] = True
            inside = labels[y_min:y_max, x_min:x_max]
            number = int(box.name.rpartition(" ")[2])
            assert (inside == number).sum() == (labels == number).sum()
            for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert (side == number).any()
        assert covered[labels > 0].all()


@pytest.mark.long  # decodes 364 photographs
def test_blood_cells_with_their_published_split(medres_data: Path, tmp_path: Path) -> None:
    folder = medres_data / "bccd"
    splits = {"train": "train", "val": "tune", "test": "test"}
    rows = [
        f"JPEGImages/{name}.jpg,{split}"
        for file, split in splits.items()
        for name in (folder / f"ImageSets/Main/{file}.txt").read_text().split()
    ]
    (tmp_path / "splits.csv").write_text("path,split\n" + "\n".join(rows))
    options = {"units": "display", "color": "luminance"}
    manifest = ingest(
        folder, tmp_path / "splits.csv", tmp_path / "work", boxes=folder, on_leak="drop", **options
    )
    table, block = manifest.table, manifest.summary["boxes"]
    assert table["split"].value_counts().to_dict() == {"train": 205, "tune": 87, "test": 72}
    assert (block["given"], block["used"], block["rejected"]) == (4888, 4886, 2)
    assert block["reasons"] == {"zero_area": 2}
    assert block["boxes"] == {"Platelets": 361, "RBC": 4153, "WBC": 372}
    assert block["images"] == {"annotated": 364, "not_annotated": 0, "rejected": 0}
    assert table["boxes:RBC"].sum() == 4153
    boxes = read_boxes(tmp_path / "work", table["image"].iloc[0])
    assert len(boxes) == table[["boxes:Platelets", "boxes:RBC", "boxes:WBC"]].iloc[0].sum()


@pytest.mark.long  # decodes 779 photographs
def test_streets_with_images_without_objects(medres_data: Path, tmp_path: Path) -> None:
    folder = medres_data / "carla"
    options = {"units": "display", "color": "luminance", "no_split": True}
    manifest = ingest(folder / "images", out=tmp_path / "w", boxes=folder / "yolo", **options)
    block = manifest.summary["boxes"]
    assert (block["given"], block["used"]) == (2556, 2556)
    assert block["images_without_objects"] == 102
    assert block["flags"]["clipped"] == 12
    assert block["boxes"] == {
        **{"bike": 151, "motobike": 81, "traffic_light": 1057},
        **{"traffic_sign": 95, "vehicle": 1172},
    }
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted((folder / "images").glob("*.jpg"))[:3]:
        (few / path.name).write_bytes(path.read_bytes())
    with raises_code(InputError, "boxes_unmatched", "duplicate_image_id"):
        ingest(few, None, None, boxes=folder / "coco.json", **options)


@pytest.mark.long  # reads 535 images and masks
def test_all_nuclei(medres_data: Path, tmp_path: Path) -> None:
    folder = medres_data / "nuclei"
    manifest = ingest(
        folder / "images",
        out=tmp_path / "work",
        boxes=folder / "labels",
        mask_objects="labels",
        box_classes={"*": "nucleus"},
        units="display",
        color="luminance",
        no_split=True,
    )
    assert manifest.summary["boxes"]["boxes"] == {"nucleus": 16331}
    assert manifest.summary["boxes"]["images"]["annotated"] == 535
