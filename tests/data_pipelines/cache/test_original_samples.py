from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import work_in_process
from PIL import Image

from data_pipelines import ingest
from data_pipelines.cache.original_samples import OriginalSamples
from data_pipelines.cache.store import ensure_cache
from data_pipelines.cache.tf_dataset import datasets
from data_pipelines.ingestion.manifest import Manifest


def test_color_pictures_come_back_with_their_originals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_in_process(monkeypatch)
    rng, folder = np.random.default_rng(0), tmp_path / "images"
    folder.mkdir()
    lines = ["path,split"]
    for number in range(6):
        pixels = rng.integers(0, 256, (12 + number, 20, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{('train', 'tune', 'test')[number % 3]}")
    (tmp_path / "splits.csv").write_text("\n".join(lines) + "\n")
    boxes = ["path,x_min,y_min,x_max,y_max,class", *(f"{n}.png,1,1,5,5,a" for n in range(6))]
    (tmp_path / "boxes.csv").write_text("\n".join(boxes) + "\n")
    work = tmp_path / "work"
    ingest(folder, tmp_path / "splits.csv", work, kind="rgb", boxes=tmp_path / "boxes.csv")
    cache = ensure_cache(work, "rgb-16", boxes=True)
    samples = OriginalSamples(Manifest.load(work).table.set_index("image"), cache)
    for batches in datasets(work, "rgb-16", 2, 0, boxes=True):
        for inputs, _, _ in batches.as_numpy_iterator():
            for row, image in zip(inputs["key"][:, 1].tolist(), inputs["image"], strict=True):
                sample = samples.sample(row)
                np.testing.assert_allclose(sample.pixels / 255, image, atol=1e-6)
                assert sample.images[0].pixels.shape[:2] == sample.grid.shape
                assert sample.grid.shape[1] == 20
