from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import write_cr
from helpers import raises_code
from hypothesis import given
from hypothesis import strategies as st

import medres
from data_pipelines import ingest
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.preparation import to_model_units
from medres.artefact.archive import read_contents, save
from medres.artefact.feature_distance import fit_novelty
from medres.artefact.orientation import fit_orientation_model, orientation_ratios, thumbnails
from medres.artefact.summary import _prediction
from medres.errors import ArtefactError
from medres.progress import ProgressReporter
from medres.training.data import load_data
from medres.training.input_statistics import with_input_statistics

TURNED = {
    "upside down": lambda x: x[:, ::-1],
    "half turn": lambda x: x[:, ::-1, ::-1],
    "quarter turn": lambda x: np.rot90(x, 1, (1, 2)),
    "quarter turn back": lambda x: np.rot90(x, -1, (1, 2)),
    "transposed": lambda x: x.transpose(0, 2, 1),
    "transposed about the other diagonal": lambda x: x[:, ::-1, ::-1].transpose(0, 2, 1),
}


def bodies(n: int, seed: int = 0, side: int = 48) -> np.ndarray:
    """Bright below, dark above, with a blob on one side and noise: (n, side, side)."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side)) / side
    level, left, gain = (
        rng.uniform(*limits, (n, 1, 1)) for limits in ((0.4, 0.7), (0.3, 0.4), (0.6, 1.4))
    )
    blob = np.exp(-((x - left) ** 2 + (y - 0.4) ** 2) / 0.02)
    return (gain * ((y > level) + 0.5 * blob) + rng.normal(0, 0.1, (n, side, side))).astype(
        np.float32
    )


def noise(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 16, 16)).astype(np.float32)


@given(st.integers(16, 70), st.integers(16, 70))
def test_a_thumbnail_holds_the_means_over_equal_parts(rows: int, cols: int) -> None:
    """Against the image with every pixel repeated sixteen times, cut into whole blocks."""
    image = np.random.default_rng(rows * cols).random((rows, cols))
    fine = image.repeat(16, axis=0).repeat(16, axis=1)
    want = fine.reshape(16, rows, 16, cols).mean(axis=(1, 3))
    assert thumbnails(image[np.newaxis, ..., np.newaxis])[0] == pytest.approx(want, rel=1e-5)


def test_slices_and_channels_are_averaged() -> None:
    x = np.random.default_rng(0).random((2, 5, 20, 33, 1)).astype(np.float32)
    want = thumbnails(x.mean(axis=1))
    assert want.shape == (2, 16, 16)
    assert thumbnails(x) == pytest.approx(want, rel=1e-5)
    assert thumbnails(np.moveaxis(x[..., 0], 1, 3)) == pytest.approx(want, rel=1e-5)


def test_the_ratio_is_that_of_the_distances_as_it_is_and_best_turned() -> None:
    small = thumbnails(bodies(40)[..., np.newaxis])
    orientation_model = fit_novelty(small[:30].reshape(30, -1))
    turned = [turn(small[30:]) for turn in TURNED.values()]
    distances = [orientation_model.scores(one.reshape(10, -1)) for one in turned]
    want = orientation_model.scores(small[30:].reshape(10, -1)) / np.min(distances, axis=0)
    assert orientation_ratios(orientation_model, small[30:]) == pytest.approx(want)


@pytest.mark.parametrize("turn", TURNED.values(), ids=TURNED)
def test_rotated_images_are_distinguished_from_upright_ones(turn) -> None:
    orientation_model = fit_orientation_model(
        *(thumbnails(bodies(n, seed)[..., np.newaxis]) for n, seed in ((60, 0), (30, 1)))
    )
    assert orientation_model is not None
    new = bodies(50, seed=2)
    assert (orientation_ratios(orientation_model, thumbnails(new[..., np.newaxis])) < 1).all()
    assert (
        orientation_ratios(orientation_model, thumbnails(turn(new)[..., np.newaxis])) > 1.1
    ).all()


def test_nothing_is_checked_where_the_tuning_images_do_not_stand_one_way() -> None:
    small = thumbnails(bodies(160)[..., np.newaxis])
    train, tune = small[:60], small[60:]
    assert fit_orientation_model(train, tune[:30]) is not None
    assert fit_orientation_model(train, tune[:29]) is None
    assert fit_orientation_model(noise(60, 0), noise(30, 1)) is None
    one, two = tune.copy(), tune.copy()
    one[:1], two[:2] = one[:1, ::-1], two[:2, ::-1]
    assert fit_orientation_model(train, one) is not None  # one of a hundred
    assert fit_orientation_model(train, two) is None
    assert fit_orientation_model(train, one[:99]) is None


@pytest.fixture(scope="module")
def standing(tiny_run: Path) -> medres.Predictor:
    """The tiny model, as if its training images were bright below."""
    artefact = medres.load(tiny_run / "model.keras").artefact
    assert artefact.orientation_model is None
    return medres.Predictor(
        replace(
            artefact,
            orientation_model=fit_novelty(thumbnails(bodies(60)[..., None]).reshape(60, -1)),
        )
    )


def test_an_image_upside_down_is_refused_before_it_is_scored(standing) -> None:
    images = np.rint(65535 * np.clip(bodies(3, seed=5, side=32), 0, 1)).astype(np.uint16)
    small = thumbnails(to_model_units(images, standing.card.preprocess))
    assert (orientation_ratios(standing.artefact.orientation_model, small) < 1).all()
    assert standing.decide(images).code != "rotated"
    images[1:] = images[1:, ::-1]
    prediction = standing.decide(images)
    assert prediction.code == "rotated"
    assert "2 of 3 images" in str(prediction.refused)
    assert prediction.probabilities == prediction.decisions == {}
    assert prediction.n_images == 3


def test_the_member_is_kept_and_a_wrong_one_refused(standing, tmp_path: Path) -> None:
    artefact = standing.artefact
    save(
        tmp_path / "a.keras",
        artefact.model,
        artefact.card,
        artefact.novelty,
        artefact.orientation_model,
    )
    again, small = (
        read_contents(tmp_path / "a.keras").orientation_model,
        thumbnails(bodies(4, seed=3)[..., np.newaxis]),
    )
    assert again is not None
    assert orientation_ratios(again, small) == pytest.approx(
        orientation_ratios(artefact.orientation_model, small), rel=1e-4
    )
    with raises_code(ArtefactError, "malformed_gaussian", "upright.npz", "16 x 16"):
        save(tmp_path / "b.keras", artefact.model, artefact.card, None, artefact.novelty)


def test_real_radiographs_upside_down_are_refused(medres_data: Path) -> None:
    """Fitted to 270 images (NIH, 64 pixels) of 100 patients; on 200 of others: at most 1 % refused
    as they are, 99 % upside down.
    """
    import pandas as pd
    from PIL import Image

    folder = medres_data / "cxr-nih1000"
    if not folder.is_dir():
        pytest.skip("cxr-nih1000 is not in MEDRES_DATA")
    table = pd.read_csv(folder / "labels.csv")
    parts = np.digitize(table["patient_id"].rank(method="dense"), (100, 130, 200))
    train, tune, test = (
        np.stack(
            [
                np.asarray(Image.open(folder / p).convert("L"), np.float32)
                for p in table["path"][parts == n]
            ]
        )
        for n in range(3)
    )
    orientation_model = fit_orientation_model(
        thumbnails(train[..., None]), thumbnails(tune[..., None])
    )
    assert orientation_model is not None
    assert (orientation_ratios(orientation_model, thumbnails(test[..., None])) > 1.1).mean() <= 0.01
    assert (
        orientation_ratios(orientation_model, thumbnails(test[:, ::-1, :, None])) > 1.1
    ).mean() >= 0.99


def test_the_splits_of_a_work_folder_say_whether_it_is_kept(tiny_run: Path, tmp_path: Path) -> None:
    artefact = medres.load(tiny_run / "model.keras").artefact
    lines = ["patient_id,square,split"]
    for n, pixels in enumerate(bodies(64, seed=6, side=40)):
        stored = np.rint(1000 + 800 * pixels).clip(0, 4095)
        write_cr(tmp_path / "in" / f"{n}.dcm", stored, patient=f"P{n}", study="1")
        lines.append(f"P{n},{n % 2},{('train', 'tune', 'test')[min(n // 30, 2)]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    ingest(tmp_path / "in", tmp_path / "labels.csv", tmp_path / "work")
    data = load_data(
        tmp_path / "work",
        artefact.card.preprocess,
        Manifest.load(tmp_path / "work"),
        ProgressReporter(),
    )
    card, _, orientation_model = with_input_statistics(artefact.card, artefact.model, data)
    assert orientation_model is not None
    save(tmp_path / "model.keras", artefact.model, card, None, orientation_model)
    predictor = medres.load(tmp_path / "model.keras")
    assert ("refuses", "images that appear rotated or flipped") in _prediction(predictor.card)
    dataset = pydicom.dcmread(tmp_path / "in" / "63.dcm")
    assert predictor.predict(dataset).refused is None
    dataset.PixelData = dataset.pixel_array[::-1].tobytes()
    assert predictor.predict(dataset).code == "rotated"
