"""`medres.data`: the splits of a work folder as tf.data sets for `Model.fit`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from data_pipelines.augment import AugmentSpec, augment_in_pipeline
from data_pipelines.cache.epochs import training_epochs
from data_pipelines.cache.tf_dataset import Targets, eval_batches
from data_pipelines.errors import SpecError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.spec import PreprocessSpec
from medres.errors import TrainingError
from medres.progress import Bars, ProgressReporter
from medres.tasks import task_named
from medres.training.checks import check_classes
from medres.training.config.options import augment_spec, preprocessing
from medres.training.config.recipe import recipe
from medres.training.data import TrainingData, load_data, tuning_holdout
from medres.training.targets import for_fit, training_targets

ClassWeight = str | Mapping[str, float] | Mapping[int, float] | None


@dataclass(frozen=True)
class Data:
    """The data sets of a work folder for `Model.fit`: `train, tune, test = medres.data(...)`.

    train, tune (validation), test: batches of (image, label, weight), see `data`.
    names: of the findings or classes, in the order of the model's outputs. task: binary, multilabel
    or multiclass. shape: of one image. spec: the preprocessing.
    """

    train: tf.data.Dataset
    tune: tf.data.Dataset
    test: tf.data.Dataset
    names: tuple[str, ...]
    task: str
    shape: tuple[int, ...]
    spec: PreprocessSpec

    def __iter__(self) -> Iterator[tf.data.Dataset]:
        return iter((self.train, self.tune, self.test))


def data(
    work: Path | str,
    preset: str | dict | PreprocessSpec | None = None,
    batch_size: int = 32,
    seed: int = 0,
    *,
    keys: bool = False,
    class_weight: ClassWeight = None,
    augment: str | AugmentSpec | None = "auto",
    uncertain: Mapping[str, str | float] | None = None,
    epoch: int = 0,
    alpha: float = 0.0,
    progress: ProgressReporter | None = None,
) -> Data:
    """Train, tune (validation) and test batches for `Model.fit`. A missing cache is built first.

    image: float32 (batch, *shape) in model units (HU, or display values 0..1).
    label: float32 (batch, findings), with -1 where it is missing: use
        `medres.losses.MaskedBinaryCrossentropy`; for classes int32 (batch,), with 0 and weight 0
        where it is missing.
    weight: float32 (batch,), of the image; 0 where it has no label at all.

    Each pass over `train`, so each epoch of a fit, has another order and other augmentation, which
    depend on (seed, epoch) alone and are those of `medres.train`; the last, incomplete batch is
    dropped. `tune` and `test` keep the order of the cache.

    keys: adds a fourth part, {"image", "patient"}, string (batch,) each: the pseudonyms. This is
        for scoring in a loop of your own; `fit` takes three parts.
    class_weight: Keras takes no class_weight beside weights, so it is folded into the weights of
        `train`: "balanced", or factors by name (of the positives of a finding, or of a class), or
        by number as in Keras (0 and 1 of one finding; the index of a class). With several findings
        the weight of an image is the mean over its labeled findings.
    augment: "auto" (by kind of image, as in training), the name of a preset, an AugmentSpec, or
        None. uncertain: the meaning of uncertain labels in `train`, see
        medres.training.config.recipe.Recipe; None: they are missing.
    epoch: number of the first epoch, to resume: `fit(..., initial_epoch=5)` after `data(epoch=5)`.
    alpha: above 0 leaves out of `tune` the patients that `medres.save(alpha=...)` uses for
        conformal sets.

    Raises SpecError (codes batch_size, epoch, mixes_pairs, augment_crops, ...), LabelError,
    TrainingError (codes bad_setting, unknown_finding, class_weight_number, empty_split,
    class_without_image).
    """
    manifest = Manifest.load(work)
    spec = preprocessing(preset, manifest)
    check_classes(manifest, spec.kind)
    loaded = load_data(work, spec, manifest, progress or Bars())
    for split in ("train", "tune"):
        if len(loaded.rows(split)) == 0:
            raise TrainingError(
                f"the {split} split has no image for preset {spec.name}: run medres ingest again "
                f"with more patients or with another split",
                code="empty_split",
            )
    train = training_epochs(
        loaded.cache, _train_targets(loaded, class_weight, uncertain), batch_size, seed, epoch=epoch
    )
    if (augmentation := _augmentation(augment, spec)) is not None:
        train = augment_in_pipeline(train, augmentation)
    targets = for_fit(loaded.targets)
    tune, test = (
        eval_batches(loaded.cache, targets, batch_size, split) for split in ("tune", "test")
    )
    holdout = tuning_holdout(loaded, alpha)
    if holdout.any():
        tune = _without(tune, loaded.rows("tune")[holdout], batch_size, int((~holdout).sum()))
    keyed = loaded if keys else None
    return Data(
        _parts(train, keyed),
        _parts(tune, keyed),
        _parts(test, keyed),
        names=tuple(loaded.targets.names),
        task=loaded.task.name,
        shape=tuple(spec.shape),
        spec=spec,
    )


def _train_targets(
    loaded: TrainingData, class_weight: ClassWeight, uncertain: Mapping[str, str | float] | None
) -> Targets:
    """The targets of all rows, weighted at the training rows."""
    by_name, by_label = _class_weights(loaded.targets, class_weight)
    chosen = recipe("default", {"uncertain": dict(uncertain or {}), "class_weights": by_name})
    targets = training_targets(loaded.targets, loaded.table(), loaded.rows("train"), chosen)
    if by_label is not None:
        negative, positive = by_label
        factors = targets.labels * positive + (1 - targets.labels) * negative
        targets = dataclasses.replace(
            targets, weights=(targets.weights * factors).astype(np.float32)
        )
    return for_fit(targets)


def _class_weights(
    targets: Targets, class_weight: ClassWeight
) -> tuple[Any, tuple[float, float] | None]:
    """Class weights as a recipe takes them, by name; and for one finding with weights by number
    those of the labels 0 and 1.
    """
    if class_weight is None or isinstance(class_weight, str):
        return class_weight, None
    numbers = {key: value for key, value in class_weight.items() if not isinstance(key, str)}
    if not numbers:
        return dict(class_weight), None
    single = len(targets.names) == 1
    exclusive = task_named(targets.task).exclusive
    allowed = range(2) if single else range(len(targets.names) if exclusive else 0)
    if not (set(numbers) <= set(allowed) and len(numbers) == len(class_weight)):
        raise TrainingError(
            f"class_weight: {', '.join(map(str, class_weight))} are not numbers of classes; give "
            f"factors by name: {', '.join(targets.names)}",
            code="class_weight_number",
        )
    if exclusive:
        return {targets.names[index]: value for index, value in numbers.items()}, None
    recipe("default", {"class_weights": {str(key): value for key, value in numbers.items()}})
    return None, (float(numbers.get(0, 1.0)), float(numbers.get(1, 1.0)))


def _augmentation(augment: str | AugmentSpec | None, spec: PreprocessSpec) -> AugmentSpec | None:
    if augment is None:
        return None
    if not isinstance(augment, AugmentSpec):
        name = spec.default_augmentation if augment == "auto" else augment
        augment = augment_spec(recipe("default", {"augment": name}), spec)
    if augment.mixes_pairs:
        raise SpecError(
            "mixup and cutmix mix labels, and a missing label cannot be mixed: use "
            "medres.train(mixup=...), or data_pipelines.augment.mix in a step of your own",
            code="mixes_pairs",
        )
    if augment.crop is not None:
        raise SpecError(
            "an augmentation that crops changes the shape of the training images only: use a "
            "preset with that shape, or the layer data_pipelines.augment.Augment in the model",
            code="augment_crops",
        )
    return augment


def _without(
    batches: tf.data.Dataset, rows: np.ndarray, batch_size: int, count: int
) -> tf.data.Dataset:
    """The batches of a split without some cache rows. count: images that remain."""
    left_out = tf.constant(rows, tf.int32)
    kept = batches.unbatch().filter(
        lambda inputs, label, weight: tf.reduce_all(left_out != inputs["key"][1])
    )
    steps = tf.data.experimental.assert_cardinality(-(-count // batch_size))
    return kept.batch(batch_size).apply(steps).prefetch(1)


def _parts(batches: tf.data.Dataset, keyed: TrainingData | None) -> tf.data.Dataset:
    """Batches as Keras takes them; with the data of a split's rows also their keys."""
    if keyed is None:
        return batches.map(lambda inputs, label, weight: (inputs["image"], label, weight))
    table = keyed.table()
    columns = {name: tf.constant(table[name].astype(str)) for name in ("image", "patient")}

    def with_keys(inputs: dict[str, Any], label: Any, weight: Any) -> tuple:
        row = inputs["key"][:, 1]
        names = {name: tf.gather(column, row) for name, column in columns.items()}
        return inputs["image"], label, weight, names

    return batches.map(with_keys)
