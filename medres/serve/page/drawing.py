"""Pictures of what a model says, drawn in the process of the model: a saliency map, or masks."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import numpy as np

    from medres.inference.prediction import Prediction
    from medres.inference.predictor import Predictor

MOST_PICTURES = 12  # of the masks or boxes of one prediction
LONGEST_SIDE = 1024  # pixels of a picture


class Drawing(TypedDict):
    """prediction, part: numbers from 0 on, of the prediction and of its picture. png: base64."""

    prediction: int
    part: int
    caption: str
    png: str


def drawings(predictor: Predictor, folder: str) -> list[Drawing]:
    """The pictures of each study below the folder that is not refused, in the order of
    `Predictor.predict_many`. Of a classifier: the saliency map of the most probable finding.
    """
    return [
        Drawing(
            prediction=n, part=part, caption=caption, png=base64.b64encode(png_bytes(rgb)).decode()
        )
        for n, prediction in enumerate(predictor.predict_many(folder))
        if prediction.refused is None
        for part, (caption, rgb) in enumerate(_drawn(predictor, prediction))
    ]


def _drawn(predictor: Predictor, prediction: Prediction) -> list[tuple[str, Any]]:
    """Caption and picture, uint8 (rows, columns, 3)."""
    if prediction.previews:
        from medres.inference.boxes.files import picture

        previews = prediction.previews[:MOST_PICTURES]
        return [("Boxes above the threshold", picture(one, predictor.card)) for one in previews]
    if not prediction.masks:
        saliency = prediction.saliency()
        caption = (
            f"Saliency (Grad-CAM) for {saliency.finding}: where the network looked, not proof of a "
            f"finding"
        )
        return [(caption, _with_heat(saliency.picture, saliency.values))]
    from medres.inference.masks.files import overlay

    shown = [mask for mask in prediction.masks if mask.preview is not None][:MOST_PICTURES]
    classes = ", ".join(predictor.card.names[1:])
    return [
        (f"Masks of {classes}, on the image with most of them", overlay(mask, predictor.card))
        for mask in shown
    ]


def _with_heat(picture: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The map over its image: the larger the value, the more its color covers the image."""
    import matplotlib
    import numpy as np

    from medres.explain.overlay import COLORMAP, OPACITY

    peak = float(values.max())
    share = np.clip(values / peak, 0, 1) if peak > 0 else np.zeros_like(values)
    gray = np.clip(picture, 0, 1)
    shown = gray if gray.ndim == 3 else np.repeat(gray[..., np.newaxis], 3, axis=2)
    opacity = OPACITY * share[..., np.newaxis]
    colors = matplotlib.colormaps[COLORMAP](share)[..., :3]
    return np.rint(255 * (shown * (1 - opacity) + colors * opacity)).astype(np.uint8)


def png_bytes(values: np.ndarray, *, aspect: float = 1.0) -> bytes:
    """A PNG of uint8 (rows, columns[, 3]), made smaller where a side is above LONGEST_SIDE. aspect:
    height of a pixel divided by its width.
    """
    from PIL import Image

    image, buffer = Image.fromarray(values), io.BytesIO()
    if aspect != 1:
        image = image.resize((image.width, max(1, round(image.height * aspect))))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    image.save(buffer, "PNG")
    return buffer.getvalue()
