"""The fit: a work folder and a recipe in, a run folder with a verified artefact out."""

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
from medres.training.calibration.finalize import Finalized, card_of, frozen
from medres.training.calibration.scaling import identity
from medres.training.checks import check_classes, check_trainable
from medres.training.config.options import (
    RunOptions,
    augment_spec,
    claim_run_folder,
    configuration,
    existing_config,
    preprocessing,
    resolve_settings,
)
from medres.training.config.recipe import Recipe
from medres.training.data import CompiledModel, TrainingData, load_data, tuning_holdout
from medres.training.hardware import check_devices, compute, devices, strategy
from medres.training.input_statistics import with_known
from medres.training.loggers.html import training_page, worst_images
from medres.training.loggers.mlflow import Tracked
from medres.training.loop import Loop
from medres.training.losses import Loss
from medres.training.network import (
    backbone_sha256,
    build,
    copy_weights,
    load_backbone,
    rate_factors,
)
from medres.training.optimizers import optimizer
from medres.training.targets import class_order, training_targets
from medres.training.train_step import Trainer


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its artefact, one history row an epoch, and the epoch (from 1)
    that was kept.
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
    **further: Any,
) -> Run:
    """Train a classifier on an ingested work folder and write `out`: model.keras, history.csv,
    config.json, checkpoints/, training.html (curves, and the images with the greatest loss), logs/
    (for TensorBoard).

    The artefact is that of the epoch with the lowest tuning loss, calibrated, with operating points
    and conformal quantiles from the tuning split. Where `out` holds an unfinished run of the same
    configuration, it goes on where that was killed, and ends bit-equal to a run that was not.

    model: a variant, a .keras file, or a functional Keras model of one's own: (batch, H, W, C) in
        -1..1 -> feature map or vector.
    config: settings by name, a file or a mapping; what is given here overrides it. further: any
        field of medres.training.config.options.RunOptions or medres.training.config.recipe.Recipe,
        such as weights, windows, batch_size, learning_rate, ema.
    progress: None tells each epoch in a line; medres.progress.ProgressReporter() is silent.
        checkpoint_steps: batches between checkpoints inside an epoch; None is every five minutes.
        mlflow: the experiment that settings and numbers are logged to as well (extra `mlflow`).
        Raises TrainingError before the first step where the data cannot be trained on.
    """
    backbone = model if isinstance(model, keras.Model) else None
    named = None if model is None or backbone is not None else str(model)
    given = {
        "model": named,
        "preset": preset,
        "recipe": recipe,
        "epochs": epochs,
        "seed": seed,
        **further,
    }
    options, chosen = resolve_settings(config, given)
    if backbone is None and options.model.endswith(".keras"):
        backbone = load_backbone(options.model)
    out, manifest, reporter = Path(out), Manifest.load(work), progress or Bars()
    check_classes(manifest)
    spec = preprocessing(options.preset, manifest)
    settings = configuration(
        options, chosen, spec, backbone=backbone_sha256(backbone) if backbone else None
    )
    chosen = Recipe.model_validate(settings["recipe"])
    data = load_data(work, spec, manifest, reporter)
    check_trainable(data, chosen)
    training = training_targets(data.targets, data.table(), data.part("train")[0], chosen)
    settings["data_sha256"] = data_hash(data, training)
    before, mirror = existing_config(out).get("compute"), strategy(devices())
    check_devices(mirror.num_replicas_in_sync, before or {}, chosen)
    settings["compute"] = before or _compute(settings, chosen, data, backbone, options, reporter)
    chosen = chosen.model_copy(
        update={key: settings["compute"][key] for key in ("batch_size", "accumulate")}
    )
    core, served = _nets(settings, data, backbone, options, reporter, mirror)
    if backbone is not None:
        _check_servable(served, data, settings)
    claim_run_folder(out, settings)
    with mirror.scope():
        trainer = _trainer(core, chosen, data, jit=settings["compute"]["jit"])
    loop = Loop(
        trainer,
        CompiledModel(served),
        data,
        training,
        ~tuning_holdout(data, options.alpha),
        options.seed,
        summary_hash(settings),
        out,
        reporter,
        checkpoint_steps,
        Tracked(mlflow, out, settings) if mlflow else None,
    )
    history = loop.train()
    weights, best = checkpoint.read(out / "checkpoints" / checkpoint.BEST)
    copy_weights(core, served, weights)
    worst = {split: worst_images(loop.net, data, split) for split in ("train", "tune")}
    write_atomic(
        out / "training.html", training_page(history, settings, best["epoch"], worst).encode()
    )
    finished, card = frozen(served, data, settings, best["epoch"])
    save(out / "model.keras", finished, *with_known(card, finished, data))
    reporter.line(f"the model of epoch {best['epoch']} is in {out.name}/model.keras")
    return Run(out, out / "model.keras", history, best["epoch"])


