"""PNG of a saliency map over its image, pixel for pixel, with a color bar."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from data_pipelines.preprocessing.resize import AxisResize
from medres.explain.saliency import resized

COLORMAP = "inferno"
OPACITY = 0.6  # of the largest value
BAR, MARGIN, TEXT, MIN_HEIGHT = 14, 8, 12, 120  # pixels


def overlay_png(image: np.ndarray, values: np.ndarray, *, title: str, unit: str) -> bytes:
    """PNG with the image in the upper left corner, pixel for pixel, and a color bar on the right.

    image: float (rows, columns[, 3]), 0 to 1. values: float (rows, columns); values above 0 are
        drawn, with an opacity in proportion to the largest. title, unit: texts of the color bar.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    rows, columns = image.shape[:2]
    peak = float(values.max())
    share = np.clip(values / peak, 0, 1) if peak > 0 else np.zeros_like(values)
    shown = np.clip(image, 0, 1)
    shown = shown if shown.ndim == 3 else np.repeat(shown[..., np.newaxis], 3, axis=2)
    opacity = OPACITY * share[..., np.newaxis]
    blended = np.rint(255 * (shown * (1 - opacity) + _colors(share) * opacity)).astype(np.uint8)

    font = ImageFont.load_default(TEXT)
    labels = [f"{peak:.3g}", "0"] if peak > 0 else ["", ""]
    lines = [title, unit if peak > 0 else "no positive value"]
    legend_width = max(
        BAR + MARGIN // 2 + max(int(font.getlength(text)) for text in labels),
        *(int(font.getlength(t)) for t in lines),
    )
    height = max(rows, MIN_HEIGHT)
    canvas = Pillow.new("RGB", (columns + 2 * MARGIN + legend_width, height), "white")
    canvas.paste(Pillow.fromarray(blended), (0, 0))
    left, top, bottom = columns + MARGIN, MARGIN + 3 * TEXT, height - MARGIN
    ramp = np.linspace(1, 0, bottom - top)[:, np.newaxis].repeat(BAR, axis=1)
    canvas.paste(Pillow.fromarray(np.rint(255 * _colors(ramp)).astype(np.uint8)), (left, top))
    pen = ImageDraw.Draw(canvas)
    for line, text in enumerate(lines):
        pen.text((left, MARGIN // 2 + line * (TEXT + 2)), text, "black", font)
    for y, text in ((top, labels[0]), (bottom - TEXT - 2, labels[1])):
        pen.text((left + BAR + MARGIN // 2, y), text, "black", font)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _colors(share: np.ndarray) -> np.ndarray:
    """RGB colors (..., 3) from 0 to 1 for values (...) from 0 to 1."""
    import matplotlib

    return matplotlib.colormaps[COLORMAP](share)[..., :3]


def onto_original(values: np.ndarray, axes: Sequence[AxisResize]) -> np.ndarray:
    """Resample a map from the grid of the model to the grid of the original image. Padding is cut
    off; parts of the original outside a crop, which the model did not receive, are 0.

    axes: the resizing of each axis, from `data_pipelines.preprocessing.preparation.resize_axes`.
    """
    grid = np.zeros([axis.inner for axis in axes])
    resized_part, model_part = zip(*(_overlap(axis) for axis in axes), strict=True)
    grid[resized_part] = values[model_part]
    return resized(grid, [axis.size for axis in axes])


def _overlap(axis: AxisResize) -> tuple[slice, slice]:
    """The samples that the resized image and the grid of the model share: their indices in the
    former and in the latter.
    """
    offset = (axis.inner - axis.out) // 2
    count = min(axis.inner, axis.out)
    starts = (max(offset, 0), max(-offset, 0))
    return slice(starts[0], starts[0] + count), slice(starts[1], starts[1] + count)
