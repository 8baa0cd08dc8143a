"""fit, save, open in plain Keras in a fresh process, score, report: on the tiny cohort."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import raises_code
from keras import layers

import medres
from data_pipelines.cache.store import cached_specs
from data_pipelines.preprocessing.spec import spec_from
from medres.artefact.archive import load
from medres.errors import ArtefactError, ModelError, TrainingError
from medres.evaluate.metrics.calibration import expit
from medres.fitting.scoring import _cached_spec
from medres.training.calibration.scaling import platt

PRESET = "xray-32"
PLAIN_KERAS = """
import sys
sys.modules["medres"] = sys.modules["data_pipelines"] = None
import keras, numpy
model = keras.saving.load_model(sys.argv[1])
numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2]), verbose=0))
"""


def small_model() -> keras.Model:
    """A model of somebody else's: a nested backbone, augmentation inside, a sigmoid at its end."""
    keras.utils.set_random_seed(0)
    inner = keras.Input((32, 32, 1))
    x = layers.Conv2D(8, 5, strides=2, activation="relu")(inner)
    backbone = keras.Model(inner, layers.MaxPooling2D(3, name="first_pooled")(x))
    image = keras.Input((32, 32, 1))
    x = backbone(layers.RandomFlip()(image), training=False)
    x = layers.GlobalMaxPooling2D()(x)
    return keras.Model(image, layers.Dense(1, activation="sigmoid")(x), name="theirs")


@pytest.fixture(scope="module")
def fitted(tiny_work: Path) -> keras.Model:
    sets = medres.data(tiny_work, PRESET, 8, 3)
    model = small_model()
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", jit_compile=False)
    model.fit(sets.train, validation_data=sets.tune, epochs=4, verbose=0, shuffle=False)
    return model


