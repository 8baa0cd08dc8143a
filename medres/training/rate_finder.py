"""`medres.find_learning_rate`: the training loss while the learning rate rises (Smith 2017)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data_pipelines.cache.tf_dataset import train_batches
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.runtime.atomic_files import write_atomic
from medres.errors import TrainingError
from medres.progress import Bars, ProgressReporter
from medres.svg import Axes
from medres.training.config.recipe import Recipe
from medres.training.loggers.html import embedded, figure_page
from medres.training.setup import Setup, set_up
from medres.training.train_step import Batch, Trainer

SMOOTHING = 0.9  # of the moving average of the loss
DIVERGED = 4.0  # times the lowest smoothed loss, at which the search ends
MARGIN = 10.0  # between the rate of the lowest loss and the suggestion
STEPS = (10, 1000)


@dataclass(frozen=True)
class RateSearch:
    """The result of `find_learning_rate`. A notebook shows the curve; `save(path)` writes a page.

    rates, losses: float64 (steps,), the learning rate of each batch and its loss before the update.
    suggestion: a maximum learning rate for the recipe; None where the loss did not fall.
    """

    rates: np.ndarray
    losses: np.ndarray
    suggestion: float | None

    def __repr__(self) -> str:
        text = "none, the loss did not fall" if self.suggestion is None else f"{self.suggestion:g}"
        return f"RateSearch({len(self.rates)} batches, suggestion: {text})"

    def _repr_html_(self) -> str:
        return embedded(f'<div class="row">{self._figure()}</div>')

    def save(self, path: Path | str) -> Path:
        """Write the curve as a page that works offline, and return its path."""
        write_atomic(Path(path), figure_page("Learning rate", self._repr_html_()).encode())
        return Path(path)

    def _figure(self) -> str:
        x, smooth = np.log10(self.rates), smoothed(self.losses)
        low, high = float(smooth.min()), float(max(smooth.max(), self.losses[0]))
        margin = (high - low or 1.0) * 0.1
        low, high = low - margin, high + margin
        name = "Training loss while the learning rate rises"
        axes = Axes(500, 290, (float(x[0]), float(x[-1])), (low, high), name=name, left=66)
        decades = range(math.ceil(x[0] - 1e-9), math.floor(x[-1] + 1e-9) + 1)
        axes.grid(
            [(power, f"1e{power}") for power in decades],
            [(v, f"{v:.3g}") for v in np.linspace(low, high, 5)],
            "learning rate",
            "",
        )
        if self.suggestion is not None:
            mark = math.log10(self.suggestion)
            axes.segment(mark, low, mark, high, "kept")
        axes.line(x.tolist(), smooth.tolist(), "c0")
        note = f"{self!r}; the line is smoothed"
        return f"<div><h2>{name}</h2>{axes.render()}<div>{note}</div></div>"


def find_learning_rate(
    work: Path | str,
    *,
    model: str | Path | keras.Model | None = None,
    preset: str | dict | PreprocessSpec | None = None,
    recipe: str | Recipe | None = None,
    seed: int | None = None,
    config: Path | str | Mapping[str, Any] | None = None,
    steps: int = 100,
    low: float = 1e-6,
    high: float = 1.0,
    progress: ProgressReporter | None = None,
    **overrides: Any,
) -> RateSearch:
    """Train on a few batches while the learning rate rises from `low` to `high` by equal factors,
    and propose a tenth of the rate at which the smoothed loss is lowest. It ends early where the
    loss explodes. Nothing is written but the cache of images.

    steps: batches at most, 10 to 1000. The other arguments are those of `medres.train`, with the
    optimizer, batch size and augmentation of the recipe. Raises TrainingError (code bad_setting)
    for a range that is none, and as `medres.train` does.
    """
    if not (STEPS[0] <= steps <= STEPS[1] and 0 < low < high < math.inf):
        raise TrainingError(
            f"find_learning_rate: steps must be {STEPS[0]} to {STEPS[1]} and low below high, both "
            f"above 0; received steps={steps}, low={low:g}, high={high:g}",
            code="bad_setting",
        )
    reporter = progress or Bars()
    settings = {"preset": preset, "recipe": recipe, "seed": seed, **overrides}
    settings["precision"] = overrides.get("precision", "float32")
    start = set_up(work, model, config, settings, reporter)
    changes = {"schedule": "constant", "warmup": 0.0}
    start.recipe = start.recipe.model_copy(update=changes)
    start.choose_compute(None)
    trainer = start.trainer(start.models()[0])
    trainer.begin_epoch(start.recipe.epochs)  # with all its stages
    rates = np.geomspace(low, high, steps)
    with reporter.task("learning rate") as update:
        losses: list[float] = []
        for rate, batch in zip(rates, _batches(start, trainer), strict=False):
            losses.append(_loss(trainer, batch, float(rate)))
            update(len(losses), steps, "")
            if _exploded(losses):
                break
    if not math.isfinite(losses[-1]) and len(losses) > 1:
        losses.pop()
    used = rates[: len(losses)]
    return RateSearch(used, np.array(losses), suggestion(used, np.array(losses)))


def suggestion(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """A tenth of the rate with the lowest smoothed loss; None where the loss is not lower there
    than at the start.

    >>> suggestion(np.array([1e-4, 1e-3, 1e-2, 1e-1]), np.array([1.0, 0.5, 0.2, 9.0]))
    0.001
    """
    smooth = smoothed(losses)
    best = int(smooth.argmin())
    return float(f"{rates[best] / MARGIN:.2g}") if smooth[best] < smooth[0] else None


def smoothed(losses: np.ndarray) -> np.ndarray:
    """The moving average of the losses with a weight of SMOOTHING on the past, without its bias
    towards 0.
    """
    total, averages = 0.0, []
    for number, loss in enumerate(losses, start=1):
        total = SMOOTHING * total + (1 - SMOOTHING) * float(loss)
        averages.append(total / (1 - SMOOTHING**number))
    return np.array(averages)


def _exploded(losses: list[float]) -> bool:
    if not math.isfinite(losses[-1]):
        return True
    smooth = smoothed(np.array(losses))
    return bool(smooth[-1] > DIVERGED * smooth.min())


def _loss(trainer: Trainer, batch: Batch, rate: float) -> float:
    trainer.reset_means()
    trainer.optimizer.learning_rate = rate
    trainer.step(batch, 0)
    return trainer.means()["loss"]


def _batches(start: Setup, trainer: Trainer) -> Iterator[Batch]:
    """The batches of the run, epoch after epoch."""
    for epoch in itertools.count():

        def batches(
            context: tf.distribute.InputContext | None, epoch: int = epoch
        ) -> tf.data.Dataset:
            recipe, seed = start.recipe, start.options.seed
            return train_batches(
                start.data.cache,
                start.targets,
                recipe.batch_size,
                seed,
                epoch=epoch,
                context=context,
            )

        yield from trainer.distribute(batches)
