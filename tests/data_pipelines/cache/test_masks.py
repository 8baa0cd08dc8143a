from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import rewrite
from helpers import raises_code, work_in_process

from data_pipelines.annotations import prepare_label_map, read_label_map
from data_pipelines.cache.plan import format_left_out
from data_pipelines.cache.store import ensure_cache, verify_caches
from data_pipelines.cache.tf_dataset import datasets
from data_pipelines.errors import CacheError, ManifestError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.spec import spec_from


@pytest.fixture(scope="module", autouse=True)
def _here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        work_in_process(patch)
        yield


@pytest.fixture
def work(mask_work: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "work"
    shutil.copytree(mask_work, copy, ignore=shutil.ignore_patterns("cache"))
    return copy


def test_each_image_comes_with_its_own_label_map(work: Path) -> None:
    spec = spec_from("xray-24")
    cache = ensure_cache(work, spec, masks=True)
    plain = ensure_cache(work, spec)
    seen = 0
    for split, batches in zip(
        ("train", "tune", "test"), datasets(work, spec, 4, 0, masks=True), strict=True
    ):
        for inputs, mask, weight in batches.as_numpy_iterator():
            assert inputs["image"].shape[1:] == (24, 24, 1)
            assert mask.dtype == np.int32
            assert (weight == 1).all()
            for row, image, labels in zip(inputs["key"][:, 1], inputs["image"], mask, strict=True):
                line = cache.images.iloc[row]
                assert line["split"] == split
                expected = prepare_label_map(read_label_map(work, line["image"]), spec)
                np.testing.assert_array_equal(labels, expected)
                # the squares of the phantom: label 1 is brighter than background, label 2 darker
                assert image[labels == 1].mean() > image[labels == 0].mean() + 0.2
                assert image[labels == 2].mean() < image[labels == 0].mean() - 0.2
                seen += 1
    assert seen >= 12
    assert len(cache.images) == 16
    assert cache.left_out == {"not_annotated": 1, "rejected": 1}
    assert format_left_out(cache.left_out) == "1 samples not_annotated, 1 samples rejected"
    assert cache.mask_classes == ("bright", "dark")
    assert len(plain.images) == 18
    assert plain.mask_classes is None
    assert plain.sample_bytes + 24 * 24 == cache.sample_bytes


def test_verify_covers_the_label_maps(work: Path) -> None:
    cache = ensure_cache(work, "xray-24", masks=True)
    assert verify_caches(work, stages=None) == {cache.folder.name: []}
    path = next(cache.folder.glob("train-*.tfrecord"))
    data = bytearray(path.read_bytes())
    data[-20] ^= 1  # in the label map of the last sample
    path.write_bytes(bytes(data))
    (problems,) = verify_caches(work).values()
    assert len(problems) == 1
    assert path.name in problems[0]


def test_another_annotation_is_another_cache(work: Path) -> None:
    from data_pipelines.annotations import store

    cache = ensure_cache(work, "xray-24", masks=True)
    index, classes = store._opened(work)
    store.write_index(work / "annotations", index.assign(state="not_annotated"), classes)
    with raises_code(CacheError, "no_annotated_sample", "xray-24"):
        ensure_cache(work, "xray-24", masks=True)
    assert "another manifest" in verify_caches(work)[cache.folder.name][0]


def test_a_work_folder_without_masks_is_refused(tiny_work: Path) -> None:
    with raises_code(ManifestError, "no_annotations"):
        ensure_cache(tiny_work, "xray-32", masks=True)


def test_images_that_the_annotations_do_not_know(work: Path) -> None:
    table = Manifest.load(work).table
    rewrite(work, table.assign(image="x" + table["image"]))
    with raises_code(ManifestError, "unknown_sample"):
        ensure_cache(work, "xray-24", masks=True)
