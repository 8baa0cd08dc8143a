"""What a run starts from: settings, data, models and optimizer, checked before the first step."""

from __future__ import annotations

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
from data_pipelines.labels.task import DETECTION, SEGMENTATION
from medres.artefact.archive import save, summary_hash, with_probability
from medres.backbones import load_pretrained
from medres.errors import ArtefactError, TrainingError
from medres.progress import ProgressReporter
from medres.tasks import annotated_task
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
from medres.training.data import TrainingData, load_data
from medres.training.detection.row import DETECTION_TRAINING
from medres.training.distributed.joining import ALONE, Membership
from medres.training.distributed.team import Team
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
from medres.training.segmentation.row import SEGMENTATION_TRAINING
from medres.training.targets import class_order, training_targets
from medres.training.tasks.row import TaskTraining
from medres.training.train_step import Trainer

#: of the tasks that learn masks or boxes, by their names
TRAININGS: dict[str, TaskTraining] = {
    SEGMENTATION: SEGMENTATION_TRAINING,
    DETECTION: DETECTION_TRAINING,
}


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
    team: Team

    @property
    def task_training(self) -> TaskTraining | None:
        """How the task is trained, if it learns masks or boxes."""
        return TRAININGS.get(self.data.task.name)

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
        """The model that trains, with the outputs of deep supervision."""
        return self._build(policy, recipe, deep=self.options.deep_supervision)

    def _build(self, policy: str, recipe: Recipe, *, deep: bool = False) -> keras.Model:
        if (training := self.task_training) is not None:
            return training.build(
                self.settings["model"],
                self.data.cache.spec,
                list(self.data.targets.names),
                policy=policy,
                stochastic_depth=recipe.stochastic_depth,
                **({"deep_supervision": True} if deep else {}),
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
        data, recipe, team = self.data, self.recipe, self.team
        replicas = self.strategy.num_replicas_in_sync

        def make_step(policy: str, recipe: Recipe) -> Callable[[], object]:
            with self.strategy.scope():
                model = self._build_trained(policy, recipe)
                trainer = _trainer(model, recipe, data, self.options, jit=uses_xla(replicas))
            trainer.begin_epoch(recipe.epochs)
            (batch,) = trainer.distribute(
                lambda context: _empty_batches(data, recipe.batch_size, context)
            )

            def step() -> None:
                trainer.step(batch, 0)
                trainer.means()

            return step

        steps = training_steps(len(data.rows("train")), recipe.batch_size)
        result = compute(
            self.options.precision,
            recipe,
            steps,
            make_step,
            self.reporter.line,
            replicas=replicas,
            vote=lambda supported: all(team.gather(supported)),
            decide=team.share,
        )
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
    member: Membership = ALONE,
) -> Setup:
    """Resolve the settings (None: not given), read the data and check both. member: of the workers
    of the run, if it has several.
    """
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
    task = annotated_task(options.task)
    training = None if task is None else TRAININGS[task.name]
    if training is None:
        check_classes(manifest, spec.kind)
    elif "batch_size" not in {**read_config(config), **_given(settings)}:
        size = training.batch_size(options, spec, recipe)
        recipe = recipe.model_copy(update={"batch_size": size})
    if training is not None and backbone is not None:
        raise TrainingError(
            f"{options.task} needs a backbone of medres, such as resnet18, whose feature maps are "
            f"known; a backbone of your own is for classification",
            code="other_task",
        )
    sha256 = None if backbone is None else backbone_sha256(backbone)
    configured = configuration(options, recipe, spec, backbone=sha256)
    recipe = Recipe.model_validate(configured["recipe"])
    if training is not None:
        data = training.load(work, spec, manifest, reporter)
        training.check(data, recipe, options)
        targets = data.targets
    else:
        data = load_data(work, spec, manifest, reporter)
        check_trainable(data, recipe)
        targets = training_targets(data.targets, data.table(), data.rows("train"), recipe)
    check_card_texts(data.targets.names, configured)
    configured["data_sha256"] = data_hash(data, targets)
    strategy = member.strategy or strategy_for(devices())
    return Setup(
        options, recipe, configured, data, targets, backbone, strategy, reporter, member.team
    )


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def data_hash(data: TrainingData, training: Targets) -> str:
    """SHA-256 of the cache's key and of all labels and weights, in tuning and in training."""
    arrays = [
        array.tolist()
        for targets in (data.targets, training)
        for array in (targets.labels, targets.weights)
    ]
    return summary_hash([data.cache.folder.name, *arrays])


def _empty_batches(
    data: TrainingData, size: int, context: tf.distribute.InputContext | None
) -> tf.data.Dataset:
    """One empty batch, or the shares of it that one input pipeline gives to its replicas."""
    shares = 1 if context is None else context.num_replicas_in_sync
    pipelines = 1 if context is None else context.num_input_pipelines
    part = tf.data.Dataset.from_tensor_slices(_empty_batch(data, size // pipelines))
    return part.batch(size // shares)


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
    if (stored := data.cache.stored) is not None:
        dtype = tf.as_dtype(stored.dtype)
        label = tf.zeros((size, *stored.shape), tf.int32 if dtype.is_integer else dtype)
    return inputs, label, weight


def _trainer(
    model: keras.Model, recipe: Recipe, data: TrainingData, options: RunOptions, *, jit: bool
) -> Trainer:
    steps = training_steps(len(data.rows("train")), recipe.batch_size)
    built = optimizer(
        recipe, steps, model.trainable_variables, rate_factors(model, recipe.layer_decay)
    )
    if (training := TRAININGS.get(data.task.name)) is not None:
        return training.trainer(model, built, recipe, data, options, jit=jit)
    spec = augment_spec(recipe, data.cache.spec)
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
