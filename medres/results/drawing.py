"""Pictures of results: the image with a heat map, outlines of masks or boxes, under a banner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_pipelines.dicom.reader import DicomSource
from data_pipelines.kinds import UNITS
from data_pipelines.pixels.image import Image, read_image
from medres.results.result import RESEARCH_USE, BoxLike

Rgb = tuple[int, int, int]
#: of classes without a color of their own, in order (Okabe and Ito, told apart by all readers)
COLORS: tuple[Rgb, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
COLORMAP = "inferno"
OPACITY = 0.6  # of the largest value of a heat map
SOFT_TISSUE = (40.0, 400.0)  # window in HU: center, width
_MIN_FONT, _COLUMNS_PER_POINT, _MARGIN = 12, 48, 4  # pixels
_BANNER, _TEXT, _GROUND = (190, 20, 20), (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True, eq=False)
class Overlay:
    """One image of a study and what is drawn on it, all in its original pixels.

    picture: float (rows, columns[, 3]) from 0 to 1, as it is displayed. frame: from 0 on. heat:
        (rows, columns), values above 0 are drawn. masks: class -> bool (rows, columns), outlined.
    boxes: beside those of the result on this image. colors: class -> RGB.
    """

    picture: NDArray = field(repr=False)
    sop_instance_uid: str = field(repr=False)
    frame: int = 0
    heat: NDArray | None = field(default=None, repr=False)
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict, repr=False)
    boxes: Sequence[BoxLike] = field(default=(), repr=False)
    colors: Mapping[str, Rgb] = field(default_factory=dict)


def display_picture(
    source: DicomSource, *, frame: int = 0, window: tuple[float, float] = SOFT_TISSUE
) -> NDArray[np.float32]:
    """An image as it is displayed, float32 (rows, columns) from 0 to 1. window: center and width,
    for HU; values without a unit go from their first to their last percentile.

    Raises DicomError as `read_image` does.
    """
    return displayed(read_image(source, frame=frame, color="luminance"), window)


def displayed(image: Image, window: tuple[float, float] = SOFT_TISSUE) -> NDArray[np.float32]:
    """As `display_picture`, for an image that was read."""
    units, pixels = UNITS[image.units], image.pixels
    if units.bounds is not None:
        return pixels
    low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
    if units.air is None:
        low, high = (float(v) for v in np.percentile(pixels, (1, 99)))
    return np.clip((pixels - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)


def color_of(name: str, names: Sequence[str], colors: Mapping[str, Rgb]) -> Rgb:
    """The color of a class: its own, else the one of its position among all classes.

    >>> color_of("lung", ["heart", "lung"], {}) == COLORS[1]
    True
    """
    return colors.get(name, COLORS[list(names).index(name) % len(COLORS)])


def draw_overlay(overlay: Overlay, lines: Sequence[str]) -> NDArray[np.uint8]:
    """RGB picture (height, width, 3): a banner RESEARCH USE ONLY, the lines, and below them the
    image pixel for pixel in the left corner. Nothing in the image is covered by text of the banner.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    image = Pillow.fromarray(_blended(overlay))
    size = max(_MIN_FONT, image.width // _COLUMNS_PER_POINT)
    font = ImageFont.load_default(size)
    names = [*overlay.masks, *sorted({box.label for box in overlay.boxes} - {*overlay.masks})]
    pen = ImageDraw.Draw(image)
    for box in overlay.boxes:
        color = color_of(box.label, names, overlay.colors)
        left, top = np.floor((box.x_min, box.y_min))
        right, bottom = np.ceil((box.x_max, box.y_max)) - 1
        text = f"{box.label} {box.score:.2f}"
        pen.text((left + 2, top + 1), text, color, font, stroke_width=1, stroke_fill=_GROUND)
        pen.rectangle((left, top, right, bottom), outline=color, width=1)
    height = size + 2 * _MARGIN
    texts = [RESEARCH_USE, *lines]
    width = max(image.width, *(int(font.getlength(text)) + 2 * _MARGIN for text in texts))
    strip = height * len(texts)
    canvas = Pillow.new("RGB", (width, strip + image.height), _GROUND)
    canvas.paste(image, (0, strip))
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((0, 0, width, height - 1), fill=_BANNER)
    for n, text in enumerate(texts):
        pen.text((_MARGIN, n * height + _MARGIN), text, _TEXT, font)
    return np.asarray(canvas)


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a mask that have a neighbor outside of it, or lie on the edge of the image."""
    from scipy.ndimage import binary_erosion

    return np.asarray(mask & ~binary_erosion(mask))


def _blended(overlay: Overlay) -> NDArray[np.uint8]:
    shown = np.clip(np.nan_to_num(np.asarray(overlay.picture, np.float64)), 0, 1)
    if shown.ndim == 2:
        shown = np.repeat(shown[..., np.newaxis], 3, axis=2)
    heat = None if overlay.heat is None else np.nan_to_num(overlay.heat)
    if heat is not None and heat.max() > 0:
        import matplotlib

        share = np.clip(heat / heat.max(), 0, 1)
        opacity = OPACITY * share[..., np.newaxis]
        shown = shown * (1 - opacity) + matplotlib.colormaps[COLORMAP](share)[..., :3] * opacity
    pixels = np.rint(255 * shown).astype(np.uint8)
    for name, mask in overlay.masks.items():
        pixels[outline(np.asarray(mask, np.bool_))] = color_of(
            name, list(overlay.masks), overlay.colors
        )
    return pixels
