from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import rewrite
from helpers import raises_code

import medres
from data_pipelines import datasets
from data_pipelines.augment import Augment, AugmentSpec, augmentation
from data_pipelines.errors import SpecError
from data_pipelines.ingestion.manifest import Manifest
from medres.errors import TrainingError
from medres.fitting.fit_data import data
from medres.training.data import load_data, tuning_holdout

FINDINGS = 8  # as many as images in a batch


@pytest.fixture(scope="module")
def many_work(tiny_work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny cohort with eight findings, of which some labels are missing or uncertain."""
    work = tmp_path_factory.mktemp("many") / "work"
    shutil.copytree(tiny_work, work)
    table = Manifest.load(work).table
    rng = np.random.default_rng(0)
    names = [f"finding{number}" for number in range(FINDINGS)]
    for name in names:
        values = table["label:square"].to_numpy(float).copy()
        draw = rng.random(len(values))
        values[draw < 0.2], values[draw > 0.8] = np.nan, -1.0
        table[f"label:{name}"] = values
    rewrite(work, table.drop(columns="label:square"), task="multilabel", findings=names)
    return work


def arrays(batches: tf.data.Dataset) -> list[np.ndarray]:
    return [np.concatenate(parts) for parts in zip(*batches.as_numpy_iterator(), strict=True)]


def test_batches_are_what_keras_takes(tiny_work: Path) -> None:
    sets = data(tiny_work, "xray-32", 8, 3)
    train, tune, test = sets
    assert (sets.names, sets.task, sets.shape) == (("square",), "binary", (32, 32, 1))
    image, label, weight = next(iter(train))
    assert (image.shape, label.shape, weight.shape) == ((8, 32, 32, 1), (8, 1), (8,))
    assert (image.dtype, label.dtype, weight.dtype) == (tf.float32,) * 3
    plain = datasets(tiny_work, "xray-32", 8, 3)
    for batches, expected in zip((train, tune, test), plain, strict=True):
        assert batches.cardinality() == expected.cardinality() > 0
    for batches, expected in zip((tune, test), plain[1:], strict=True):
        stored = np.concatenate([inputs["image"] for inputs, _, _ in expected])
        assert np.array_equal(arrays(batches)[0], stored)


def test_fit_counts_the_epochs_and_augments_as_the_training_loop(
    tiny_work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs of `fit` see the images that the layer Augment gives for the keys of epochs 0 and
    1; validation in between does not count.
    """
    sets, seen = data(tiny_work, "xray-32", 8, 3), []

    class Watched(keras.Model):
        def train_step(self, parts):
            tf.numpy_function(lambda x: seen.append(x) or np.int32(0), [parts[0]], tf.int32)
            return super().train_step(parts)

    image = keras.Input(sets.shape)
    output = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(image))
    model = Watched(image, output)
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=False)
    model.fit(sets.train, validation_data=sets.tune, epochs=2, verbose=0, shuffle=False)
    keras.utils.set_random_seed(3)
    layer = Augment(augmentation("chest_xray", "display"))
    expected = [
        np.asarray(layer(inputs["image"], inputs["key"], training=True))
        for epoch in range(2)
        for inputs, _, _ in datasets(tiny_work, "xray-32", 8, 3, epoch=epoch)[0]
    ]
    assert len(seen) == len(expected)
    for batch, wanted in zip(seen, expected, strict=True):
        np.testing.assert_allclose(batch, wanted, atol=1e-4)


def test_the_default_seed_gives_the_order_of_the_training_loop(tiny_work: Path) -> None:
    """TensorFlow compares a seed of 0 with that of the shuffle, which is not known yet."""
    images = arrays(data(tiny_work, "xray-32", 8, augment=None).train)[0]
    keras.utils.set_random_seed(0)
    expected = [part["image"].numpy() for part, _, _ in datasets(tiny_work, "xray-32", 8, 0)[0]]
    assert np.array_equal(images, np.concatenate(expected))


