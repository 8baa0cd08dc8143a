"""Street scenes that are drawn here, in color and wider than high, with masks of three classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import Lines, work_in_process
from PIL import Image as Pillow

import medres
from data_pipelines import ingest
from medres.inference.masks.scoring import evaluate_segmenter

SIDES = 40, 64
CLASSES = {"1": "sky", "2": "road", "3": "car"}
COLORS = np.array([(60, 130, 60), (110, 160, 230), (120, 120, 120), (190, 40, 40)])
N_SCENES = 36


def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 (rows, columns, 3) and its labels: meadow 0, sky 1, road 2, car 3. The gray
    values of meadow, road and car are alike: only color tells them apart.
    """
    rows, columns = np.indices(SIDES)
    horizon, left = rng.integers(12, 18), rng.integers(10, 40)
    labels = np.where(rows < horizon, 1, 0)
    labels[(rows >= horizon) & (abs(columns - 32) < rows - horizon + 6)] = 2
    labels[25:35, left : left + 14] = 3
    pixels = COLORS[labels] + rng.normal(0, 12, (*SIDES, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8), labels.astype(np.uint8)


@pytest.mark.long  # trains until it has learned
def test_masks_of_color_pictures_from_files_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_in_process(monkeypatch)
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(N_SCENES):
        for folder, values in zip(("images", "masks"), scene(rng), strict=True):
            Pillow.fromarray(values).save(tmp_path / folder / f"{number:02d}.png")
    work = tmp_path / "work"
    ingest(
        tmp_path / "images",
        out=work,
        kind="rgb",
        masks=tmp_path / "masks",
        mask_classes=CLASSES,
    )
    options = {"task": "segmentation", "preset": "rgb-64", "model": "resnet10", "stem": "small"}
    options |= {"width": 8, "batch_size": 4, "epochs": 30, "learning_rate": 0.005}
    run = medres.train(
        work,
        **options,
        augment="none",
        precision="float32",
        out=tmp_path / "run",
        progress=Lines(),
    )
    found = evaluate_segmenter(run.artefact, work)
    dice = {name: f["dice"]["estimate"] for name, f in found.numbers["findings"].items()}
    assert set(dice) == set(CLASSES.values())
    assert min(dice.values()) > 0.8
    with medres.load(run.artefact, isolate=False) as predictor:
        prediction = predictor.predict(tmp_path / "images" / "00.png")
    assert prediction.mask is not None
    assert prediction.mask.labels.shape == SIDES
    truth = np.array(Pillow.open(tmp_path / "masks" / "00.png"))
    assert (prediction.mask.labels == truth).mean() > 0.9
