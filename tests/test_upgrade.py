"""What medres 0.1 wrote opens: a work folder and a model file with the fields of that version."""

from __future__ import annotations

import json
import pydoc
import re
import shutil
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import rewrite
from helpers import raises_code
from hostile import Members, in_config, members_of, write

import medres
from data_pipelines import Manifest
from medres.artefact import archive
from medres.errors import TrainingError

#: of manifest.parquet, without labels; of ingest.json; of the card of a model file and its parts
COLUMNS = (
    "image series study patient source path frame form status repairs kind modality photometric "
    "transfer_syntax manufacturer model body_part view laterality site sex age rows cols "
    "row_spacing col_spacing order verdict file_sha256 pixel_sha256 split"
)
SUMMARY = (
    "audit classes findings folds fractions given images images_unlabelled kinds label_level "
    "label_rows label_rows_repeated label_rows_unmatched manifest_sha256 ok patients pseudonym_key "
    "quarantined readers reasons repaired repairs schema seed skipped sources split_origin splits "
    "task verdicts warnings"
)
CARD = (
    "calibration conformal domain input_units intended_use members names novelty_threshold "
    "operating_points pooling preprocess schema_ task training unit versions windows"
)
PARTS = {
    "preprocess": "kind rows cols fit form slices spacing_mm policy version",
    "domain": "body_parts cols images modalities patients rows spacing_mm views",
    "training": "config kept_epoch left_out splits",
}
NETWORK = "variant version width stem windows"
MEMBERS = "config.json golden.npz medres.json metadata.json model.weights.h5 novelty.npz"


def only(values: dict, names: str) -> dict:
    return {name: value for name, value in values.items() if name in names.split()}


def as_in_0_1(members: Members) -> Members:
    """The members of a model file without what later versions added."""
    card = only(json.loads(members["medres.json"]), CARD)
    card |= {name: only(card[name], names) for name, names in PARTS.items()}
    config = card["training"]["config"]
    card["training"]["config"] = {**config, "model": only(config["model"], NETWORK)}
    card["versions"]["medres"] = "0.1.0"
    narrow = in_config("resnet10_small_width8_classifier", "resnet10_small_classifier")
    return narrow(only(members, MEMBERS)) | {"medres.json": json.dumps(card).encode()}


@pytest.fixture
def old_work(tiny_work: Path, tmp_path: Path) -> Path:
    work = shutil.copytree(tiny_work, tmp_path / "work", ignore=shutil.ignore_patterns("cache"))
    table = Manifest.load(work).table
    table = table[
        [*COLUMNS.split(), *(name for name in table.columns if name.startswith("label:"))]
    ]
    rewrite(work, table)
    path = work / "ingest.json"
    path.write_text(json.dumps(only(json.loads(path.read_text()), SUMMARY)))
    return work


def test_a_model_file_and_a_work_folder_of_0_1_give_the_same_scores(
    tiny_run: Path, tiny_work: Path, old_work: Path, tmp_path: Path
) -> None:
    today = tiny_run / "model.keras"
    old = write(tmp_path / "old.keras", as_in_0_1(members_of(today)))
    assert len(Manifest.load(old_work).table.columns) < len(Manifest.load(tiny_work).table.columns)
    scores = medres.score(old, old_work, "test").table
    expected = medres.score(today, tiny_work, "test").table
    assert list(scores["score"]) == list(expected["score"])
    assert list(scores["label"]) == list(expected["label"])


def test_the_lines_that_make_a_model_file_anew_run(
    tiny_run: Path, old_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parent.parent / "docs/how-to/upgrade.md").read_text(encoding="utf-8")
    lines = re.search(r"```text\n(model = keras.*?)```", page, re.DOTALL)
    assert lines
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "old.keras", as_in_0_1(members_of(tiny_run / "model.keras")))
    exec(lines[1].replace("xray-224", "xray-32"), {"keras": keras, "medres": medres})
    old, new = archive.load("old.keras").model, archive.load("new.keras").model
    images = np.random.default_rng(0).random((3, 32, 32, 1)).astype("float32")
    ends = [keras.Model(net.input, net.get_layer("logits").output)(images) for net in (old, new)]
    assert np.allclose(*ends, atol=1e-5)


def test_the_names_that_are_called_deprecated_still_work() -> None:
    page = (Path(__file__).parent.parent / "docs/how-to/upgrade.md").read_text(encoding="utf-8")
    for row in page.partition("## Deprecated")[2].splitlines():
        if not row.startswith("| `medres."):
            continue
        former, _, warns = row.strip("| ").split(" | ")
        names = re.findall(r"`([\w.]+)`", former)
        parent = names[0].rpartition(".")[0]
        for name in (names[0], *(parent + n if n[0] == "." else n for n in names[1:])):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                sys.modules.pop(name, None)
                assert pydoc.locate(name) is not None, name
            assert any(w.category is DeprecationWarning for w in caught) == (warns == "yes"), name


def test_a_work_folder_of_0_1_is_trained_on(old_work: Path) -> None:
    data = medres.data(old_work, "xray-32")
    images, labels, _ = next(iter(data.train))
    assert images.shape[1:] == (32, 32, 1)
    assert labels.shape[1:] == (1,)


def test_a_run_of_0_1_is_not_continued(tiny_run: Path, tiny_work: Path, tmp_path: Path) -> None:
    """Its settings lack the limits on gaps; the finished model stays usable."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["preprocess"] = only(config["preprocess"], PARTS["preprocess"])
    (run / "config.json").write_text(json.dumps(config))
    settings = {"model": "resnet10", "preset": "xray-32", "width": 8, "batch_size": 8, "seed": 3}
    with raises_code(TrainingError, "other_run", "max_gap_mm"):
        medres.train(tiny_work, **settings, epochs=6, out=run)
