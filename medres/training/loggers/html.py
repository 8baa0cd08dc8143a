"""The training page: curves, rate, gradients by stage, and the images that the kept model gets most
wrong. One offline HTML file.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.cache.tf_dataset import eval_batches, rows_of
from data_pipelines.preprocessing.spec import PreprocessSpec
from medres.evaluate.analyses.worst_errors import hashed
from medres.svg import Axes
from medres.training.data import CompiledModel, TrainingData
from medres.training.losses import image_losses

WORST = 12
THUMB = 96  # px
CT_SHOWN = (-160.0, 240.0)  # HU: the usual mediastinal window
COLOURS = ("#0b62a4", "#d1495b", "#2e7d32", "#8e44ad", "#e08e0b", "#455a64")
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1060px;margin:2em auto;
padding:0 1em;color:#1c2733;background:#fff}
h1{font-size:1.5em}h2{font-size:1.1em;margin-top:2em}
.row{display:flex;flex-wrap:wrap;gap:1.2em}.plot{width:500px;max-width:100%;height:auto}
.rule{stroke:#e3e8ee}.tick{font-size:11px;fill:#566}.axis{font-size:12px;fill:#344}
polyline{fill:none;stroke-width:2}
.band{fill:#0b62a4;opacity:.15}.kept{stroke:#98a;stroke-dasharray:4 3}
figure{margin:0;width:130px;font-size:12px}
figure img{width:128px;height:128px;object-fit:contain;background:#111;image-rendering:pixelated}
pre{background:#f4f6f8;padding:1em;overflow-x:auto;font-size:12px}
@media print{pre{white-space:pre-wrap}}
""" + "".join(f".c{i}{{stroke:{colour}}}.m{i}{{fill:{colour}}}" for i, colour in enumerate(COLOURS))


