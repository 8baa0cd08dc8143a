"""What ingest warns of, plan and train refuse: classes without images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import Lines, raises_code
from PIL import Image

from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.ingestion.pipeline import ingest
from data_pipelines.labels.task import untrainable_classes
from medres.errors import TrainingError
from medres.training.checks import without_stochastic_depth
from medres.training.config.planner import plan
from medres.training.config.recipe import recipe
from medres.training.run import train


def test_the_rule_by_hand() -> None:
    names = [f"c{n:02d}" for n in range(20)]
    assert untrainable_classes(names, {"train": names, "tune": names}) is None
    text = untrainable_classes(names, {"train": names[1:], "tune": names[:3]})
    assert text is not None
    assert text.startswith("18 of 20 classes")
    assert "c00 (train)" in text
    assert "c03 (tune)" in text
    assert "and 6 more" in text


def cohort(folder: Path, sizes: list[int]) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = ["path,patient,class"]
    for number, size in enumerate(sizes):
        for _ in range(size):
            name = len(rows)
            pixels = rng.integers(0, 255, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}.png")
            rows.append(f"{name}.png,p{name},c{number:02d}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


@pytest.mark.parametrize("rare", [1, 3])
def test_ingest_plan_and_train_agree_on_fifteen_classes(tmp_path: Path, rare: int) -> None:
    source, work = cohort(tmp_path / "s", [3] * 14 + [rare]), tmp_path / "work"
    ingest(source, source / "labels.csv", work, units="display", workers=1)
    manifest = Manifest.load(work)
    warned = [text for text in manifest.summary["warnings"] if "--drop-class" in text]
    if rare == 3:
        assert warned == []
        assert plan(manifest).settings["model"]
        return
    assert len(warned) == 1
    assert "1 of 15 classes" in warned[0]
    with raises_code(TrainingError, "class_without_image", "c14", "--merge-classes"):
        plan(manifest)
    with raises_code(TrainingError, "class_without_image", "c14", "--merge-classes"):
        train(work, model="resnet18", preset="xray-32", recipe="small", out=tmp_path / "run")
    assert not (work / "cache").exists()
    merged = ingest(
        source, source / "labels.csv", units="display", merge_classes={"c14": "c13"}, workers=1
    )
    assert plan(merged).fingerprint.findings == 14


def test_a_backbone_of_ones_own_has_no_stochastic_depth() -> None:
    """Asked for: an error. Part of a recipe: a warning, and config.json tells the truth."""
    with raises_code(TrainingError, "no_stochastic_depth", "0.3"):
        without_stochastic_depth(recipe("small", stochastic_depth=0.3), Lines())
    lines = Lines()
    assert without_stochastic_depth(recipe("small"), lines).stochastic_depth == 0
    assert "no_stochastic_depth" in lines.lines[0]
    lines = Lines()
    assert without_stochastic_depth(recipe("default"), lines) == recipe("default")
    assert lines.lines == []
