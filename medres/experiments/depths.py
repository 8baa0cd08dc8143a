"""Training error by depth, plain against residual networks: section 4.2 of the paper, at a size
that fits your machine.
"""

from __future__ import annotations

import io
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from data_pipelines.runtime.atomic_files import write_atomic
from medres.errors import TrainingError
from medres.experiments.gradients import cross_entropy, gradient_flow
from medres.experiments.twins import cifar_net
from medres.progress import ProgressReporter

GRADIENT_IMAGES = 64  # for the measurement of gradients


@dataclass(frozen=True)
class DepthExperiment:
    """The networks of an experiment and their training. The defaults are those of the paper: batch
    size 128, learning rate 0.1 divided by 10 after a half and three quarters of 164 epochs, weight
    decay 1e-4.

    depths: 6n+2 each. augment: pad by 4, random crop, random left-right flip (for natural images;
    set it to False if sides matter). warm_up_from: networks of this depth or more train the first
    epoch at a tenth of the learning rate, as the 110 layers of the paper.

    >>> DepthExperiment().rate(epoch=100, depth=20)
    0.010000000000000002
    """

    depths: tuple[int, ...] = (20, 56)
    epochs: int = 164
    seeds: tuple[int, ...] = (0,)
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 1e-4
    momentum: float = 0.9
    augment: bool = True
    width: int = 16
    warm_up_from: int = 110

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, len(self.depths), len(self.seeds)) < 1:
            raise TrainingError(
                f"{self}: epochs and batch_size must be 1 or more, with at least one depth and "
                f"one seed",
                code="settings",
            )

    def rate(self, epoch: int, depth: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        if epoch == 1 and depth >= self.warm_up_from:
            return self.learning_rate / 10
        progress = (epoch - 1) / self.epochs
        return self.learning_rate * (1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01)


DepthPlan = DepthExperiment  # former name


@dataclass(frozen=True)
class Images:
    """Images (n, rows, columns[, channels]), uint8 or float in 0..1, and class numbers (n,); `test`
    images are only evaluated. Stored as float32 (n, rows, columns, channels) in 0..1 and int32.
    """

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    classes: int = field(init=False)

    def __post_init__(self) -> None:
        for name in ("train", "test"):
            pixels, labels = (
                np.asarray(getattr(self, name)),
                np.asarray(getattr(self, f"{name}_labels")).reshape(-1),
            )
            if len(pixels) != len(labels) or not len(pixels) or pixels.ndim not in (3, 4):
                raise TrainingError(
                    f"{name}: {len(labels)} labels for images of shape {pixels.shape}; give images "
                    f"(n, rows, columns[, channels]) and n labels",
                    code="shapes",
                )
            scaled = pixels.astype("float32") / (255 if pixels.dtype == np.uint8 else 1)
            object.__setattr__(self, name, scaled if pixels.ndim == 4 else scaled[..., None])
            object.__setattr__(self, f"{name}_labels", labels.astype("int32"))
        object.__setattr__(self, "classes", int(self.train_labels.max()) + 1)


def depth_study(
    images: Images,
    out: Path | str,
    plan: DepthExperiment | None = None,
    *,
    progress: ProgressReporter | None = None,
) -> pd.DataFrame:
    """Train every network of `plan`, plain and residual, and return a table with one row per
    network and epoch. An interrupted experiment resumes.

    Columns: `depth`, `residual`, `seed`, `epoch` (from 1), `rate`, `train_loss`, `train_error`
    (0..1, on the augmented images, during the epoch), `test_error` (0..1), `seconds`. Written to
    `out`: depths.csv, the whole table; and one folder per network with history.csv, gradients.csv
    (layer, depth, gradient_norm, weight_norm before training, epoch 0, and after each epoch) and
    state.npz, all replaced after each epoch. The networks have shortcuts of option A, so that a
    plain and a residual network have the same parameters.
    Raises TrainingError if the loss is not finite, or if a folder has other settings or images.
    """
    plan, progress, out = plan or DepthExperiment(), progress or ProgressReporter(), Path(out)
    tables = []
    for seed in plan.seeds:
        for depth in plan.depths:
            for residual in (False, True):
                network = _Training(
                    plan,
                    images,
                    depth,
                    residual,
                    seed,
                    out / f"{'residual' if residual else 'plain'}{depth}-seed{seed}",
                )
                tables.append(network.run(progress))
    table = pd.concat(tables, ignore_index=True)
    write_atomic(out / "depths.csv", table.to_csv(index=False).encode())
    return table


class _Training:
    """The training of one network, from its last finished epoch."""

    def __init__(
        self,
        plan: DepthExperiment,
        images: Images,
        depth: int,
        residual: bool,
        seed: int,
        folder: Path,
    ) -> None:
        self.plan, self.images, self.depth, self.residual, self.seed, self.folder = (
            plan,
            images,
            depth,
            residual,
            seed,
            folder,
        )
        shape = images.train.shape[1:]
        self.model = cifar_net(
            depth, shape, images.classes, residual=residual, seed=seed, width=plan.width
        )
        self.velocity = [tf.Variable(tf.zeros(v.shape)) for v in self.model.trainable_variables]
        self.rows: list[dict[Any, Any]] = []
        self.gradients: list[pd.DataFrame] = []

    def run(self, progress: ProgressReporter) -> pd.DataFrame:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        step = tf.function(self._step)
        for epoch in range(len(self.rows) + 1, self.plan.epochs + 1):
            row = self._epoch(epoch, step, progress)
            self.rows.append(row)
            self._measure(epoch)
            self._save()
            progress.line(
                f"{self.folder.name} epoch {epoch}: train error {row['train_error']:.4f}, test "
                f"error {row['test_error']:.4f}"
            )
        return pd.DataFrame(self.rows)

    def _step(self, pixels: Any, labels: Any, rate: Any) -> tuple[Any, Any]:
        """One step of SGD with momentum and L2 decay of every weight, as in the paper. Returns the
        summed loss and the number of misclassified images.
        """
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            logits = self.model(pixels, training=True)
            losses = cross_entropy(labels, logits)
            value = tf.reduce_mean(losses)
        for variable, velocity, gradient in zip(
            variables,
            self.velocity,
            tape.gradient(value, [v.value for v in variables]),
            strict=True,
        ):
            velocity.assign(
                self.plan.momentum * velocity + gradient + self.plan.weight_decay * variable.value
            )
            variable.assign_sub(rate * velocity)
        wrong = tf.argmax(logits, axis=-1, output_type=tf.int32) != labels
        return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(wrong, tf.int32))

    def _epoch(self, epoch: int, step: Any, progress: ProgressReporter) -> dict[str, Any]:
        began, size = time.monotonic(), self.plan.batch_size
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.images.train))
        rate = self.plan.rate(epoch, self.depth)
        loss = wrong = 0.0
        with progress.task(f"{self.folder.name} {epoch}/{self.plan.epochs}") as update:
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                pixels = self.images.train[batch]
                pixels = shifted_and_flipped(pixels, random) if self.plan.augment else pixels
                part = step(
                    tf.constant(pixels),
                    tf.constant(self.images.train_labels[batch]),
                    tf.constant(rate, tf.float32),
                )
                loss, wrong = loss + float(part[0]), wrong + int(part[1])
                update(min(start + size, len(order)), len(order))
        if not np.isfinite(loss):
            raise TrainingError(
                f"{self.folder.name}: the loss of epoch {epoch} is not finite; use a learning_rate "
                f"below {rate}",
                code="loss_not_finite",
            )
        predicted = self.model.predict(self.images.test, batch_size=256, verbose=0).argmax(axis=1)
        return {
            "depth": self.depth,
            "residual": self.residual,
            "seed": self.seed,
            "epoch": epoch,
            "rate": rate,
            "train_loss": loss / len(order),
            "train_error": wrong / len(order),
            "test_error": float((predicted != self.images.test_labels).mean()),
            "seconds": round(time.monotonic() - began, 2),
        }

    def _measure(self, epoch: int) -> None:
        layers = gradient_flow(
            self.model,
            self.images.train[:GRADIENT_IMAGES],
            self.images.train_labels[:GRADIENT_IMAGES],
        ).layers
        self.gradients.append(layers.assign(epoch=epoch))

    def _variables(self) -> list[Any]:
        return [*(v.value for v in self.model.variables), *self.velocity]

    def _settings(self) -> str:
        return repr(
            (sorted(asdict(self.plan).items()), self.images.train.shape, self.images.test.shape)
        )

    def _save(self) -> None:
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {f"v{i}": np.asarray(v) for i, v in enumerate(self._variables())}
        np.savez(
            buffer, settings=np.array(self._settings()), epochs=np.array(len(self.rows)), **arrays
        )
        write_atomic(
            self.folder / "history.csv", pd.DataFrame(self.rows).to_csv(index=False).encode()
        )
        write_atomic(
            self.folder / "gradients.csv", pd.concat(self.gradients).to_csv(index=False).encode()
        )
        write_atomic(self.folder / "state.npz", buffer.getvalue())

    def _resume(self) -> None:
        """Restore state.npz, which is written last. Rows of later epochs are dropped, and these
        epochs are trained again.
        """
        state = self.folder / "state.npz"
        if not state.exists():
            self._measure(0)
            return
        with np.load(state, allow_pickle=False) as saved:
            if str(saved["settings"]) != self._settings():
                raise TrainingError(
                    f"{self.folder} holds a network with other settings or images; choose another "
                    f"folder, or remove this one",
                    code="other_run",
                )
            for i, variable in enumerate(self._variables()):
                variable.assign(saved[f"v{i}"])
            epochs = int(saved["epochs"])
        self.rows = pd.read_csv(self.folder / "history.csv").head(epochs).to_dict("records")
        gradients = pd.read_csv(self.folder / "gradients.csv")
        self.gradients = [gradients[gradients["epoch"] <= epochs]]


def shifted_and_flipped(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Pad each image of (n, rows, columns, channels) by four zeros, crop it at a random position to
    its size, and flip half of the images left-right.
    """
    n, rows, columns, _ = pixels.shape
    padded = np.pad(pixels, ((0, 0), (4, 4), (4, 4), (0, 0)))
    down, right = random.integers(0, 9, (2, n))
    down, right = down[:, None] + np.arange(rows), right[:, None] + np.arange(columns)
    flip = random.random(n) < 0.5
    right[flip] = right[flip][:, ::-1]
    return padded[np.arange(n)[:, None, None], down[:, :, None], right[:, None, :]]
