"""Keras metrics on the images of the tuning (validation) split, computed after each epoch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from medres.errors import TrainingError
from medres.metrics import MaskedBinaryAccuracy, leaves_out_missing
from medres.progress import ProgressReporter
from medres.tasks import task_named
from medres.training.data import ScoredImages
from medres.training.monitoring.best_epoch import BUILT_IN
from medres.training.targets import MISSING, for_fit
from medres.training.tuning_metrics import probabilities

ACCURACY = ("accuracy", "acc")


class SplitMetrics:
    """Keras metrics by the names that history.csv, callbacks and `monitor` use.

    A metric gets what `model.fit` would give it: the labels of `medres.data` (-1: missing),
    probabilities (logits, where the metric was made with from_logits=True), and the weights of the
    images. "accuracy" stands for the accuracy of the task.

    Raises TrainingError (codes bad_metrics, metric_missing_labels, metric_failed).
    """

    def __init__(
        self, metrics: Sequence[Any], images: ScoredImages, reporter: ProgressReporter
    ) -> None:
        if isinstance(metrics, str) or not isinstance(metrics, Sequence):
            raise TrainingError(
                f"metrics: give a list of Keras metrics, received {type(metrics).__name__}",
                code="bad_metrics",
            )
        self.metrics: dict[str, keras.metrics.Metric] = {}
        for given in metrics:
            metric = _metric(given, images.targets.task)
            base = _stable_name(metric)
            name = _free_name(base, {*BUILT_IN, *self.metrics})
            if name != base:
                reporter.line(f"the metric {base} is called {name}: the name {base} is taken")
            self.metrics[name] = metric
        _check_missing_labels(self.metrics, images)
        if self.metrics:
            self.row(images)

    @property
    def directions(self) -> dict[str, str | None]:
        """ "min", "max" or None (unknown) by name."""
        return {
            name: {"up": "max", "down": "min"}.get(str(getattr(metric, "_direction", None)))
            for name, metric in self.metrics.items()
        }

    @property
    def settings(self) -> dict[str, str]:
        """As `metrics` in config.json: the class of each metric by its name."""
        return {name: type(metric).__name__ for name, metric in self.metrics.items()}

    def row(self, images: ScoredImages) -> dict[str, float | None]:
        """tune_NAME for each metric; None where its value is not finite. images: with logits."""
        if not self.metrics:
            return {}
        targets, chances = for_fit(images.targets), probabilities(images).astype(np.float32)
        row: dict[str, float | None] = {}
        for name, metric in self.metrics.items():
            outputs = images.scores if _takes_logits(metric) else chances
            row[f"tune_{name}"] = _value(name, metric, targets.labels, outputs, targets.weights)
        return row


def _metric(given: Any, task: str) -> keras.metrics.Metric:
    if given in ACCURACY:
        exclusive = task_named(task).exclusive
        kind = keras.metrics.SparseCategoricalAccuracy if exclusive else MaskedBinaryAccuracy
        return kind(name="accuracy")
    if not isinstance(given, keras.metrics.Metric):
        raise TrainingError(
            f"metrics: each must be a Keras metric, for instance keras.metrics.AUC(name='pr_auc', "
            f"curve='PR'), or 'accuracy'; received {str(given)[:60]!r}. The AUC of the tuning "
            f"split is always computed",
            code="bad_metrics",
        )
    return given


def _takes_logits(metric: keras.metrics.Metric) -> bool:
    """Whether a metric was made with from_logits=True, wherever Keras keeps that."""
    return bool(
        getattr(metric, "from_logits", False)
        or getattr(metric, "_from_logits", False)
        or getattr(metric, "_fn_kwargs", {}).get("from_logits", False)
    )


def _stable_name(metric: keras.metrics.Metric) -> str:
    """The name of a metric; without the number that Keras adds in order of creation, which a
    resumed run would not find again.
    """
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(metric).__name__)
    automatic = re.fullmatch(rf"{re.escape(snake.lower())}_\d+", metric.name)
    return snake.lower() if automatic else str(metric.name)


def _free_name(name: str, taken: set[str]) -> str:
    numbers = range(1, len(taken) + 2)
    return (
        name
        if name not in taken
        else next(f"{name}_{n}" for n in numbers if f"{name}_{n}" not in taken)
    )


def _check_missing_labels(metrics: dict[str, keras.metrics.Metric], images: ScoredImages) -> None:
    if task_named(images.targets.task).exclusive or len(images.targets.names) == 1:
        return  # an image without a label has the weight 0
    labels = for_fit(images.targets).labels
    wrong = [name for name, metric in metrics.items() if not leaves_out_missing(metric)]
    if wrong and (labels == MISSING).any():
        raise TrainingError(
            f"metric {wrong[0]}: some labels of the tuning split are missing, and this metric "
            f"would count them as negative: use medres.metrics.MaskedAUC or MaskedBinaryAccuracy",
            code="metric_missing_labels",
        )


def _value(
    name: str,
    metric: keras.metrics.Metric,
    labels: np.ndarray,
    outputs: np.ndarray,
    weights: np.ndarray,
) -> float | None:
    try:
        metric.reset_state()
        metric.update_state(labels, outputs, sample_weight=weights)
        value = float(keras.ops.convert_to_numpy(metric.result()))
    except Exception as error:
        raise TrainingError(
            f"metric {name} ({type(metric).__name__}) does not take labels {labels.shape}, "
            f"outputs {outputs.shape} and weights {weights.shape}, or gives no single number "
            f"({type(error).__name__})",
            code="metric_failed",
        ) from error
    return value if math.isfinite(value) else None
