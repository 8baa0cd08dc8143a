"""The fit: a work folder and a recipe in, a run folder with a verified artefact out. The only caller of Model.fit."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd

from data_pipelines.augment import Augment, augmentation
from data_pipelines.dataset import train_batches, training_steps
from data_pipelines.files import write_atomic
from data_pipelines.manifest import Manifest
from data_pipelines.preprocess import UNITS, PreprocessSpec
from medres.artefact import save, summary_hash
from medres.backbones import load_pretrained
from medres.errors import TrainingError
from medres.model import classifier
from medres.progress import Bars, Progress
from medres.training import checkpoint
from medres.training.data import TrainingData, balanced_over, load_data, mean_auc, predict_logits
from medres.training.freeze import frozen
from medres.training.known import with_known
from medres.training.losses import loss_for, mean_loss
from medres.training.recipes import Recipe, optimizer
from medres.training.recipes import recipe as recipe_of
from medres.training.settings import check_trainable, claim, configuration, preprocessing

if TYPE_CHECKING:
    import tensorflow as tf

KEEP = 2


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its artefact, one history row an epoch, and the epoch (from 1) that was kept."""

    out: Path
    artefact: Path
    history: pd.DataFrame
    best_epoch: int


def train(
    work: Path | str,
    *,
    model: str = "resnet18",
    preset: str | dict | PreprocessSpec | None = None,
    recipe: str | Recipe = "default",
    epochs: int | None = None,
    seed: int = 0,
    out: Path | str,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    class_weights: str | None = None,
    augment: str | None = None,
    version: str = "1.5",
    stem: str | None = None,
    width: int | None = None,
    windows: list | None = None,
    weights: Path | str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train a classifier on an ingested work folder and write `out`: model.keras, history.csv, config.json, checkpoints/.

    The artefact is that of the epoch with the lowest tuning loss, calibrated and with its operating point found on the tuning
    split. Where `out` holds an unfinished run of the same configuration, it goes on after the last whole epoch.
    preset: name or spec of data_pipelines.preprocess; None is xray-224 or ct-256, after the manifest. stem: None is "small" up to
    64 px, else "imagenet". windows: CT only; None is lung, mediastinum and bone. weights: a file to start from
    (`load_pretrained`). progress: None tells each epoch in a line; medres.progress.Progress() is silent.
    Raises TrainingError before the first step where the data cannot be trained on.
    """
    out, manifest, reporter = Path(out), Manifest.load(work), progress or Bars()
    chosen = recipe_of(
        recipe,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        class_weights=class_weights,
        augment=augment,
    )
    spec = preprocessing(preset, manifest)
    network = {"variant": model, "version": version, "stem": stem, "width": width, "windows": windows}
    config = configuration(network, spec, chosen, seed, weights)
    chosen = Recipe.model_validate(config["recipe"])
    data = load_data(work, spec, manifest, reporter)
    check_trainable(data)
    config["data_sha256"] = summary_hash(
        [data.cache.folder.name, data.targets.labels.tolist(), data.targets.weights.tolist()]
    )
    keras.utils.set_random_seed(seed)
    core = _network(config["model"], data)
    if weights is not None:
        reporter.line(str(load_pretrained(core, weights)))
    claim(out, config)
    trainer = _trainer(core, chosen, data)
    history = _fit(trainer, core, data, chosen, seed, out, reporter)
    best = checkpoint.restore(out / "checkpoints" / "best.npz", trainer)
    served, card = frozen(core, data, config, best)
    save(out / "model.keras", served, *with_known(card, served, data))
    reporter.line(f"the model of epoch {best['epoch']} is in {out.name}/model.keras")
    return Run(out, out / "model.keras", history, best["epoch"])


def _network(network: dict[str, Any], data: TrainingData) -> keras.Model:
    options = {key: network[key] for key in ("version", "stem", "width", "windows")}
    shape, targets = (data.cache.spec.rows, data.cache.spec.cols, 1), data.targets
    return classifier(network["variant"], shape, list(targets.names), task=targets.task, **options)


def _trainer(core: keras.Model, chosen: Recipe, data: TrainingData) -> keras.Model:
    """core behind the augmentation, compiled; only core is saved."""
    key = keras.Input((2,), dtype="int32", name="key")
    image = keras.Input(core.input.shape[1:], dtype="float32", name="image")
    augmented = Augment(augmentation(chosen.augment, UNITS[data.cache.spec.kind]), name="augment")(image, key)
    trainer = keras.Model({"image": image, "key": key}, core(augmented), name="trainer")
    trainer.compile(optimizer(chosen, _steps(data, chosen)), loss_for(data.targets.task))
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer


def _steps(data: TrainingData, chosen: Recipe) -> int:
    return training_steps(len(data.part("train")[0]), chosen.batch_size)


def _fit(
    trainer: keras.Model,
    core: keras.Model,
    data: TrainingData,
    chosen: Recipe,
    seed: int,
    out: Path,
    reporter: Progress,
) -> pd.DataFrame:
    """Train epoch by epoch, a checkpoint after each; returns the history."""
    targets = balanced_over(data.targets, data.part("train")[0]) if chosen.class_weights == "balanced" else data.targets
    folder = out / "checkpoints"
    state: dict[str, Any] = {"epoch": 0, "history": []}
    if (newest := checkpoint.latest(folder)) is not None:
        state = checkpoint.restore(newest, trainer)
        reporter.line(f"resuming after epoch {state['epoch']}")
    for epoch in range(state["epoch"], chosen.epochs):
        batches = train_batches(data.cache, targets, chosen.batch_size, seed, epoch=epoch)
        row = _epoch(trainer, core, batches, data, epoch, _steps(data, chosen), reporter)
        state = {"epoch": epoch + 1, "history": [*state["history"], row]}
        if row["tune_loss"] <= min(r["tune_loss"] for r in state["history"]):
            checkpoint.save(folder / "best.npz", trainer, state)
        checkpoint.save(folder / f"epoch-{epoch + 1:04d}.npz", trainer, state)
        checkpoint.keep_last(folder, KEEP)
        write_atomic(out / "history.csv", pd.DataFrame(state["history"]).to_csv(index=False).encode())
    return pd.DataFrame(state["history"])


def _epoch(
    trainer: keras.Model,
    core: keras.Model,
    batches: tf.data.Dataset,
    data: TrainingData,
    epoch: int,
    steps: int,
    reporter: Progress,
) -> dict[str, Any]:
    rate = float(trainer.optimizer.learning_rate)
    begun = time.perf_counter()
    with reporter.task(f"epoch {epoch + 1}") as update:
        watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: update(batch + 1, steps))
        fitted = trainer.fit(
            batches, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0, callbacks=[watch]
        )
    seconds = time.perf_counter() - begun
    row: dict[str, Any] = {"epoch": epoch + 1, "loss": float(fitted.history["loss"][-1]), "learning_rate": rate}
    logits, targets = predict_logits(core, data, "tune")
    if not (math.isfinite(row["loss"]) and np.isfinite(logits).all()):
        raise TrainingError(
            f"epoch {epoch + 1}: the loss or the logits are not finite; the checkpoints before it are sound. Lower the learning rate"
        )
    row |= {
        "tune_loss": mean_loss(logits, targets),
        "tune_auc": mean_auc(logits, targets),
        "seconds": round(seconds, 3),
    }
    auc = "" if row["tune_auc"] is None else f"  tune AUC {row['tune_auc']:.3f}"
    reporter.line(
        f"epoch {epoch + 1:3d}  loss {row['loss']:.4f}  tune loss {row['tune_loss']:.4f}{auc}  {seconds:.1f} s"
    )
    return row
