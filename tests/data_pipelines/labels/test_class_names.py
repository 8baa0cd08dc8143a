from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code, work_in_process
from PIL import Image as Pillow

from data_pipelines import ingest
from data_pipelines.errors import LabelError
from data_pipelines.labels.class_names import read_class_names

MAPPING = "n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707\tcrane, machine\n"


def test_names_end_at_the_comma_and_equal_ones_keep_their_folder(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(MAPPING)
    assert read_class_names(tmp_path / "names.txt") == {
        "n01440764": "tench",
        "n02012849": "crane (n02012849)",
        "n03126707": "crane (n03126707)",
    }


@pytest.mark.parametrize("text", ["n01440764\n", "a cat\na dog\n"])
def test_a_line_without_a_name_and_a_second_line_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with raises_code(LabelError, "class_names", str(text.count("\n"))):
        read_class_names(tmp_path / "names.txt")


def test_the_layout_of_imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """train/<synset>/*.JPEG and val/<synset>/*.JPEG: val is the tuning (validation) split."""
    work_in_process(monkeypatch)
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for synset in ("n01440764", "n02012849"):
            folder = tmp_path / "in" / split / synset
            folder.mkdir(parents=True)
            for n in range(count):
                pixels = rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)
                Pillow.fromarray(pixels).save(folder / f"{synset}_{n}.JPEG")
    (tmp_path / "in" / "LOC_synset_mapping.txt").write_text(MAPPING)
    manifest = ingest(
        tmp_path / "in",
        kind="rgb",
        class_folders=True,
        class_names=tmp_path / "in" / "LOC_synset_mapping.txt",
    )
    counts = manifest.table.groupby(["split", "class"]).size().to_dict()
    assert counts == {
        ("train", "crane (n02012849)"): 4,
        ("train", "tench"): 4,
        ("tune", "crane (n02012849)"): 2,
        ("tune", "tench"): 2,
    }
    assert manifest.summary["given"] == 12
    (tmp_path / "other.txt").write_text("n99 unicorn\n")
    with raises_code(LabelError, "class_names", "n01440764"):
        ingest(
            tmp_path / "in",
            kind="rgb",
            class_folders=True,
            class_names=tmp_path / "other.txt",
        )
