"""What a run starts from: settings, data, models and optimizer, checked before the first step."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from data_pipelines.augment import Augment
from data_pipelines.cache.tf_dataset import Targets, training_steps
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.spec import PreprocessSpec
from medres.artefact.archive import save, summary_hash, with_probability
from medres.backbones import load_pretrained
from medres.errors import ArtefactError, TrainingError
from medres.progress import ProgressReporter
from medres.tasks import is_dense
from medres.training.calibration.finalize import Finalized, card_of
from medres.training.calibration.scaling import identity
from medres.training.checks import (
    check_card_texts,
    check_classes,
    check_trainable,
    without_stochastic_depth,
)
from medres.training.config.options import (
    RunOptions,
    augment_spec,
    configuration,
    initial_weights,
    preprocessing,
    read_config,
    resolve_settings,
)
from medres.training.config.recipe import Recipe
from medres.training.data import TrainingData, load_data, load_masks
from medres.training.hardware import (
    ComputeSettings,
    check_devices,
    compute,
    devices,
    strategy_for,
    uses_xla,
)
from medres.training.losses import Loss
from medres.training.network import (
    backbone_sha256,
    build_classifier,
    copy_weights,
    load_backbone,
    rate_factors,
    require_backbone,
    weights_of,
)
from medres.training.optimizers import optimizer
from medres.training.segmentation.network import build_segmenter, check_segmentation, pixel_loss
from medres.training.segmentation.pair_trainer import PairTrainer
from medres.training.targets import class_order, training_targets
from medres.training.train_step import Trainer

MAX_BATCH_PIXELS = 1 << 19


@dataclass
class Setup:
    """Everything that a run needs before its models are built.

    settings: config.json, without `compute`. targets: of training. backbone: the user's, or None.
    """

    options: RunOptions
    recipe: Recipe
    settings: dict[str, Any]
    data: TrainingData
    targets: Targets
    backbone: keras.Model | None
    strategy: tf.distribute.Strategy
    reporter: ProgressReporter

    def choose_compute(self, previous: ComputeSettings | None) -> None:
        """Choose precision and batch size of this machine, or take those of the run to resume."""
        check_devices(self.strategy.num_replicas_in_sync, previous, self.recipe)
        self.settings["compute"] = previous or self._compute()
        self.recipe = self.recipe.model_copy(
            update={key: self.settings["compute"][key] for key in ("batch_size", "accumulate")}
        )

    def models(self) -> tuple[keras.Model, keras.Model]:
        """The model that trains and its float32 copy, both with the initial weights of the run."""
        keras.utils.set_random_seed(self.options.seed)
        with self.strategy.scope():
            logit_model = self._build_trained(self.settings["compute"]["precision"], self.recipe)
            served_model = self._build(
                "float32", self.recipe.model_copy(update={"stochastic_depth": 0.0})
            )
        copy_weights(logit_model, served_model)
        start = initial_weights(self.options, self.settings["model"].get("backbone_sha256"))
        if start is not None:
            report = load_pretrained(served_model, start.path, scaling=self.options.scaling)
            self.reporter.line(str(report))
            heads = weights_of(logit_model)  # of deep supervision, which are not served
            copy_weights(served_model, logit_model, heads | weights_of(served_model))
        if self.backbone is not None:
            _check_servable(served_model, self.data, self.settings)
        return logit_model, served_model

    def trainer(self, model: keras.Model) -> Trainer:
        """The trainer of the model, on the devices of the run."""
        with self.strategy.scope():
            jit = self.settings["compute"]["jit"]
            return _trainer(model, self.recipe, self.data, self.options, jit=jit)

    def _build_trained(self, policy: str, recipe: Recipe) -> keras.Model:
        return self._build(policy, recipe, deep_supervision=self.options.deep_supervision)

    def _build(self, policy: str, recipe: Recipe, *, deep_supervision: bool = False) -> keras.Model:
        if self.data.task.is_dense:
            return build_segmenter(
                self.settings["model"],
                self.data.cache.spec,
                list(self.data.targets.names),
                policy=policy,
                stochastic_depth=recipe.stochastic_depth,
                deep_supervision=deep_supervision,
            )
        return build_classifier(
            self.settings["model"],
            self.data.cache.spec,
            list(self.data.targets.names),
            self.data.targets.task,
            policy=policy,
            stochastic_depth=recipe.stochastic_depth,
            backbone=self.backbone,
        )

    def _compute(self) -> ComputeSettings:
        """The compute settings of this machine, where necessary from steps on an empty batch that
        is shared by the devices and compiled as in the run. Reports a benchmark, and a batch size
        that was reduced.
        """
        data, recipe = self.data, self.recipe

        def make_step(policy: str, recipe: Recipe) -> Callable[[], object]:
            with self.strategy.scope():
                model = self._build_trained(policy, recipe)
                trainer = _trainer(model, recipe, data, self.options, jit=uses_xla())
            trainer.begin_epoch(recipe.epochs)
            whole = tf.data.Dataset.from_tensor_slices(_empty_batch(data, recipe.batch_size))
            (batch,) = trainer.distribute(whole.batch(recipe.batch_size))

            def step() -> None:
                trainer.step(batch, 0)
                trainer.means()

            return step

        steps = training_steps(len(data.rows("train")), recipe.batch_size)
        result = compute(self.options.precision, recipe, steps, make_step, self.reporter.line)
        if result["batch_size"] != recipe.batch_size:
            self.reporter.line(
                f"batch size {result['batch_size']} with gradients accumulated over "
                f"{result['accumulate']} batches: {recipe.batch_size} images do not fit into memory"
            )
        return result


def set_up(
    work: Path | str,
    model: str | Path | keras.Model | None,
    config: Path | str | Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    reporter: ProgressReporter,
) -> Setup:
    """Resolve the settings (None: not given), read the data and check both."""
    backbone = model if isinstance(model, keras.Model) else None
    name = None if model is None or backbone is not None else str(model)
    options, recipe = resolve_settings(config, {"model": name, **settings})
    if backbone is None and options.model.endswith(".keras"):
        backbone = load_backbone(options.model)
    if backbone is not None:
        require_backbone(backbone)
        recipe = without_stochastic_depth(recipe, reporter)
    manifest = Manifest.load(work)
    spec = preprocessing(options.preset, manifest)
    dense = is_dense(options.task)
    if not dense:
        check_classes(manifest, spec.kind)
    elif "batch_size" not in {**read_config(config), **_given(settings)}:
        recipe = recipe.model_copy(update={"batch_size": dense_batch(options, spec, recipe)})
    if dense and backbone is not None:
        raise TrainingError(
            "segmentation needs a backbone of medres, such as resnet18, whose feature maps the "
            "decoder knows; a backbone of your own is for classification",
            code="other_task",
        )
    sha256 = None if backbone is None else backbone_sha256(backbone)
    configured = configuration(options, recipe, spec, backbone=sha256)
    recipe = Recipe.model_validate(configured["recipe"])
    if dense:
        data = load_masks(work, spec, manifest, reporter)
        check_segmentation(data, recipe, options.patch)
        targets = data.targets
    else:
        data = load_data(work, spec, manifest, reporter)
        check_trainable(data, recipe)
        targets = training_targets(data.targets, data.table(), data.rows("train"), recipe)
    check_card_texts(data.targets.names, configured)
    configured["data_sha256"] = data_hash(data, targets)
    strategy = strategy_for(devices())
    return Setup(options, recipe, configured, data, targets, backbone, strategy, reporter)


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def dense_batch(options: RunOptions, spec: PreprocessSpec, recipe: Recipe) -> int:
    """The batch size of a segmenter where none is given: that of the recipe, but at most 2^19
    pixels or voxels, and at least 2 samples.
    """
    pixels = math.prod(options.patch or spec.mask_shape)
    return min(recipe.batch_size, max(2, MAX_BATCH_PIXELS // pixels))


def data_hash(data: TrainingData, training: Targets) -> str:
    """SHA-256 of the cache's key and of all labels and weights, in tuning and in training."""
    arrays = [
        array.tolist()
        for targets in (data.targets, training)
        for array in (targets.labels, targets.weights)
    ]
    return summary_hash([data.cache.folder.name, *arrays])


