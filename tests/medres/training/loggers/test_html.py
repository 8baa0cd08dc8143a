from __future__ import annotations

import html.parser
import json
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import medres
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.spec import spec_from
from medres.evaluate.analyses.worst_errors import hashed
from medres.progress import Bars, ProgressReporter
from medres.training.cross_validation.ensemble import logits_of
from medres.training.data import CompiledModel, load_data
from medres.training.loggers.html import WorstImage, thumbnail, training_page, worst_images
from medres.training.loggers.tensorboard import TensorBoardLogger
from medres.training.loop import epoch_line, eta_line


def test_the_page_of_a_run_is_whole_offline_and_names_no_image(
    tiny_run: Path, tiny_work: Path
) -> None:
    page = (tiny_run / "training.html").read_text()
    html.parser.HTMLParser().feed(page)
    assert page.count("<svg") == 4
    for word in (
        "Loss",
        "Tuning (validation) AUC",
        "Learning rate",
        "Gradient norm by stage",
        "stage4",
        "Highest loss in the training split",
        "data_sha256",
    ):
        assert word in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "<script" not in page
    table = Manifest.load(tiny_work).table
    for column in ("image", "patient", "study", "source", "path"):
        assert not [value for value in table[column] if str(value) in page]


def test_the_worst_images_are_those_of_the_greatest_loss(tiny_run: Path, tiny_work: Path) -> None:
    data = load_data(tiny_work, spec_from("xray-32"), Manifest.load(tiny_work), ProgressReporter())
    net = CompiledModel(logits_of(medres.load(tiny_run / "model.keras").artefact))
    scored = net.score(data, "train")
    z, y = scored.scores[:, 0].astype(float), scored.targets.labels[:, 0]
    loss = np.log1p(np.exp(-np.where(y == 1, z, -z)))
    order = np.argsort(-loss)[:5]
    worst = worst_images(net, data, "train", 5)
    assert [image.id for image in worst] == [hashed(scored.table["image"].iloc[i]) for i in order]
    assert [image.loss for image in worst] == pytest.approx(loss[order].tolist(), rel=1e-4)
    assert worst[0].label == f"square {int(y[order[0]])}"
    assert all(image.png.startswith(b"\x89PNG") for image in worst)


def test_thumbnails_show_the_middle_and_the_window() -> None:
    from io import BytesIO

    from PIL import Image

    image = np.zeros((200, 100, 1), np.float32)
    image[:100] = 1.0
    picture = np.asarray(Image.open(BytesIO(thumbnail(image, spec_from("xray-32")))))
    assert picture.shape == (96, 48)
    assert picture[10, 10] == 255
    assert picture[90, 10] == 0
    air = np.full((32, 32, 1), -1000, np.float32)
    assert np.asarray(Image.open(BytesIO(thumbnail(air, spec_from("ct-32"))))).max() == 0


def test_names_are_escaped_and_gaps_in_the_history_are_drawn_around() -> None:
    history = pd.DataFrame(
        {
            "epoch": [1, 2],
            "loss": [1.0, 0.5],
            "tune_loss": [1.0, 0.7],
            "learning_rate": [0.1, 0.1],
            "tune_auc": [np.nan, 0.5],
            "tune_auc_low": [np.nan] * 2,
            "tune_auc_high": [np.nan] * 2,
            "grad_stem": [0.0, 1.0],
        }
    )
    config = {"recipe": {"name": "<b>"}, "model": {"variant": "&"}, "seed": 0}
    worst = {"train": [WorstImage("x", "<script>", "y", 1.0, b"")]}
    page = training_page(history, config, 2, worst)
    assert "<script>" not in page
    assert "<b>" not in page
    assert "nan" not in page
    one = training_page(history.iloc[1:], config, 2, {})
    assert one.count("<circle") == 5


def test_events_are_what_tensorboard_reads(tmp_path: Path) -> None:
    """Read back by the record format: length, its CRC, the message, its CRC."""
    events = TensorBoardLogger(tmp_path)
    events.epoch(
        {"epoch": 3, "loss": 0.25, "tune_auc": None, "grad_stem": 2.0, "tune_loss": float("nan")}
    )
    events.close()
    (path,) = tmp_path.iterdir()
    data, found = path.read_bytes(), []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        found.append(tf.compat.v1.Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    assert found[0].file_version == "brain.Event:2"
    assert found[1].step == 3
    assert {v.tag: v.simple_value for v in found[1].summary.value} == {
        "training/loss": 0.25,
        "gradients/grad_stem": 2.0,
    }
    TensorBoardLogger(tmp_path).close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_leaves_its_events(tiny_run: Path) -> None:
    path = next((tiny_run / "logs").iterdir())
    steps = [
        tf.compat.v1.Event.FromString(r.numpy()).step for r in tf.data.TFRecordDataset(str(path))
    ]
    assert steps == [0, 1, 2, 3, 4, 5, 6]


def test_the_line_of_an_epoch() -> None:
    row = {
        "epoch": 2,
        "loss": 0.5,
        "tune_loss": 0.6,
        "tune_auc": 0.8,
        "tune_auc_low": 0.7,
        "tune_auc_high": 0.9,
        "images_per_second": 120.4,
        "data_wait": 0.031,
        "seconds": 9.0,
    }
    assert epoch_line(row) == (
        "epoch   2  loss 0.5000  tune loss 0.6000  tune AUC 0.800 (0.700 to 0.900)  120 images/s  "
        "data wait 3%  9.0 s"
    )
    assert "AUC" not in epoch_line(row | {"tune_auc": None})


def test_how_long_the_epochs_to_come_take() -> None:
    assert eta_line(1.0, 89, 0) == ""
    assert eta_line(15.5, 99, 20) == (
        "99 more epochs: at most 26 minutes at this pace; early stopping, patience 20; rerun the "
        "same command to resume"
    )
    assert (
        eta_line(300.0, 59, 0)
        == "59 more epochs: at most 4.9 hours at this pace; rerun the same command to resume"
    )


@pytest.mark.long
def test_the_live_line_tells_loss_auc_speed_wait_and_memory(
    tiny_work: Path, tmp_path: Path
) -> None:
    notes: list[str] = []

    class Told(ProgressReporter):
        live = True

        def task(self, name):
            import contextlib

            @contextlib.contextmanager
            def made():
                yield lambda done, total, note="": notes.append(note)

            return made()

    options = {"model": "resnet10", "preset": "xray-32", "width": 4, "batch_size": 8}
    medres.train(tiny_work, **options, epochs=2, out=tmp_path / "run", progress=Told())
    last = notes[-1]
    for word in ("loss 0.", "tune AUC ", "images/s", "data wait ", " GiB"):
        assert word in last
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["compute"]["precision"] == "float32"


def test_bars_take_a_note_and_none(capsys: pytest.CaptureFixture) -> None:
    with Bars().task("x") as update:
        update(1, 2)
        update(2, 2, "loss 1")
    assert capsys.readouterr().err == ""
