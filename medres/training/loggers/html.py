"""The training page: loss, AUC, learning rate and gradient norms by epoch, and the images with the
highest loss under the saved model. One HTML file that works offline.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from data_pipelines.cache.tf_dataset import Targets, eval_batches
from data_pipelines.kinds import image_kind
from data_pipelines.preprocessing.spec import PreprocessSpec
from medres.evaluate.analyses.worst_errors import hashed
from medres.models.classification import WINDOWS
from medres.svg import Axes
from medres.tasks import task_named
from medres.training.data import CompiledModel, TrainingData
from medres.training.losses import image_losses
from medres.training.monitoring.best_epoch import HEADLINES

HEADLINE_COLUMN = re.compile(rf"tune_({'|'.join(HEADLINES)})(_low|_high)?$")
MAX_IMAGES = 12  # per split
THUMBNAIL_SIDE = 96  # px
SPLIT_TITLES = {"train": "training", "tune": "tuning (validation)"}
THUMBNAIL_WINDOW = "mediastinum"  # for images in HU
COLORS = ("#0b62a4", "#d1495b", "#2e7d32", "#8e44ad", "#e08e0b", "#455a64")
PAGE_STYLE = """
body{max-width:1060px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.1em;margin-top:2em}
pre{background:#f4f6f8;padding:1em;overflow-x:auto;font-size:12px}
@media print{pre{white-space:pre-wrap}}
"""
#: Rules by selector, of figures and galleries. They hold inside class medres only: a notebook that
#: shows a figure keeps its own style.
_RULES = {
    "": "font:15px/1.5 system-ui,sans-serif;color:#1c2733;background:#fff",
    ".row": "display:flex;flex-wrap:wrap;gap:1.2em",
    ".plot": "width:500px;max-width:100%;height:auto",
    ".rule": "stroke:#e3e8ee",
    ".tick": "font-size:11px;fill:#566",
    ".axis": "font-size:12px;fill:#344",
    "polyline": "fill:none;stroke-width:2",
    ".band": "fill:#0b62a4;opacity:.15",
    ".kept": "stroke:#98a;stroke-dasharray:4 3",
    "figure": "margin:0;width:130px;font-size:12px",
    "figure img": "width:128px;height:128px;object-fit:contain;background:#111;"
    "image-rendering:pixelated",
    **{f".c{i}": f"stroke:{color}" for i, color in enumerate(COLORS)},
    **{f".m{i}": f"fill:{color}" for i, color in enumerate(COLORS)},
}
FIGURE_STYLE = "".join(f".medres {selector}{{{rule}}}" for selector, rule in _RULES.items())


def embedded(html: str) -> str:
    """Figures with their style, for a notebook."""
    return f'<div class="medres"><style>{FIGURE_STYLE}</style>{html}</div>'


def figure_page(title: str, html: str) -> str:
    """A page that holds `embedded` figures and works offline."""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
    return f"{head}<style>{PAGE_STYLE}</style>{html}</html>\n"


class WorstImage(NamedTuple):
    """An image with a high loss. id: 12 hex digits of a hash, as in the report. png: thumbnail."""

    id: str
    label: str
    predicted: str
    loss: float
    png: bytes


def training_page(
    history: pd.DataFrame,
    config: dict[str, Any],
    best_epoch: int,
    worst: Mapping[str, Sequence[WorstImage]],
    *,
    best: str = "lowest tuning (validation) loss",
) -> str:
    """The page as HTML.

    history, config: as history.csv and config.json. worst: images by split, see `worst_images`.
    best: what the saved epoch has.
    """
    epochs = history["epoch"].tolist()
    stages = [str(c).removeprefix("grad_") for c in history if str(c).startswith("grad_")]
    figures = [
        curves(
            "Loss",
            epochs,
            {"training": history["loss"], "tuning (validation)": history["tune_loss"]},
            best_epoch,
        ),
        _headline(history, best_epoch),
        *_metrics(history, best_epoch),
        curves(
            "Learning rate at the start of the epoch",
            epochs,
            {"learning rate": history["learning_rate"]},
            best_epoch,
        ),
        curves(
            "Gradient norm by stage",
            epochs,
            {stage: history[f"grad_{stage}"] for stage in stages},
            best_epoch,
            logarithmic=True,
        ),
    ]
    recipe, network = config["recipe"], config["model"]
    title = f"{network['variant']}, recipe {recipe['name']}, seed {config['seed']}"
    galleries = "".join(gallery(split, images) for split, images in worst.items())
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<title>Training: {escape(title)}</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<style>{PAGE_STYLE}{FIGURE_STYLE}</style></head><body class="medres">
<h1>Training: {escape(title)}</h1>
<p>{len(epochs)} epochs. The saved model has the weights of epoch {best_epoch}, which has the
{escape(best)}; a dashed line marks it.
Research use only; not a medical device.</p>
<div class="row">{"".join(figures)}</div>
{galleries}
<h2>Configuration</h2><pre>{escape(json.dumps(config, indent=1))}</pre></body></html>
"""


class _Candidate(NamedTuple):
    loss: float
    row: int
    label: str
    predicted: str
    pixels: np.ndarray


def worst_images(
    model: CompiledModel, data: TrainingData, split: str, count: int = MAX_IMAGES
) -> list[WorstImage]:
    """The images of a split with the highest loss, highest first: their labels should be checked
    first. An image with several findings is shown with the finding of its highest loss.
    """
    worst: list[_Candidate] = []
    rows, start = data.rows(split), 0
    for inputs, _, _ in eval_batches(data.cache, data.targets, 32 * model.devices, split):
        logits = model.logits(inputs["image"])
        batch_rows = rows[start : start + len(logits)]
        targets = data.targets.take(batch_rows)
        losses, weights = image_losses(logits, targets)
        losses = (losses * (weights > 0)).reshape(len(logits), -1)
        for i in np.argsort(-losses.max(axis=1))[:count]:
            if losses[i].max() > 0:
                label, predicted = _captions(targets, logits, int(i), int(losses[i].argmax()))
                pixels = inputs["image"][i].numpy()
                loss = float(losses[i].max())
                worst.append(_Candidate(loss, int(batch_rows[i]), label, predicted, pixels))
        worst = sorted(worst, key=lambda candidate: -candidate.loss)[:count]
        start += len(logits)
    images = data.cache.images["image"]
    return [
        WorstImage(
            id=hashed(str(images.iloc[candidate.row])),
            label=candidate.label,
            predicted=candidate.predicted,
            loss=candidate.loss,
            png=thumbnail(candidate.pixels, data.cache.spec),
        )
        for candidate in worst
    ]


def thumbnail(image: np.ndarray, spec: PreprocessSpec) -> bytes:
    """A small PNG of the `display_plane` of an image."""
    from PIL import Image

    small, buffer = Image.fromarray(display_plane(image, spec)), io.BytesIO()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    small.save(buffer, "PNG")
    return buffer.getvalue()


def display_plane(image: np.ndarray, spec: PreprocessSpec) -> np.ndarray:
    """uint8 (rows, columns) of an image in model units, ([slices,] rows, columns, channels): its
    middle slice and channel, in HU through the mediastinal window; (rows, columns, 3) of a color
    picture.
    """
    if image.ndim == 4:
        image = image[len(image) // 2]
    kind = image_kind(spec.kind)
    plane = image if kind.channels > 1 else image[..., image.shape[-1] // 2]
    low, high = kind.display_range
    if kind.has_windows:
        center, width = WINDOWS[THUMBNAIL_WINDOW]
        low, high = center - width / 2, center + width / 2
    return np.rint(np.clip((plane - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _captions(targets: Targets, logits: np.ndarray, index: int, finding: int) -> tuple[str, str]:
    """The label and the prediction of an image of a batch."""
    names = targets.names
    if task_named(targets.task).exclusive:
        return names[targets.labels[index]], names[int(logits[index].argmax())]
    p = 1.0 / (1.0 + math.exp(-max(-500.0, min(500.0, float(logits[index, finding])))))
    name = names[finding]
    return f"{name} {int(targets.labels[index, finding])}", f"{name} {p:.3f}"


def gallery(split: str, images: Sequence[WorstImage]) -> str:
    """The images of a split with their captions, as HTML."""
    cells = "".join(
        f'<figure><img alt="" src="data:image/png;base64,{base64.b64encode(image.png).decode()}">'
        f"<figcaption>{escape(image.id)}<br>label: {escape(image.label)}<br>"
        f"model: {escape(image.predicted)}<br>loss: {image.loss:.2f}</figcaption></figure>"
        for image in images
    )
    title = SPLIT_TITLES.get(split, split)
    return (
        f"<h2>Highest loss in the {escape(title)} split: check these labels</h2>"
        f'<div class="row">{cells}</div>'
    )


def _headline(history: pd.DataFrame, best_epoch: int) -> str:
    """The AUC, the Dice of a segmenter, or AP50 and FROC of a detector, with their intervals."""
    names = [name for name in HEADLINES if f"tune_{name}" in history]
    return "".join(_headline_of(name, history, best_epoch) for name in names)


def _headline_of(name: str, history: pd.DataFrame, best_epoch: int) -> str:
    column, title = f"tune_{name}", HEADLINES[name]
    defined = history.dropna(subset=[column])
    if defined.empty:
        return ""
    band = defined.dropna(subset=[f"{column}_low", f"{column}_high"])
    return curves(
        f"Tuning (validation) {title} with 95 % confidence interval, clustered by patient",
        defined["epoch"].tolist(),
        {title: defined[column]},
        best_epoch,
        band=(
            band["epoch"].tolist(),
            band[f"{column}_low"].tolist(),
            band[f"{column}_high"].tolist(),
        ),
    )


def _metrics(history: pd.DataFrame, best_epoch: int) -> list[str]:
    """A figure for each metric that the user added."""
    own = [
        column
        for column in map(str, history)
        if column.startswith("tune_")
        and column != "tune_loss"
        and not HEADLINE_COLUMN.match(column)
    ]
    return [
        curves(
            f"Tuning (validation) {column.removeprefix('tune_')}",
            defined["epoch"].tolist(),
            {column.removeprefix("tune_"): defined[column]},
            best_epoch,
        )
        for column in own
        if not (defined := history.dropna(subset=[column])).empty
    ]


def curves(
    name: str,
    epochs: list[int],
    lines: Mapping[str, pd.Series],
    best_epoch: int | None,
    *,
    logarithmic: bool = False,
    band: tuple[list, list, list] | None = None,
) -> str:
    """One figure: a heading, the lines by epoch, the best epoch (if any) as a dashed line, and a
    legend.

    band: epochs, lower and upper limits of a shaded area.
    """
    heights = {
        key: [_height(float(value), logarithmic) for value in values]
        for key, values in lines.items()
    }
    extent = [v for values in heights.values() for v in values]
    if band:
        extent += [*band[1], *band[2]]
    low, high = min(extent), max(extent)
    margin = (high - low or abs(high) or 1.0) * 0.06
    axes = Axes(
        500,
        290,
        (min(epochs) - 0.5, max(epochs) + 0.5),
        (low - margin, high + margin),
        name=name,
        left=66,
    )
    ticks = [(v, f"{10**v:.1e}" if logarithmic else f"{v:.3g}") for v in np.linspace(low, high, 5)]
    axes.grid([(epoch, str(epoch)) for epoch in _ticks(epochs)], ticks, "epoch", "")
    if band and band[0]:
        axes.polygon([*band[0], *band[0][::-1]], [*band[1], *band[2][::-1]], "band")
    if best_epoch is not None:
        axes.segment(best_epoch, low - margin, best_epoch, high + margin, "kept")
    legend = []
    for number, (key, values) in enumerate(heights.items()):
        color = number % len(COLORS)
        axes.line(epochs, values, f"c{color}")
        if len(epochs) == 1:
            axes.mark(epochs[0], values[0], f"m{color}", key)
        legend.append(f'<span style="color:{COLORS[color]}">&#9632;</span> {escape(key)}')
    return f"<div><h2>{escape(name)}</h2>{axes.render()}<div>{'  '.join(legend)}</div></div>"


def _height(value: float, logarithmic: bool) -> float:
    return math.log10(max(value, 1e-12)) if logarithmic else value


def _ticks(epochs: Sequence[int], count: int = 8) -> list[int]:
    """At most `count` of the epochs, evenly spaced."""
    return list(epochs[:: max(1, math.ceil(len(epochs) / count))])