def test_equal_seeds_and_epochs_give_equal_batches(tiny_work: Path) -> None:
    first, again = data(tiny_work, "xray-32", 8, 3), data(tiny_work, "xray-32", 8, 3)
    epochs = [arrays(first.train) for _ in range(2)]
    for expected in epochs:
        assert all(map(np.array_equal, arrays(again.train), expected))
    resumed = data(tiny_work, "xray-32", 8, 3, epoch=1)
    assert all(map(np.array_equal, arrays(resumed.train), epochs[1]))
    other = data(tiny_work, "xray-32", 8, 4)
    assert not np.array_equal(arrays(other.train)[0], epochs[0][0])
    assert not np.array_equal(epochs[0][0], epochs[1][0])


def test_keys_name_image_and_patient(tiny_work: Path) -> None:
    sets = data(tiny_work, "xray-32", 8, 3, keys=True, augment=None)
    table = Manifest.load(tiny_work).table.set_index("image")
    count = 0
    for split, batches in (("train", sets.train), ("tune", sets.tune), ("test", sets.test)):
        for _, label, _, keys in batches.as_numpy_iterator():
            for name, patient, value in zip(keys["image"], keys["patient"], label, strict=True):
                row = table.loc[name.decode()]
                assert (row["patient"], row["split"]) == (patient.decode(), split)
                assert row["label:square"] == value[0]
                count += 1
    assert count >= len(table) - 7  # the incomplete batch of training


def test_missing_labels_are_minus_one_and_weights_belong_to_images(many_work: Path) -> None:
    sets = data(many_work, "xray-32", FINDINGS, 3, augment=None)
    table = Manifest.load(many_work).table.set_index("image")
    keyed = data(many_work, "xray-32", FINDINGS, 3, augment=None, keys=True)
    for _, label, weight, keys in keyed.train.as_numpy_iterator():
        rows = table.loc[[name.decode() for name in keys["image"]]]
        stored = rows[[f"label:{name}" for name in sets.names]].to_numpy(float)
        assert np.array_equal(label, np.where(stored >= 0, stored, -1))
        assert weight.shape == (FINDINGS,)
        assert np.array_equal(weight, (label >= 0).any(axis=1))


