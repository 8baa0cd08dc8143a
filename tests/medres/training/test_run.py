from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import rewrite
from helpers import raises_code

import medres
from data_pipelines.ingestion.manifest import Manifest
from medres.errors import TrainingError, WeightsError
from medres.inference.scoring import score_split
from medres.training.config.recipe import Recipe

OPTIONS = {"model": "resnet10", "preset": "xray-32", "width": 8, "batch_size": 8}


def test_a_run_folder_holds_what_the_contract_says(tiny_run: Path) -> None:
    assert {p.name for p in tiny_run.iterdir()} >= {
        "model.keras",
        "history.csv",
        "config.json",
        "checkpoints",
    }
    history = pd.read_csv(tiny_run / "history.csv")
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    card = medres.load(tiny_run / "model.keras").card
    assert card.training["kept_epoch"] == history["tune_loss"].idxmin() + 1
    config = json.loads((tiny_run / "config.json").read_text())
    assert config["seed"] == 3
    assert {*config["recipe"]} == {*Recipe.model_fields}
    assert config["recipe"]["batch_size"] == 8


def test_it_learns_the_square(tiny_run: Path, tiny_work: Path) -> None:
    scores, _ = score_split(tiny_run / "model.keras", tiny_work, "train")
    positive, negative = (
        scores.loc[scores["label"] == 1, "score"],
        scores.loc[scores["label"] == 0, "score"],
    )
    assert (positive.to_numpy()[:, None] > negative.to_numpy()).mean() > 0.8


def test_the_artefact_opens_where_medres_is_not(
    tiny_run: Path, tiny_work: Path, tmp_path: Path
) -> None:
    """A fresh process with plain Keras and nothing of ours gives the numbers of the training
    pipeline.
    """
    from data_pipelines import datasets

    test = datasets(tiny_work, "xray-32", 8, seed=0)[2]
    images = np.concatenate([inputs["image"].numpy() for inputs, _, _ in test])
    np.save(tmp_path / "images.npy", images)
    script = f"""
import sys
sys.modules["medres"] = sys.modules["data_pipelines"] = None
import keras, numpy as np
model = keras.saving.load_model({str(tiny_run / "model.keras")!r})
images = np.load({str(tmp_path / "images.npy")!r})
np.save({str(tmp_path / "out.npy")!r}, model.predict(images, verbose=0))
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=tmp_path)
    scores, _ = score_split(tiny_run / "model.keras", tiny_work, "test")
    assert np.abs(np.load(tmp_path / "out.npy")[:, 0] - scores["score"]).max() <= 1e-6


def test_another_configuration_in_the_same_folder_is_refused(
    tiny_run: Path, tiny_work: Path
) -> None:
    with raises_code(TrainingError, "other_run", "seed 3, requested 4"):
        medres.train(tiny_work, **OPTIONS, epochs=6, seed=4, out=tiny_run)


def test_a_folder_of_something_else_is_refused(tiny_work: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with raises_code(TrainingError, "not_a_run"):
        medres.train(tiny_work, **OPTIONS, epochs=1, out=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_one_class_in_tune_is_refused_before_the_first_step(
    tiny_work: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(tiny_work, work)
    table = Manifest.load(work).table
    table.loc[table["split"] == "tune", "label:square"] = 0.0
    rewrite(work, table)
    with raises_code(TrainingError, "one_class", "square", "tune"):
        medres.train(work, **OPTIONS, epochs=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_and_saves_nothing_bad(
    tiny_work: Path, tmp_path: Path
) -> None:
    with raises_code(TrainingError, "not_finite"):
        medres.train(
            tiny_work, **OPTIONS, recipe="paper", learning_rate=1e30, epochs=2, out=tmp_path / "run"
        )
    assert not (tmp_path / "run" / "model.keras").exists()
    for path in (tmp_path / "run" / "checkpoints").glob("*.npz"):
        with np.load(path) as file:
            assert all(np.isfinite(file[n]).all() for n in file.files if n != "state")


def test_balanced_and_multilabel_with_missing_labels_train(tiny_work: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(tiny_work, work)
    table = Manifest.load(work).table
    for _, part in table.groupby("split"):
        number = pd.factorize(part["patient"])[0]
        table.loc[part.index, "label:other"] = np.resize(
            np.array([0, 1, np.nan, -1], np.float32), 100
        )[number]
    rewrite(work, table, task="multilabel", findings=["square", "other"])
    run = medres.train(work, **OPTIONS, class_weights="balanced", epochs=1, out=tmp_path / "run")
    predictor = medres.load(run.artefact)
    assert predictor.card.names == ["square", "other"]
    assert {p.finding for p in predictor.card.operating_points} == {"square", "other"}


def test_multiclass_trains(tiny_work: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(tiny_work, work)
    table = Manifest.load(work).table
    table["class"] = np.where(
        table.pop("label:square") == 1,
        "square",
        np.where(np.arange(len(table)) % 3, "plain", "odd"),
    )
    rewrite(work, table, task="multiclass", findings=[], classes=["odd", "plain", "square"])
    run = medres.train(work, **OPTIONS, epochs=1, out=tmp_path / "run")
    row = Manifest.load(work).table.iloc[0]
    found = medres.load(run.artefact).predict(Path(row["source"]) / row["path"])
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert found.decisions["class"] == max(found.probabilities, key=found.probabilities.__getitem__)


@pytest.mark.long  # by default a recipe that freezes starts from such weights: test_network
def test_weights_of_an_earlier_run_are_the_start(
    tiny_run: Path, tiny_work: Path, tmp_path: Path
) -> None:
    start = medres.load(tiny_run / "model.keras").artefact.model
    run = medres.train(
        tiny_work,
        **OPTIONS,
        epochs=1,
        learning_rate=1e-12,
        weights=tiny_run / "model.keras",
        out=tmp_path / "run",
    )
    found = medres.load(run.artefact).artefact.model
    for layer in ("stem_conv", "logits"):
        assert (
            np.abs(
                start.get_layer(layer).kernel.numpy() - found.get_layer(layer).kernel.numpy()
            ).max()
            < 1e-6
        )


def test_weights_of_another_net_are_refused_and_nothing_is_written(
    tiny_run: Path, tiny_work: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError) as caught:
        medres.train(
            tiny_work,
            **OPTIONS | {"model": "resnet18"},
            epochs=1,
            weights=tiny_run / "model.keras",
            out=tmp_path / "run",
        )
    assert "stage1_block2" in str(caught.value)
    assert not (tmp_path / "run").exists()
