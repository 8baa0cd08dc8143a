"""A saliency map over its picture, pixel for pixel, with a colour bar, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from data_pipelines.preprocessing.resize import AxisResize
from medres.explain.saliency import resized

COLOURS = "inferno"
OPACITY = 0.6
BAR, MARGIN, TEXT, LEAST_HEIGHT = 14, 8, 12, 120


def overlay_png(picture: np.ndarray, values: np.ndarray, *, title: str, unit: str) -> bytes:
    """PNG whose upper left corner is the picture, one pixel for each of its own; the colour bar
    stands to the right.

    picture: float (rows, cols), 0 to 1. values: float (rows, cols); what is above 0 is drawn,
        opaque in proportion to the largest.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    rows, cols = picture.shape
    peak = float(values.max())
    share = np.clip(values / peak, 0, 1) if peak > 0 else np.zeros_like(values)
    grey = np.repeat(np.clip(picture, 0, 1)[..., np.newaxis], 3, axis=2)
    opacity = OPACITY * share[..., np.newaxis]
    drawn = np.rint(255 * (grey * (1 - opacity) + _colours(share) * opacity)).astype(np.uint8)

    font = ImageFont.load_default(TEXT)
    labels = [f"{peak:.3g}", "0"] if peak > 0 else ["", ""]
    lines = [title, unit if peak > 0 else "nothing speaks for it"]
    beside = max(
        BAR + MARGIN // 2 + max(int(font.getlength(text)) for text in labels),
        *(int(font.getlength(t)) for t in lines),
    )
    height = max(rows, LEAST_HEIGHT)
    canvas = Pillow.new("RGB", (cols + 2 * MARGIN + beside, height), "white")
    canvas.paste(Pillow.fromarray(drawn), (0, 0))
    left, top, bottom = cols + MARGIN, MARGIN + 3 * TEXT, height - MARGIN
    ramp = np.linspace(1, 0, bottom - top)[:, np.newaxis].repeat(BAR, axis=1)
    canvas.paste(Pillow.fromarray(np.rint(255 * _colours(ramp)).astype(np.uint8)), (left, top))
    pen = ImageDraw.Draw(canvas)
    for line, text in enumerate(lines):
        pen.text((left, MARGIN // 2 + line * (TEXT + 2)), text, "black", font)
    for place, text in ((top, labels[0]), (bottom - TEXT - 2, labels[1])):
        pen.text((left + BAR + MARGIN // 2, place), text, "black", font)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _colours(share: np.ndarray) -> np.ndarray:
    """RGB 0 to 1 of values 0 to 1."""
    import matplotlib

    return matplotlib.colormaps[COLOURS](share)[..., :3]


def onto_original(values: np.ndarray, axes: Sequence[AxisResize]) -> np.ndarray:
    """A map on the model's grid -> the original's: padding is cut off; what the model never saw, of
    a crop, is 0.
    """
    grid = np.zeros([axis.inner for axis in axes])
    here, there = zip(*(_overlap(axis) for axis in axes), strict=True)
    grid[here] = values[there]
    return resized(grid, [axis.size for axis in axes])


def _overlap(axis: AxisResize) -> tuple[slice, slice]:
    """Where the resized input and the model's grid hold the same samples, in each of them."""
    first = (axis.inner - axis.out) // 2
    count = min(axis.inner, axis.out)
    return slice(max(first, 0), max(first, 0) + count), slice(
        max(-first, 0), max(-first, 0) + count
    )
