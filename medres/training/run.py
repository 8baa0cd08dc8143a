"""A training run: from a work folder and settings to a run folder with a verified model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.runtime.atomic_files import write_atomic
from medres.artefact.archive import save, summary_hash
from medres.errors import TrainingError
from medres.progress import Bars, ProgressReporter
from medres.training import checkpoint
from medres.training.calibration.finalize import finalized
from medres.training.config.options import (
    before_later_field,
    claim_run_folder,
    existing_config,
    minutes,
    raises_epochs,
    record_end,
    with_epochs,
)
from medres.training.config.recipe import Recipe
from medres.training.data import CompiledModel, ScoredImages, TrainingData, tuning_holdout
from medres.training.distributed.agreement import require_agreement
from medres.training.distributed.joining import membership
from medres.training.distributed.team import Team
from medres.training.distributed.worker_log import WorkerLog
from medres.training.input_statistics import with_input_statistics
from medres.training.loggers.html import WorstImage, training_page, worst_images
from medres.training.loggers.mlflow import MlflowLogger
from medres.training.loop import Loop, should_stop
from medres.training.monitoring.best_epoch import BUILT_IN, LOSS, Monitor, monitor_named
from medres.training.monitoring.callback_hooks import check_callbacks
from medres.training.monitoring.split_metrics import SplitMetrics
from medres.training.network import copy_weights
from medres.training.setup import Setup, set_up
from medres.training.tasks.row import RunParts


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
    callbacks: Sequence[keras.callbacks.Callback] = (),
    metrics: Sequence[keras.metrics.Metric | str] = (),
    time_budget: float | str | None = None,
    **overrides: Any,
) -> Run:
    """Train a classifier, with task="segmentation" a segmenter, or with task="detection" a
    detector, on an ingested work folder and write the run folder `out`: model.keras, history.csv,
    config.json, checkpoints/, training.html (curves, and the images with the highest loss) and
    logs/ (for TensorBoard).

    The model file has the weights of the epoch with the lowest tuning (validation) loss, or the
    best value of another `monitor`. It is
    calibrated, with operating points and conformal quantiles from the tuning split. Where `out` has
    an unfinished run with the same configuration, training resumes there, and the result is
    bit-equal to that of an uninterrupted run. A higher number of epochs continues a run.

    Where TF_CONFIG or srun name several processes, and each makes the same call, they share each
    batch; the first of them (the chief) decides and writes. An error of one is raised by all.

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
    callbacks: of Keras. Their hooks for training, epochs and batches run; `model` is the float32
        copy that is served (logits), with the weights of the last epoch. `logs` has loss,
        learning_rate, val_loss, val_auc, and val_NAME of each metric. `model.stop_training` ends
        the run after the epoch. State is saved where a callback has state_dict() (JSON) and
        load_state_dict(state).
    metrics: Keras metrics, computed on the images of the tuning split after each epoch: the columns
        tune_NAME of history.csv. "accuracy" is allowed.
    time_budget: minutes, or "90s", "30m", "2h": no epoch is begun that would end later; one always
        is. The model file is written, and the same call goes on.

    Raises TrainingError, before the first step, where the settings are not allowed or the data
    cannot be trained on. Codes of the last three arguments: bad_callbacks, backup_and_restore,
    swap_ema_weights, restore_best_weights, schedule_not_constant; bad_metrics, metric_failed,
    metric_missing_labels, unknown_monitor, unknown_direction; bad_setting. Codes of several
    processes: bad_cluster, missing_worker, duplicate_rank, port_in_use, other_version, other_clock,
    other_data, other_settings, strategy_too_late, and while it trains worker_lost, worker_failed.
    """
    settings = {"preset": preset, "recipe": recipe, "epochs": epochs, "seed": seed, **overrides}
    companions = _Companions(checkpoint_steps, mlflow, callbacks, metrics, time_budget)
    with membership() as member:
        start = set_up(work, model, config, settings, _reporter(progress, member.team), member)
        return _train(start, Path(out), companions)


@dataclass(frozen=True)
class _Companions:
    """The arguments of `train` that accompany a run; they are not settings of it."""

    checkpoint_steps: int | None
    mlflow: str | None
    callbacks: Sequence[keras.callbacks.Callback]
    metrics: Sequence[keras.metrics.Metric | str]
    time_budget: float | str | None


def _reporter(progress: ProgressReporter | None, team: Team) -> ProgressReporter:
    chosen = progress or (Bars() if team.is_chief else ProgressReporter())
    return WorkerLog(team.rank, chosen) if team.size > 1 else chosen


def _train(start: Setup, out: Path, companions: _Companions) -> Run:
    """See `train`. Of several workers, the chief decides and writes; the others follow it."""
    team, reporter, settings, data = start.team, start.reporter, start.settings, start.data
    mlflow, time_budget = companions.mlflow, companions.time_budget
    budget = None if time_budget is None else 60.0 * minutes(time_budget)
    check_callbacks(companions.callbacks, start.recipe.schedule)
    parts = _parts(start, companions.metrics)
    monitor = monitor_named(start.options.monitor, parts.directions, built_in=parts.built_in)
    settings |= {} if monitor == LOSS else {"monitor": monitor.setting}
    settings |= {"metrics": parts.settings} if parts.settings else {}
    require_agreement(team, settings)
    existing = team.share(existing_config(out) if team.is_chief else {})
    start.choose_compute(existing.get("compute"))
    if raises_epochs(existing, settings) and team.is_chief:
        reporter.line(continuation_line(out, existing, start.recipe, monitor))
    logit_model, served_model = start.models()
    if team.is_chief:
        claim_run_folder(out, settings)
    earlier = team.share(existing_config(out).get("continued", []) if team.is_chief else [])
    if isinstance(reporter, WorkerLog):
        reporter.open(out)
    loop = Loop(
        trainer=start.trainer(logit_model),
        evaluated=CompiledModel(served_model),
        data=data,
        targets=start.targets,
        tune_mask=parts.tune_mask,
        seed=start.options.seed,
        run_hash=summary_hash(settings),
        out=out,
        reporter=reporter,
        checkpoint_steps=companions.checkpoint_steps,
        mlflow=MlflowLogger(mlflow, out, settings) if mlflow and team.is_chief else None,
        earlier_runs=_earlier_runs(settings, earlier),
        callbacks=companions.callbacks if team.is_chief else (),
        monitor=monitor,
        metrics=parts.metrics,
        time_budget=budget,
        tuned=parts.tuned,
        team=team,
    )
    history = loop.train()
    if not team.is_chief:
        return Run(out, out / "model.keras", history, team.share(0))
    stopped = _stopped(loop.stopped, len(history), time_budget)
    record_end(out, stopped)
    settings |= {"continued": earlier} if earlier else {}
    settings |= {"stopped": stopped} if stopped else {}
    weights, best = checkpoint.read(out / "checkpoints" / checkpoint.BEST)
    best_epoch = best["epoch"]
    copy_weights(logit_model, served_model, weights)
    worst = parts.worst(loop.evaluated)
    page = training_page(history, settings, best_epoch, worst, best=monitor.phrase)
    write_atomic(out / "training.html", page.encode())
    finished, card = parts.finish(served_model, data, settings, best_epoch)
    save(out / "model.keras", finished, *with_input_statistics(card, finished, data))
    for note in card.training["notes"]:
        reporter.line(note)
    value = history[monitor.column].iloc[best_epoch - 1]
    reporter.line(
        f"best epoch {best_epoch}, with the {monitor.phrase} {value:.3f}, saved to "
        f"{out.name}/model.keras"
    )
    team.share(best_epoch)
    return Run(out, out / "model.keras", history, best_epoch)


def _earlier_runs(settings: dict[str, Any], counts: Sequence[int]) -> tuple[str, ...]:
    """The hashes of this run with fewer epochs, and as earlier versions of medres wrote them."""
    configs = [settings, *(with_epochs(settings, count) for count in counts)]
    return tuple(
        summary_hash(config) for each in configs for config in (each, before_later_field(each))
    )


def _parts(start: Setup, metrics: Sequence[Any]) -> RunParts:
    """Raises TrainingError (bad_metrics)."""
    training = start.task_training
    if training is None:
        return _classification(start, metrics)
    if len(metrics):
        raise TrainingError(
            f"metrics: for {start.options.task}, its own figures are computed after each epoch, "
            f"and no further metrics are",
            code="bad_metrics",
        )
    return training.parts(start.data, start.recipe, start.options)


def _classification(start: Setup, metrics: Sequence[Any]) -> RunParts:
    data = start.data
    tune_mask = ~tuning_holdout(data, start.options.alpha)
    own = _split_metrics(metrics, data, tune_mask, start.reporter)

    def worst(model: CompiledModel) -> dict[str, list[WorstImage]]:
        return {split: worst_images(model, data, split) for split in ("train", "tune")}

    return RunParts(
        own.directions, BUILT_IN, tune_mask, finalized, worst, metrics=own, settings=own.settings
    )


def _split_metrics(
    metrics: Sequence[Any], data: TrainingData, mask: np.ndarray, reporter: ProgressReporter
) -> SplitMetrics:
    """The metrics, tried on the tuning images with the logit 0."""
    targets = data.split_targets("tune")
    zeros = np.zeros((len(targets.labels), data.task.outputs(len(targets.names))), np.float32)
    images = ScoredImages(zeros, targets, data.table("tune")).take(mask)
    return SplitMetrics(metrics, images, reporter)


def _stopped(
    reason: str | None, epochs: int, time_budget: float | str | None
) -> dict[str, Any] | None:
    """`stopped` in config.json, where a run ended before its last epoch."""
    if reason is None:
        return None
    budget = {"minutes": minutes(time_budget)} if reason == "time_budget" and time_budget else {}
    return {"by": reason, "after_epoch": epochs, **budget}


def continuation_line(
    out: Path, existing: Mapping[str, Any], recipe: Recipe, monitor: Monitor
) -> str:
    """What raising the number of epochs of a run does. Raises TrainingError (code stopped_early)
    where early stopping ended the run, so that more epochs would change nothing.
    """
    before, file = existing["recipe"]["epochs"], out / "history.csv"
    history = pd.read_csv(file).to_dict("records") if file.is_file() else []
    if should_stop(history, recipe.patience, monitor):
        raise TrainingError(
            f"early stopping with patience {recipe.patience} ended this run after epoch "
            f"{len(history)}, so that more epochs would change nothing: train into a new folder "
            f"with a higher patience",
            code="stopped_early",
        )
    line = f"continuing a run of {before} epochs to {recipe.epochs}"
    if recipe.schedule == "constant":
        return line + ", as if it had been started with that number"
    return (
        f"{line}: the schedule {recipe.schedule!r} goes on where a run of {recipe.epochs} epochs "
        f"would be, so the learning rate rises again, and the result is not that of a run which "
        f"was started with {recipe.epochs} epochs"
    )