def data_hash(data: TrainingData, training: Targets) -> str:
    """SHA-256 of the cache's key and of every label and weight, as tuning and training see them."""
    seen = [
        array.tolist()
        for targets in (data.targets, training)
        for array in (targets.labels, targets.weights)
    ]
    return summary_hash([data.cache.folder.name, *seen])


def _compute(
    settings: dict[str, Any],
    chosen: Recipe,
    data: TrainingData,
    backbone: keras.Model | None,
    options: RunOptions,
    reporter: ProgressReporter,
) -> dict[str, Any]:
    """What the machine should do, tried on one made-up batch; tells what was chosen where it was
    tried.
    """

    def make(policy: str, recipe: Recipe) -> Callable[[], object]:
        core = build(
            settings["model"],
            data.cache.spec,
            list(data.targets.names),
            data.targets.task,
            policy=policy,
            stochastic_depth=recipe.stochastic_depth,
            backbone=backbone,
        )
        trainer = _trainer(core, recipe, data, jit=bool(tf.config.list_physical_devices("GPU")))
        trainer.open(recipe.epochs)
        size, targets = recipe.batch_size, data.targets
        inputs = {
            "image": tf.zeros((size, *data.cache.spec.shape)),
            "key": tf.zeros((size, 2), tf.int32),
        }
        label, weight = (
            tf.zeros((size, *a.shape[1:]), a.dtype) for a in (targets.labels, targets.weights)
        )

        def step() -> None:
            trainer.step((inputs, label, weight), 0)
            trainer.means()

        return step

    steps = training_steps(len(data.part("train")[0]), chosen.batch_size)
    found = compute(options.precision, chosen, steps, make)
    if found["why"].startswith("self-test"):
        reporter.line(f"{found['precision']}: {found['why']}")
    if found["batch_size"] != chosen.batch_size:
        reporter.line(
            f"batches of {found['batch_size']}, {found['accumulate']} to an update: "
            f"{chosen.batch_size} do not fit"
        )
    return found


def _nets(
    settings: dict[str, Any],
    data: TrainingData,
    backbone: keras.Model | None,
    options: RunOptions,
    reporter: ProgressReporter,
    mirror: tf.distribute.Strategy,
) -> tuple[keras.Model, keras.Model]:
    """The net that trains and its float32 copy, both with the weights that the run starts from."""
    keras.utils.set_random_seed(options.seed)
    names, task, network = list(data.targets.names), data.targets.task, settings["model"]
    drop = settings["recipe"]["stochastic_depth"]
    policy = settings["compute"]["precision"]
    with mirror.scope():
        core = build(
            network,
            data.cache.spec,
            names,
            task,
            policy=policy,
            stochastic_depth=drop,
            backbone=backbone,
        )
    served = build(network, data.cache.spec, names, task, backbone=backbone)
    copy_weights(core, served)
    if options.weights is not None:
        reporter.line(str(load_pretrained(served, options.weights, scaling=options.scaling)))
        copy_weights(served, core)
    return core, served


def _trainer(core: keras.Model, chosen: Recipe, data: TrainingData, *, jit: bool) -> Trainer:
    steps = training_steps(len(data.part("train")[0]), chosen.batch_size)
    order = class_order(data.targets, chosen.ordinal)
    made = optimizer(
        chosen, steps, core.trainable_variables, rate_factors(core, chosen.layer_decay)
    )
    spec = augment_spec(chosen, data.cache.spec)
    loss = Loss(data.targets.task, chosen.smoothing, chosen.focal, order)
    alone = Augment(spec.model_copy(update={"mixup": 0.0, "cutmix": 0.0}), name="augment")
    return Trainer(
        core, alone, loss, made, chosen, jit=jit, pairs=spec if spec.mixes_pairs else None
    )


def _check_servable(served: keras.Model, data: TrainingData, settings: dict[str, Any]) -> None:
    """Raise TrainingError where the model file of a backbone of one's own could not be opened
    again.
    """
    calibration = identity(len(data.targets.names))
    card = card_of(data, settings, Finalized(calibration, [], [], []), 0)
    with tempfile.TemporaryDirectory(prefix="medres-") as folder:
        try:
            save(
                Path(folder) / "model.keras",
                with_probability(served, calibration, data.targets.task),
                card,
            )
        except ArtefactError as error:
            raise TrainingError(
                f"the backbone cannot be served: {error}. Build it of Keras' own layers, as "
                f"medres does"
            ) from None
