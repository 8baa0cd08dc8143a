"""A training run: from a work folder and settings to a run folder with a verified model file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import pandas as pd
import tensorflow as tf

from data_pipelines.augment import Augment
from data_pipelines.cache.tf_dataset import Targets, training_steps
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.runtime.atomic_files import write_atomic
from medres.artefact.archive import save, summary_hash, with_probability
from medres.backbones import load_pretrained
from medres.errors import ArtefactError, TrainingError
from medres.progress import Bars, ProgressReporter
from medres.training import checkpoint
from medres.training.calibration.finalize import Finalized, card_of, finalized
from medres.training.calibration.scaling import identity
from medres.training.checks import check_card_texts, check_classes, check_trainable
from medres.training.config.options import (
    RunOptions,
    augment_spec,
    claim_run_folder,
    configuration,
    existing_config,
    initial_weights,
    preprocessing,
    resolve_settings,
)
from medres.training.config.recipe import Recipe
from medres.training.data import CompiledModel, TrainingData, load_data, tuning_holdout
from medres.training.hardware import (
    ComputeSettings,
    check_devices,
    compute,
    devices,
    strategy_for,
)
from medres.training.input_statistics import with_input_statistics
from medres.training.loggers.html import training_page, worst_images
from medres.training.loggers.mlflow import MlflowLogger
from medres.training.loop import Loop
from medres.training.losses import Loss
from medres.training.network import (
    backbone_sha256,
    build_classifier,
    copy_weights,
    load_backbone,
    rate_factors,
    require_backbone,
)
from medres.training.optimizers import optimizer
from medres.training.targets import class_order, training_targets
from medres.training.train_step import Trainer


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its model file, the history with one row per epoch, and the best
    epoch (counted from 1), whose weights are in the model file.
    """

    out: Path
    artefact: Path
    history: pd.DataFrame
    best_epoch: int


def train(
    work: Path | str,
    *,
    out: Path | str,
    model: str | Path | keras.Model | None = None,
    preset: str | dict | PreprocessSpec | None = None,
    recipe: str | Recipe | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    config: Path | str | Mapping[str, Any] | None = None,
    progress: ProgressReporter | None = None,
    checkpoint_steps: int | None = None,
    mlflow: str | None = None,
    **overrides: Any,
) -> Run:
    """Train a classifier on an ingested work folder and write the run folder `out`: model.keras,
    history.csv, config.json, checkpoints/, training.html (curves, and the images with the highest
    loss) and logs/ (for TensorBoard).

    The model file has the weights of the epoch with the lowest tuning (validation) loss. It is
    calibrated, with operating points and conformal quantiles from the tuning split. Where `out` has
    an unfinished run with the same configuration, training resumes there, and the result is
    bit-equal to that of an uninterrupted run.

    model: a variant ("resnet18"), a .keras file, or a functional Keras model of your own:
        (batch, H, W, C) in -1..1 -> feature map or vector.
    preset: of preprocessing, for instance "xray-224" or "ct-256". recipe: "default", "paper",
        "modern", "finetune" or "small".
    config: settings by name, in a file or a mapping; the arguments of this call override them.
    overrides: any other field of medres.training.config.options.RunOptions or of
        medres.training.config.recipe.Recipe, such as weights, windows, batch_size, learning_rate
        or ema. The defaults of all settings are in these two classes.
    progress: None: one line per epoch; medres.progress.ProgressReporter() prints nothing.
    checkpoint_steps: batches between checkpoints within an epoch; None: every five minutes.
    mlflow: name of an experiment, to log settings and metrics to MLflow too (extra `mlflow`).

    Raises TrainingError, before the first step, where the settings are not allowed or the data
    cannot be trained on.
    """
    backbone = model if isinstance(model, keras.Model) else None
    arguments = {
        "model": None if model is None or backbone is not None else str(model),
        "preset": preset,
        "recipe": recipe,
        "epochs": epochs,
        "seed": seed,
    }
    options, chosen = resolve_settings(config, arguments | overrides)
    if backbone is None and options.model.endswith(".keras"):
        backbone = load_backbone(options.model)
    if backbone is not None:
        require_backbone(backbone)
    out, manifest, reporter = Path(out), Manifest.load(work), progress or Bars()
    spec = preprocessing(options.preset, manifest)
    check_classes(manifest, spec.kind)
    sha256 = None if backbone is None else backbone_sha256(backbone)
    settings = configuration(options, chosen, spec, backbone=sha256)
    chosen = Recipe.model_validate(settings["recipe"])
    data = load_data(work, spec, manifest, reporter)
    check_trainable(data, chosen)
    check_card_texts(data.targets.names, settings)
    targets = training_targets(data.targets, data.table(), data.rows("train"), chosen)
    settings["data_sha256"] = data_hash(data, targets)
    previous, strategy = existing_config(out).get("compute"), strategy_for(devices())
    check_devices(strategy.num_replicas_in_sync, previous, chosen)
    settings["compute"] = previous or _compute(settings, chosen, data, backbone, options, reporter)
    chosen = chosen.model_copy(
        update={key: settings["compute"][key] for key in ("batch_size", "accumulate")}
    )
    logit_model, served_model = _models(settings, data, backbone, options, reporter, strategy)
    if backbone is not None:
        _check_servable(served_model, data, settings)
    claim_run_folder(out, settings)
    with strategy.scope():
        trainer = _trainer(logit_model, chosen, data, jit=settings["compute"]["jit"])
    loop = Loop(
        trainer=trainer,
        evaluated=CompiledModel(served_model),
        data=data,
        targets=targets,
        tune_mask=~tuning_holdout(data, options.alpha),
        seed=options.seed,
        run_hash=summary_hash(settings),
        out=out,
        reporter=reporter,
        checkpoint_steps=checkpoint_steps,
        mlflow=MlflowLogger(mlflow, out, settings) if mlflow else None,
    )
    history = loop.train()
    weights, best = checkpoint.read(out / "checkpoints" / checkpoint.BEST)
    best_epoch = best["epoch"]
    copy_weights(logit_model, served_model, weights)
    worst = {split: worst_images(loop.evaluated, data, split) for split in ("train", "tune")}
    page = training_page(history, settings, best_epoch, worst)
    write_atomic(out / "training.html", page.encode())
    finished, card = finalized(served_model, data, settings, best_epoch)
    save(out / "model.keras", finished, *with_input_statistics(card, finished, data))
    for note in card.training["notes"]:
        reporter.line(note)
    loss = history["tune_loss"].min()
    reporter.line(
        f"best epoch {best_epoch}, with the tuning (validation) loss {loss:.3f}, saved to "
        f"{out.name}/model.keras"
    )
    return Run(out, out / "model.keras", history, best_epoch)


