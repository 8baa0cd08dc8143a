from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import rewrite
from helpers import raises_code, work_in_process

from data_pipelines.annotations.boxes import prepare_boxes, read_boxes
from data_pipelines.annotations.boxes.edge_boxes import EdgeBoxes
from data_pipelines.annotations.boxes.padding import IGNORED, PADDING, padded_boxes
from data_pipelines.cache.boxes import box_source
from data_pipelines.cache.store import ensure_cache, verify_caches
from data_pipelines.cache.tf_dataset import datasets
from data_pipelines.errors import CacheError, ManifestError, SpecError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.spec import spec_from


@pytest.fixture(scope="module", autouse=True)
def _here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        work_in_process(patch)
        yield


@pytest.fixture
def work(box_work: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "work"
    shutil.copytree(box_work, copy, ignore=shutil.ignore_patterns("cache"))
    return copy


def test_each_image_comes_with_its_own_boxes(work: Path) -> None:
    spec = spec_from("xray-20")
    cache = ensure_cache(work, spec, boxes=True)
    seen, empty = 0, 0
    for split, batches in zip(
        ("train", "tune", "test"), datasets(work, spec, 4, 0, boxes=True), strict=True
    ):
        for inputs, boxes, weight in batches.as_numpy_iterator():
            assert boxes.shape[1:] == (2, 5)
            assert boxes.dtype == np.float32
            assert (weight == 1).all()
            for row, image, lines in zip(inputs["key"][:, 1], inputs["image"], boxes, strict=True):
                entry = cache.images.iloc[row]
                assert entry["split"] == split
                original = read_boxes(work, entry["image"])
                # 40 pixels became 20: a box of 10 x 12 pixels has 5 x 6
                np.testing.assert_allclose(lines[: len(original), :4], original.edges / 2)
                expected = padded_boxes(prepare_boxes(original, spec), 2)
                np.testing.assert_array_equal(lines, expected)
                for x_min, y_min, x_max, y_max, label in lines.astype(int):
                    if label < 0:
                        continue
                    inside = image[y_min + 1 : y_max - 1, x_min + 1 : x_max - 1]
                    assert (inside.mean() > image.mean()) == (label == 0)
                seen += 1
                empty += (lines == PADDING).all()
    assert (cache.box_classes, cache.most_boxes) == (("bright", "dark"), 2)
    assert cache.left_out == {"not_annotated": 1, "rejected": 1}
    assert seen >= 12
    assert empty >= 1
    assert verify_caches(work) == {cache.folder.name: []}
    assert cache.folder != ensure_cache(work, spec).folder


def test_a_region_to_ignore_is_no_object() -> None:
    boxes = EdgeBoxes.of(
        [(0, 0, 2, 2), (1, 1, 3, 3)], [1, 0], ("a", "b"), (4, 4), ignore=np.array([True, False])
    )
    assert padded_boxes(boxes, 3)[:, 4].tolist() == [IGNORED, 0, PADDING]


def test_other_boxes_have_another_digest(work: Path) -> None:
    table = Manifest.load(work).table
    source = box_source(work, table, spec_from("xray-20"))
    first = next(n for n, each in enumerate(source.boxes) if len(each))
    digests = {source.digest}
    for fields in ({"edges": source.boxes[first].edges + 1}, {"state": "rejected"}):
        boxes = list(source.boxes)
        boxes[first] = boxes[first].changed(**fields)
        digests.add(replace(source, boxes=tuple(boxes)).digest)
    digests |= {replace(source, classes=("a", "b")).digest, replace(source, most=9).digest}
    assert len(digests) == 5


def test_what_has_no_boxes(work: Path, mask_work: Path) -> None:
    with raises_code(ManifestError, "no_boxes"):
        ensure_cache(mask_work, "xray-20", boxes=True)
    with raises_code(SpecError, "several_annotations"):
        ensure_cache(work, "xray-20", boxes=True, masks=True)
    table = Manifest.load(work).table
    rewrite(work, table[table["box_state"] != "annotated"])
    with raises_code(CacheError, "no_annotated_sample"):
        ensure_cache(work, "xray-20", boxes=True)
