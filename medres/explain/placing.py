"""From the grid of the model's input back onto the pixels of the original image."""

from __future__ import annotations

import numpy as np

from data_pipelines.preprocess import PreprocessSpec
from medres.explain.maps import resized


def onto_original(values: np.ndarray, shape: tuple[int, int], spec: PreprocessSpec) -> np.ndarray:
    """A map (spec.rows, spec.cols) -> (rows, cols) of the original: the padding that `prepare` added is cut off first."""
    rows, cols = shape
    if spec.fit == "stretch":
        return resized(values, shape)
    ratio = min(spec.rows / rows, spec.cols / cols)
    inner_rows, inner_cols = max(1, round(rows * ratio)), max(1, round(cols * ratio))
    top, left = (spec.rows - inner_rows) // 2, (spec.cols - inner_cols) // 2
    return resized(values[top : top + inner_rows, left : left + inner_cols], shape)