def test_a_fit_with_as_many_images_as_findings(many_work: Path) -> None:
    sets = data(many_work, "xray-32", FINDINGS, 3)
    model = medres.classifier(10, sets.shape, sets.names, task="multilabel", width=4, stem="small")
    model.compile(
        "sgd",
        medres.losses.MaskedBinaryCrossentropy(from_logits=True),
        metrics=[medres.metrics.MaskedAUC(FINDINGS, from_logits=True)],
        jit_compile=False,
    )
    images, labels, _ = arrays(sets.tune)
    batches = tf.data.Dataset.from_tensor_slices((images[:FINDINGS], labels[:FINDINGS]))
    logits = model.predict(images[:FINDINGS], verbose=0).astype(np.float64)
    evaluated = model.evaluate(batches.batch(FINDINGS), verbose=0, return_dict=True)
    mask = labels[:FINDINGS] >= 0
    cells = np.logaddexp(0, logits) - logits * labels[:FINDINGS]
    assert evaluated["loss"] == pytest.approx(cells[mask].mean(), rel=1e-4)
    history = model.fit(sets.train, validation_data=sets.tune, epochs=1, verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"] + history.history["val_auc"]).all()


def test_class_weights_are_folded_into_the_weights(tiny_work: Path, many_work: Path) -> None:
    def weights(work: Path, class_weight: object) -> tuple[np.ndarray, np.ndarray]:
        train = data(work, "xray-32", 8, 3, augment=None, class_weight=class_weight).train
        return arrays(train)[1:]

    label, weight = weights(tiny_work, {0: 0.5, 1: 3})
    assert np.array_equal(weight, np.where(label[:, 0] == 1, 3.0, 0.5))
    label, weight = weights(tiny_work, {"square": 3.0})
    assert np.array_equal(weight, np.where(label[:, 0] == 1, 3.0, 1.0))
    label, weight = weights(many_work, {"finding0": 9.0})
    factors = np.where((np.arange(FINDINGS) == 0) & (label == 1), 9.0, 1.0)
    expected = (factors * (label >= 0)).sum(axis=1) / np.maximum((label >= 0).sum(axis=1), 1)
    np.testing.assert_allclose(weight, expected, rtol=1e-6)
    label, weight = weights(tiny_work, "balanced")
    sets = data(tiny_work, "xray-32", 500, 3, augment=None, class_weight="balanced")
    label, weight, tune_weight = *arrays(sets.train)[1:], arrays(sets.tune)[2]
    assert weight[label[:, 0] == 1].sum() == pytest.approx(weight[label[:, 0] == 0].sum())
    assert weight.mean() == pytest.approx(1)
    assert (tune_weight == 1).all()


def test_classes_have_numbers_as_in_keras(tiny_work: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(tiny_work, work)
    table = Manifest.load(work).table
    names = np.array(["round", "square", "other"])
    number = table.groupby("split")["patient"].transform(lambda p: p.astype("category").cat.codes)
    table["class"] = names[number % 3]
    table = table.drop(columns="label:square")
    rewrite(work, table, task="multiclass", findings=[], classes=names.tolist())
    sets = data(work, "xray-32", 500, 3, augment=None, class_weight={1: 5.0})
    _, label, weight = arrays(sets.train)
    assert (sets.task, label.dtype, label.ndim) == ("multiclass", np.int32, 1)
    assert np.array_equal(weight, np.where(label == 1, 5.0, 1.0))


@pytest.mark.parametrize(
    ("options", "kind", "code"),
    [
        ({"class_weight": {2: 1.0}}, TrainingError, "class_weight_number"),
        ({"class_weight": {0: -1.0}}, TrainingError, "bad_setting"),
        ({"class_weight": {"round": 2.0}}, TrainingError, "unknown_finding"),
        ({"class_weight": "heavy"}, TrainingError, "bad_setting"),
        ({"augment": AugmentSpec(mixup=0.2)}, SpecError, "mixes_pairs"),
        ({"augment": AugmentSpec(crop=(16, 16))}, SpecError, "augment_crops"),
        ({"batch_size": 0}, SpecError, "batch_size"),
    ],
)
def test_what_cannot_be_is_refused(
    tiny_work: Path, options: dict, kind: type[Exception], code: str
) -> None:
    with raises_code(kind, code):
        data(tiny_work, "xray-32", **{"batch_size": 8, "seed": 3} | options)


def test_weights_by_number_are_for_one_finding(many_work: Path) -> None:
    with raises_code(TrainingError, "class_weight_number", "finding0"):
        data(many_work, "xray-32", 8, 3, class_weight={0: 1.0, 1: 2.0})


def test_uncertain_labels_by_policy(many_work: Path) -> None:
    ignored = arrays(data(many_work, "xray-32", 500, 3, augment=None).train)[1]
    sets = data(many_work, "xray-32", 500, 3, augment=None, uncertain={"*": "one"})
    assert (arrays(sets.train)[1] == 1).sum() > (ignored == 1).sum()
    assert np.isin(arrays(sets.tune)[1], (-1, 0, 1)).all()


def test_patients_for_conformal_sets_are_left_out_of_tuning(
    tiny_work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medres.fitting import fit_data

    def every_third(loaded: object, alpha: float) -> np.ndarray:
        images = len(loaded.rows("tune"))  # type: ignore[attr-defined]
        return (np.arange(images) % 3 == 0) & (alpha > 0)

    monkeypatch.setattr(fit_data, "tuning_holdout", every_third)
    full = arrays(data(tiny_work, "xray-32", 4, 3).tune)[0]
    part = data(tiny_work, "xray-32", 4, 3, alpha=0.1).tune
    assert np.array_equal(arrays(part)[0], full[np.arange(len(full)) % 3 != 0])
    assert part.cardinality() == -(-len(arrays(part)[0]) // 4)
    assert not tuning_holdout(_loaded(tiny_work), 0.0).any()


def _loaded(work: Path):
    from data_pipelines.preprocessing.spec import spec_from
    from medres.progress import ProgressReporter

    return load_data(work, spec_from("xray-32"), Manifest.load(work), ProgressReporter())


def test_a_class_that_cannot_be_learned_is_refused_before_the_fit(
    tiny_work: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_work, tmp_path / "work")
    table = Manifest.load(tiny_work).table
    classes = np.where(table["split"] == "train", "a", "b")
    rewrite(
        tmp_path / "work", table.assign(**{"class": classes}), task="multiclass", findings=[],
        classes=["a", "b"],
    )  # fmt: skip
    with raises_code(TrainingError, "class_without_image", "a (tune)", "b (train)"):
        data(tmp_path / "work", "xray-32")
