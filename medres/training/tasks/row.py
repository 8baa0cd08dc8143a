"""`TaskTraining`: what differs between the tasks of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.spec import PreprocessSpec
from medres.artefact.card import Card
from medres.progress import ProgressReporter
from medres.training.config.options import RunOptions
from medres.training.config.recipe import Recipe
from medres.training.data import CompiledModel, TrainingData
from medres.training.loggers.html import WorstImage
from medres.training.monitoring.split_metrics import SplitMetrics
from medres.training.train_step import Trainer


@dataclass(frozen=True)
class RunParts:
    """What the loop and the end of a run take from the task.

    directions: "min", "max" or None of the metrics that a monitor may name; built_in: those that
    every history has. tune_mask, metrics, tuned: of the loop. finish: from the logit model to the
    served model and its card. worst: the images of the training page, by split. settings: `metrics`
    of config.json.
    """

    directions: Mapping[str, str | None]
    built_in: Mapping[str, str | None]
    tune_mask: np.ndarray
    finish: Callable[..., tuple[keras.Model, Card]]
    worst: Callable[[CompiledModel], Mapping[str, Sequence[WorstImage]]]
    metrics: SplitMetrics | None = None
    tuned: Callable[[CompiledModel, int], dict[str, Any]] | None = None
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskTraining:
    """How a task that learns masks or boxes is trained.

    load: the cache of a work folder with its annotations. check: raises TrainingError unless the
    data can be trained on. build: the network, from the settings of config.json, under a dtype
    policy. trainer: from a model and its optimizer. parts: see `RunParts`. batch_size: where none
    is given.
    """

    load: Callable[[Path | str, PreprocessSpec, Manifest, ProgressReporter], TrainingData]
    check: Callable[[TrainingData, Recipe, RunOptions], None]
    build: Callable[..., keras.Model]
    trainer: Callable[..., Trainer]
    parts: Callable[[TrainingData, Recipe, RunOptions], RunParts]
    batch_size: Callable[[RunOptions, PreprocessSpec, Recipe], int]