def training_page(
    history: pd.DataFrame, config: dict[str, Any], best_epoch: int, worst: dict[str, list[dict]]
) -> str:
    """HTML. history: as history.csv; worst: split -> [{"id", "label", "said", "loss", "png"}], see
    `worst_images`.
    """
    epochs = history["epoch"].tolist()
    grads = [str(c) for c in history if str(c).startswith("grad_")]
    figures = [
        _curves(
            "Loss",
            epochs,
            {"training": history["loss"], "tuning": history["tune_loss"]},
            best_epoch,
        ),
        _auc(history, best_epoch),
        _curves(
            "Learning rate at the epoch's start",
            epochs,
            {"rate": history["learning_rate"]},
            best_epoch,
        ),
        _curves(
            "Gradient norm by stage",
            epochs,
            {c[5:]: history[c] for c in grads},
            best_epoch,
            logarithmic=True,
        ),
    ]
    recipe, network = config["recipe"], config["model"]
    title = f"{network['variant']}, recipe {recipe['name']}, seed {config['seed']}"
    galleries = "".join(_gallery(split, images) for split, images in worst.items())
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<title>Training: {escape(title)}</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<style>{STYLE}</style></head><body><h1>Training: {escape(title)}</h1>
<p>{len(epochs)} epochs; epoch {best_epoch}, with the lowest tuning loss, was kept.
Research use only; not a medical device.</p>
<div class="row">{"".join(figures)}</div>
{galleries}
<h2>Configuration</h2><pre>{escape(json.dumps(config, indent=1))}</pre></body></html>
"""


def worst_images(
    net: CompiledModel, data: TrainingData, split: str, count: int = WORST
) -> list[dict[str, Any]]:
    """The images of a split with the greatest loss under the kept model: where labels should be
    looked at first.

    Each: id (12 hex digits of a hash, as in the report), label, what the model said, loss, png
    (bytes). Of several findings, the worst of the image is told.
    """
    found: list[dict[str, Any]] = []
    rows, at = rows_of(data.cache, split), 0
    for inputs, _, _ in eval_batches(data.cache, data.targets, 32, split):
        logits = net.logits(inputs["image"])
        part = data.targets.take(rows[at : at + len(logits)])
        each, weights = image_losses(logits, part)
        each = (each * (weights > 0)).reshape(len(logits), -1)
        for i in np.argsort(-each.max(axis=1))[:count]:
            if each[i].max() > 0:
                finding = int(each[i].argmax())
                told = {
                    "row": int(rows[at + i]),
                    "loss": float(each[i].max()),
                    "pixels": inputs["image"][i].numpy(),
                }
                found.append(told | _told(part, logits, int(i), finding))
        found = sorted(found, key=lambda one: -one["loss"])[:count]
        at += len(logits)
    images = data.cache.images["image"]
    return [
        {
            "id": hashed(str(images.iloc[one["row"]])),
            "label": one["label"],
            "said": one["said"],
            "loss": one["loss"],
            "png": thumbnail(one["pixels"], data.cache.spec),
        }
        for one in found
    ]


def thumbnail(image: np.ndarray, spec: PreprocessSpec) -> bytes:
    """A small PNG of one image in model units ([slices,] rows, cols, channels): the middle slice,
    the middle channel.
    """
    from PIL import Image

    if image.ndim == 4:
        image = image[len(image) // 2]
    plane = image[..., image.shape[-1] // 2]
    low, high = CT_SHOWN if spec.kind == "ct" else (0.0, 1.0)
    grey = np.rint(np.clip((plane - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    picture, buffer = Image.fromarray(grey), io.BytesIO()
    picture.thumbnail((THUMB, THUMB))
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _told(part: Any, logits: np.ndarray, i: int, finding: int) -> dict[str, str]:
    if part.task == "multiclass":
        return {"label": part.names[part.labels[i]], "said": part.names[int(logits[i].argmax())]}
    p = 1.0 / (1.0 + math.exp(-max(-500.0, min(500.0, float(logits[i, finding])))))
    name = part.names[finding]
    return {"label": f"{name} {int(part.labels[i, finding])}", "said": f"{name} {p:.3f}"}


def _gallery(split: str, images: list[dict]) -> str:
    cells = "".join(
        f'<figure><img alt="" '
        f'src="data:image/png;base64,{base64.b64encode(one["png"]).decode()}"><figcaption>{escape(one["id"])}<br>'
        f"label: {escape(one['label'])}<br>model: {escape(one['said'])}<br>loss "
        f"{one['loss']:.2f}</figcaption></figure>"
        for one in images
    )
    return (
        f"<h2>Greatest loss in {escape(split)}: are these labels right?</h2><div "
        f'class="row">{cells}</div>'
    )


def _auc(history: pd.DataFrame, best: int) -> str:
    known = history.dropna(subset=["tune_auc"])
    if known.empty:
        return ""
    band = known.dropna(subset=["tune_auc_low", "tune_auc_high"])
    return _curves(
        "Tuning AUC with its 95 % interval by patient",
        known["epoch"].tolist(),
        {"AUC": known["tune_auc"]},
        best,
        band=(
            band["epoch"].tolist(),
            band["tune_auc_low"].tolist(),
            band["tune_auc_high"].tolist(),
        ),
    )


def _curves(
    name: str, epochs: list[int], lines: dict[str, Any], best: int, *, logarithmic: bool = False,
    band: tuple[list, list, list] | None = None,
) -> str:  # fmt: skip
    """One figure: a heading, the lines by epoch, the kept epoch as a dashed line, a legend."""
    shown = {key: [_height(float(v), logarithmic) for v in values] for key, values in lines.items()}
    heights = [v for values in shown.values() for v in values] + [
        v for side in (band or ((),) * 3)[1:] for v in side
    ]
    low, high = min(heights), max(heights)
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
    axes.grid([(e, str(e)) for e in _some(epochs)], ticks, "epoch", "")
    if band and band[0]:
        axes.polygon([*band[0], *band[0][::-1]], [*band[1], *band[2][::-1]], "band")
    axes.segment(best, low - margin, best, high + margin, "kept")
    for number, (key, values) in enumerate(shown.items()):
        axes.line(epochs, values, f"c{number % len(COLOURS)}")
        if len(epochs) == 1:
            axes.mark(epochs[0], values[0], f"m{number % len(COLOURS)}", key)
    legend = "  ".join(
        f'<span style="color:{COLOURS[number % len(COLOURS)]}">&#9632;</span> {escape(key)}'
        for number, key in enumerate(shown)
    )
    return f"<div><h2>{escape(name)}</h2>{axes.render()}<div>{legend}</div></div>"


def _height(value: float, logarithmic: bool) -> float:
    return math.log10(max(value, 1e-12)) if logarithmic else value


def _some(epochs: Sequence[int], most: int = 8) -> list[int]:
    return list(epochs[:: max(1, math.ceil(len(epochs) / most))])
