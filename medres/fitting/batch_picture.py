"""`medres.show_batch`: the images of a training batch as they enter the network, with labels."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.augment import AugmentSpec
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.runtime.atomic_files import write_atomic
from data_pipelines.runtime.plain_text import escaped
from medres.errors import TrainingError
from medres.fitting.fit_data import Data, data
from medres.progress import ProgressReporter
from medres.tasks import task_named
from medres.training.loggers.html import display_plane
from medres.training.targets import MISSING

MAX_IMAGES = 64
COLUMNS = 4
TILE_INCHES = 2.2
MAX_CAPTION = 40  # characters


@dataclass(frozen=True)
class BatchPicture:
    """A grid of images as a PNG, which a notebook shows. `save(path)` writes the PNG.

    labels: the caption of each image.
    """

    png: bytes
    labels: tuple[str, ...]

    def _repr_png_(self) -> bytes:
        return self.png

    def _repr_html_(self) -> str:
        source = base64.b64encode(self.png).decode()
        return (
            f'<img alt="{len(self.labels)} training images" src="data:image/png;base64,{source}">'
        )

    def __repr__(self) -> str:
        return f"BatchPicture({len(self.labels)} images; .save(path) writes a PNG)"

    def save(self, path: Path | str) -> Path:
        """Write the PNG, and return its path."""
        write_atomic(Path(path), self.png)
        return Path(path)


def show_batch(
    source: Data | Path | str,
    preset: str | dict | PreprocessSpec | None = None,
    n: int = 16,
    *,
    seed: int = 0,
    epoch: int = 0,
    augment: str | AugmentSpec | None = "auto",
    progress: ProgressReporter | None = None,
) -> BatchPicture:
    """The first `n` images (at most 64) of a training batch, augmented as they enter the network,
    with their labels; "?" is a missing label. Of a volume the middle slice is shown, of several
    channels the middle one, of CT the mediastinal window.

    source: a work folder, of which the first images of `epoch` are shown, with the other arguments
    as for `medres.data`; or what `medres.data` gave, of which a batch is taken, so that this counts
    as a pass over `train`. Raises TrainingError (code bad_setting) for another `n`.
    """
    if not 1 <= n <= MAX_IMAGES:
        raise TrainingError(
            f"show_batch: n must be 1 to {MAX_IMAGES}, received {n}", code="bad_setting"
        )
    sets = source
    if not isinstance(sets, Data):
        sets = data(sets, preset, n, seed, augment=augment, epoch=epoch, progress=progress)
    images, labels, weights = (part.numpy() for part in next(iter(sets.train))[:3])
    captions = tuple(
        _caption(label, weight, sets.names, sets.task)
        for label, weight in zip(labels[:n], weights[:n], strict=True)
    )
    return BatchPicture(_png(images[:n], captions, sets.spec), captions)


def _caption(label: Any, weight: float, names: tuple[str, ...], task: str) -> str:
    """For instance "nodule: 1", "edema, effusion: ?", "none"; or the name of a class."""
    if task_named(task).exclusive:
        return names[int(label)] if weight > 0 else "?"
    if len(names) == 1:
        return f"{names[0]}: {'?' if label[0] == MISSING else f'{label[0]:g}'}"
    parts = [
        name + (": ?" if value == MISSING else "" if value == 1 else f": {value:g}")
        for name, value in zip(names, label, strict=True)
        if value != 0
    ]
    return ", ".join(parts) or "none"


def _png(images: np.ndarray, captions: tuple[str, ...], spec: PreprocessSpec) -> bytes:
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(
        figsize=(TILE_INCHES * columns, (TILE_INCHES + 0.3) * rows), layout="constrained"
    )
    for axis in figure.subplots(rows, columns, squeeze=False).ravel():
        axis.axis("off")
    for axis, image, caption in zip(figure.axes, images, captions, strict=False):
        axis.imshow(
            display_plane(image, spec), cmap="gray", vmin=0, vmax=255, interpolation="nearest"
        )
        text = escaped(caption).replace("$", r"\$")
        short = text if len(text) <= MAX_CAPTION else text[: MAX_CAPTION - 3] + "..."
        axis.set_title(short, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