def _empty_batch(
    data: TrainingData, size: int
) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
    """A batch of zeros with the shapes and dtypes of the training data."""
    inputs = {
        "image": tf.zeros((size, *data.cache.spec.shape)),
        "key": tf.zeros((size, 2), tf.int32),
    }
    label, weight = (
        tf.zeros((size, *array.shape[1:]), array.dtype)
        for array in (data.targets.labels, data.targets.weights)
    )
    if data.cache.mask_shape is not None:
        label = tf.zeros((size, *data.cache.mask_shape), tf.int32)
    return inputs, label, weight


def _trainer(
    model: keras.Model, recipe: Recipe, data: TrainingData, options: RunOptions, *, jit: bool
) -> Trainer:
    steps = training_steps(len(data.rows("train")), recipe.batch_size)
    built = optimizer(
        recipe, steps, model.trainable_variables, rate_factors(model, recipe.layer_decay)
    )
    spec = augment_spec(recipe, data.cache.spec)
    if data.task.is_dense:
        return PairTrainer(
            model,
            spec.model_copy(update={"crop": options.patch}),
            options.foreground,
            pixel_loss(options.loss, recipe, data.targets.names),
            built,
            recipe,
            shape=tuple(data.cache.spec.shape),
            jit=jit,
        )
    order = class_order(data.targets, recipe.ordinal)
    return Trainer(
        model,
        Augment(spec.model_copy(update={"mixup": 0.0, "cutmix": 0.0}), name="augment"),
        Loss(data.targets.task, recipe.smoothing, recipe.focal, order),
        built,
        recipe,
        jit=jit,
        pairs=spec if spec.mixes_pairs else None,
    )


def _check_servable(model: keras.Model, data: TrainingData, settings: dict[str, Any]) -> None:
    """Raise TrainingError (code backbone_not_servable) where a model file with the user's backbone
    could not be opened again.
    """
    calibration = identity(len(data.targets.names))
    card = card_of(data, settings, Finalized(calibration, [], [], []), 0)
    served = with_probability(model, calibration, data.targets.task)
    with tempfile.TemporaryDirectory(prefix="medres-") as folder:
        try:
            save(Path(folder) / "model.keras", served, card)
        except ArtefactError as error:
            raise TrainingError(
                f"a model with this backbone could not be opened again: {error}. Build the "
                f"backbone from Keras' own layers only",
                code="backbone_not_servable",
            ) from None
