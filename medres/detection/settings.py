"""What decoding has to know of a detector, and what a user may choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medres.errors import ModelError


@dataclass(frozen=True)
class DecodingSettings:
    """How raw maps become boxes. Raises ModelError (out_of_range, input_shape).

    input_size: sizes of the image that the detector receives, in the order of its axes (rows,
        columns), in pixels.
    strides: input pixels per position of each level, finest first.
    score_threshold: boxes of a lower score are left out.
    nms_iou: of two boxes of one class whose intersection over union is above it, only the one with
        the higher score stays. 1 keeps all.
    candidates: that enter the suppression, of all classes, from the highest score down.
    most: boxes per image at most, from the highest score down.

    >>> DecodingSettings((60, 80), (8, 16)).n_positions
    100
    """

    input_size: tuple[int, ...]
    strides: tuple[int, ...]
    score_threshold: float = 0.05
    nms_iou: float = 0.6
    candidates: int = 1000
    most: int = 100

    def __post_init__(self) -> None:
        for key in ("input_size", "strides"):
            value = tuple(getattr(self, key))
            if not value or not all(_is_whole(n) for n in value):
                raise ModelError(f"{key} {value}: give whole numbers above 0", code="input_shape")
            object.__setattr__(self, key, tuple(int(n) for n in value))
        if any(b % a or b == a for a, b in zip(self.strides, self.strides[1:], strict=False)):
            raise ModelError(
                f"strides {self.strides}: give them finest first, each a multiple of the one "
                f"before it",
                code="out_of_range",
            )
        for key in ("score_threshold", "nms_iou"):
            if not 0 <= getattr(self, key) <= 1:
                raise ModelError(
                    f"{key} {getattr(self, key)!r}: give a number from 0 to 1", code="out_of_range"
                )
        for key in ("candidates", "most"):
            if not _is_whole(getattr(self, key)):
                raise ModelError(
                    f"{key} {getattr(self, key)!r}: give a whole number above 0",
                    code="out_of_range",
                )

    @property
    def rank(self) -> int:
        """2 for images, 3 for volumes."""
        return len(self.input_size)

    @property
    def n_positions(self) -> int:
        return sum(map(len, positions(self.input_size, self.strides)))


def positions(input_size: Sequence[int], strides: Sequence[int]) -> list[NDArray[np.float32]]:
    """The centers of the positions of each level, (positions, rank) in input pixels, in the order
    of the raw maps. Coordinates are edges (the first pixel reaches from 0 to 1), in the order x, y
    and in volumes z: the last axis of the image is first.

    The image is padded behind its last rows and columns to multiples of the coarsest stride, so
    some positions of an image of another size lie outside.

    >>> [level.tolist() for level in positions((4, 6), (4,))]
    [[[2.0, 2.0], [6.0, 2.0]]]
    """
    whole = [-(-size // strides[-1]) * strides[-1] for size in input_size]
    levels = []
    for stride in strides:
        axes = [(np.arange(size // stride) + 0.5) * stride for size in whole]
        grid = np.meshgrid(*axes, indexing="ij")
        levels.append(np.stack(grid[::-1], axis=-1).reshape(-1, len(whole)).astype(np.float32))
    return levels


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value > 0)