def data_hash(data: TrainingData, training: Targets) -> str:
    """SHA-256 of the cache's key and of all labels and weights, in tuning and in training."""
    arrays = [
        array.tolist()
        for targets in (data.targets, training)
        for array in (targets.labels, targets.weights)
    ]
    return summary_hash([data.cache.folder.name, *arrays])


def _compute(
    settings: dict[str, Any],
    recipe: Recipe,
    data: TrainingData,
    backbone: keras.Model | None,
    options: RunOptions,
    reporter: ProgressReporter,
) -> ComputeSettings:
    """The compute settings of this machine, where necessary from steps on an empty batch. Reports
    a benchmark, and a batch size that was reduced.
    """

    def make_step(policy: str, recipe: Recipe) -> Callable[[], object]:
        model = build_classifier(
            settings["model"],
            data.cache.spec,
            list(data.targets.names),
            data.targets.task,
            policy=policy,
            stochastic_depth=recipe.stochastic_depth,
            backbone=backbone,
        )
        trainer = _trainer(model, recipe, data, jit=bool(tf.config.list_physical_devices("GPU")))
        trainer.begin_epoch(recipe.epochs)
        batch = _empty_batch(data, recipe.batch_size)

        def step() -> None:
            trainer.step(batch, 0)
            trainer.means()

        return step

    steps = training_steps(len(data.rows("train")), recipe.batch_size)
    result = compute(options.precision, recipe, steps, make_step, reporter.line)
    if result["batch_size"] != recipe.batch_size:
        reporter.line(
            f"batch size {result['batch_size']} with gradients accumulated over "
            f"{result['accumulate']} batches: {recipe.batch_size} images do not fit into memory"
        )
    return result


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
    return inputs, label, weight


def _models(
    settings: dict[str, Any],
    data: TrainingData,
    backbone: keras.Model | None,
    options: RunOptions,
    reporter: ProgressReporter,
    strategy: tf.distribute.Strategy,
) -> tuple[keras.Model, keras.Model]:
    """The model that trains and its float32 copy, both with the initial weights of the run."""
    keras.utils.set_random_seed(options.seed)
    names, task, network = list(data.targets.names), data.targets.task, settings["model"]
    with strategy.scope():
        logit_model = build_classifier(
            network,
            data.cache.spec,
            names,
            task,
            policy=settings["compute"]["precision"],
            stochastic_depth=settings["recipe"]["stochastic_depth"],
            backbone=backbone,
        )
    served_model = build_classifier(network, data.cache.spec, names, task, backbone=backbone)
    copy_weights(logit_model, served_model)
    start = initial_weights(options, network.get("backbone_sha256"))
    if start is not None:
        report = load_pretrained(served_model, start.path, scaling=options.scaling)
        reporter.line(str(report))
        copy_weights(served_model, logit_model)
    return logit_model, served_model


def _trainer(model: keras.Model, recipe: Recipe, data: TrainingData, *, jit: bool) -> Trainer:
    steps = training_steps(len(data.rows("train")), recipe.batch_size)
    order = class_order(data.targets, recipe.ordinal)
    built = optimizer(
        recipe, steps, model.trainable_variables, rate_factors(model, recipe.layer_decay)
    )
    spec = augment_spec(recipe, data.cache.spec)
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