@pytest.fixture(scope="module")
def saved(fitted: keras.Model, tiny_work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("saved") / "new" / "model.keras"
    return medres.save(fitted, tiny_work, preset=PRESET, out=out)


@pytest.fixture(scope="module")
def images(tiny_work: Path) -> Iterator[np.ndarray]:
    test = medres.data(tiny_work, PRESET, 8, 3).test
    return np.concatenate([image for image, _, _ in test])


@pytest.mark.long  # a fresh TensorFlow; by default test_run opens such a file without medres
def test_plain_keras_opens_the_file_in_a_fresh_process(
    saved: Path, images: np.ndarray, tmp_path: Path
) -> None:
    inputs, outputs = tmp_path / "inputs.npy", tmp_path / "outputs.npy"
    np.save(inputs, images)
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-I", "-c", PLAIN_KERAS, str(saved), str(inputs), str(outputs)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    expected = load(saved).model.predict(images, verbose=0)
    np.testing.assert_allclose(np.load(outputs), expected, atol=1e-6)


def test_the_file_holds_the_fitted_model_with_platts_calibration(
    saved: Path, fitted: keras.Model, images: np.ndarray, tiny_work: Path
) -> None:
    artefact = load(saved)
    p = fitted.predict(images, verbose=0).astype(np.float64)
    scale, offset = (artefact.card.calibration[key][0] for key in ("scale", "offset"))
    expected = expit(np.log(p / (1 - p)) * scale + offset)
    np.testing.assert_allclose(artefact.model.predict(images, verbose=0), expected, atol=1e-5)
    assert artefact.card.training["kept_epoch"] == 4
    assert (artefact.card.calibration["split"], artefact.card.calibration["n"]) == ("tune", [5])
    assert artefact.card.novelty_threshold is not None
    assert artefact.novelty.mean.shape == (8,)  # the input of the head
    # Platt's scaling by hand: the largest logit of each study of the tuning split.
    tune = medres.data(tiny_work, PRESET, 8, 3, keys=True).tune
    largest: dict[bytes, tuple[float, float]] = {}
    for image, label, _, keys in tune.as_numpy_iterator():
        q = fitted.predict(image, verbose=0).astype(np.float64)[:, 0]
        logits = np.log(q / (1 - q))
        for patient, z, y in zip(keys["patient"], logits, label[:, 0], strict=True):
            largest[patient] = max(largest.get(patient, (-np.inf, 0.0)), (z, y))
    z, y = np.array(list(largest.values())).T
    np.testing.assert_allclose((scale, offset), platt(z, y), rtol=1e-3, atol=1e-3)


def test_score_and_report(saved: Path, tiny_work: Path, images: np.ndarray) -> None:
    scored = medres.score(saved, tiny_work, "test")
    np.testing.assert_allclose(
        scored.table["score"], load(saved).model.predict(images, verbose=0)[:, 0], atol=1e-6
    )
    (point,) = (p for p in scored.thresholds if p["unit"] == scored.unit)
    assert (point["split"], point["n_patients"]) == ("tune", 5)
    report = medres.evaluate.evaluate(scored)
    finding = json.loads(report.to_json())["findings"]["positive"]
    assert 0 <= finding["auc"]["estimate"] <= 1


def test_a_model_that_was_not_saved_is_scored_as_its_file(
    saved: Path, fitted: keras.Model, tiny_work: Path, tmp_path: Path, monkeypatch
) -> None:
    expected = medres.score(saved, tiny_work, "tune")
    scored = medres.score(fitted, tiny_work, "tune", preset=PRESET)
    np.testing.assert_allclose(scored.table["score"], expected.table["score"], atol=1e-6)
    assert scored.thresholds == expected.thresholds
    assert spec_from(PRESET) in cached_specs(tiny_work)
    caches = [spec_from(PRESET), spec_from("xray-16")]
    monkeypatch.setattr("medres.fitting.scoring.cached_specs", lambda work: caches)
    assert _cached_spec(fitted, tiny_work).name == PRESET
    two_caches = [
        spec_from(PRESET),
        spec_from({**spec_from(PRESET).model_dump(), "fit": "stretch"}),
    ]
    monkeypatch.setattr("medres.fitting.scoring.cached_specs", lambda work: two_caches)
    with raises_code(TrainingError, "which_preset", "(None, 32, 32, 1)", PRESET):
        medres.score(fitted, tiny_work)
    with raises_code(ModelError, "several_outputs"):
        medres.score(two_outputs(), tiny_work, preset=PRESET)
    with raises_code(TrainingError, "stated_by_file"):
        medres.score(saved, tiny_work, preset=PRESET)


def test_the_predictor_answers_for_a_file_and_refuses_a_strange_one(
    saved: Path, tiny_work: Path
) -> None:
    source = tiny_work.parent / "images"
    with medres.load(saved) as predictor:
        prediction = predictor.predict(sorted(source.glob("TINY000-*.dcm")))
    assert prediction.refused is None
    assert 0 <= prediction.probabilities["square"] <= 1


def test_saving_twice_gives_equal_thresholds_and_leaves_the_model_as_it_was(
    saved: Path, fitted: keras.Model, tiny_work: Path, tmp_path: Path
) -> None:
    before = [w.copy() for w in fitted.get_weights()]
    again = medres.save(fitted, tiny_work, preset=PRESET, out=tmp_path / "again.keras")
    assert load(again).card.operating_points == load(saved).card.operating_points
    assert all(map(np.array_equal, before, fitted.get_weights()))
    assert fitted.layers[-1].activation is keras.activations.sigmoid


def test_windows_of_a_ct_model_stand_in_its_settings() -> None:
    from medres.fitting.saving import _windows

    model = medres.classifier(
        10, (16, 16, 1), 1, width=4, stem="small", windows=["lung", (40, 400)]
    )
    assert _windows(model) == [(-600.0, 1500.0), (40.0, 400.0)]
    assert _windows(small_model()) is None


def unallowed() -> keras.Model:
    image = keras.Input((32, 32, 1))
    x = layers.LSTM(4)(layers.Reshape((32, 32))(image))
    return keras.Model(image, layers.Dense(1)(x))


def two_outputs() -> keras.Model:
    model = small_model()
    return keras.Model(model.input, [model.output, model.output])


@pytest.mark.parametrize(
    ("make", "options", "kind", "code"),
    [
        (unallowed, {}, ArtefactError, "unsupported_layer"),
        (two_outputs, {}, ModelError, "several_outputs"),
        (small_model, {"preset": "xray-16"}, ModelError, "input_mismatch"),
        (small_model, {"split": "test"}, TrainingError, "other_split"),
        (small_model, {"calibration": "isotonic"}, TrainingError, "bad_setting"),
        (small_model, {"operating_points": {"a": "best"}}, TrainingError, "bad_setting"),
        (small_model, {"out": "model.h5"}, ArtefactError, "wrong_suffix"),
    ],
)
def test_a_refused_model_leaves_nothing_behind(
    tiny_work: Path, tmp_path: Path, make, options: dict, kind: type[Exception], code: str
) -> None:
    out = tmp_path / "new" / options.get("out", "model.keras")
    with raises_code(kind, code):
        medres.save(make(), tiny_work, **{"preset": PRESET} | options | {"out": out})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", [medres.save, medres.score])
def test_a_model_is_refused_before_any_image_is_decoded(
    function, tiny_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Subclassed(keras.Model):
        pass

    monkeypatch.setattr("medres.fitting.saving.load_data", None)
    options = {"preset": PRESET} | (
        {"out": tmp_path / "m.keras"} if function is medres.save else {}
    )
    with raises_code(ModelError, "subclassed_model", "Subclassed"):
        function(Subclassed(), tiny_work, **options)


def test_a_refused_model_leaves_the_earlier_file(saved: Path, tiny_work: Path) -> None:
    before = saved.read_bytes()
    model = small_model()
    model.layers[-1].set_weights([w * np.nan for w in model.layers[-1].get_weights()])
    with raises_code(ModelError, "weights_not_finite", model.layers[-1].name):
        medres.save(model, tiny_work, preset=PRESET, out=saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["model.keras"]


@pytest.mark.long
def test_a_backbone_of_keras_applications(tiny_work: Path, tmp_path: Path) -> None:
    backbone = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.35
    )
    model = medres.adapt(backbone, PRESET, 1)
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=False)
    model.fit(medres.data(tiny_work, PRESET, 8, 3).train, epochs=1, verbose=0, shuffle=False)
    path = medres.save(model, tiny_work, preset=PRESET, out=tmp_path / "model.keras")
    scores = medres.score(path, tiny_work, "test").table["score"]
    assert scores.between(0, 1).all()
