"""What the card of a segmenter says beside that of a classifier: its patch, the colors of its
classes, and the post-processing of its label maps, which is applied here. Does not load TensorFlow.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from medres.artefact.card_fields import Alpha, Count, Name

Labels = NDArray[np.uint8]
_Color = Annotated[int, Field(ge=0, le=255)]
_Side = Annotated[int, Field(ge=1, le=2048)]
_Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
MAX_CLASSES = 255
MAX_FLIPS = 7  # of the three axes of a volume
#: axes of ([slices,] rows, columns), each once, in ascending order
Flip = Annotated[list[Annotated[int, Field(ge=0, le=2)]], Field(min_length=1, max_length=3)]


class ComponentRule(BaseModel):
    """Which connected components of a class are kept (8 neighbors of a pixel, 26 of a voxel); the
    others become background. Chosen on the tuning split.

    largest: the largest component alone. min_voxels: of a component, on the grid of the
    preprocessing. dice_before, dice_after: mean over the tuning patients, None without a case.
    volume_error: the true volume differs from the predicted one by at most this share of it, in all
    but the share `alpha` of patients; None where the tuning patients are too few.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    largest: bool = False
    min_voxels: Count = 0
    dice_before: _Share | None = None
    dice_after: _Share | None = None
    n_patients: Count = 0
    volume_error: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None
    alpha: Alpha | None = None

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is removed."""
        return not self.largest and self.min_voxels <= 1


class SegmentationFields(BaseModel):
    """The part `segmentation` of a card.

    patch: the sides of what the network sees, None for whole samples. overlap: of the windows with
    which it is moved over a sample, in sides. flips: the outputs are the mean over a sample and its
    flips along each of these sets of axes ([slices,] rows, columns), flipped back.
    colors: red, green, blue of each name of the card.
    postprocess: a rule for each name but the background.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patch: Annotated[list[_Side], Field(min_length=2, max_length=3)] | None = None
    overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    flips: Annotated[list[Flip], Field(max_length=MAX_FLIPS)] = []
    colors: Annotated[list[tuple[_Color, _Color, _Color]], Field(max_length=MAX_CLASSES)]
    postprocess: Annotated[list[ComponentRule], Field(max_length=MAX_CLASSES)]

    def check_names(self, names: Sequence[str]) -> None:
        """Raise ValueError unless there is a color and a rule for each class of the card."""
        if len(self.colors) != len(names) or len(names) > MAX_CLASSES:
            raise ValueError("segmentation.colors does not have one color per name")
        if [rule.name for rule in self.postprocess] != list(names[1:]):
            raise ValueError("segmentation.postprocess does not have one rule per class")

    def check_flips(self, rank: int) -> None:
        """Raise ValueError unless all flips are along axes of images of this rank, and differ."""
        if not flips_fit(self.flips, rank):
            raise ValueError(f"segmentation.flips are not sets of axes from 0 to {rank - 1}")


def flips_fit(flips: Sequence[Sequence[int]], rank: int) -> bool:
    """Whether flips are along axes below the rank, each axis once and in ascending order, and no
    flip is there twice.

    >>> flips_fit([(1,), (0, 1)], 2), flips_fit([(2,)], 2), flips_fit([(1,), (1,)], 2)
    (True, False, False)
    """
    sets = {tuple(flip) for flip in flips}
    ordered = all(flip and list(flip) == sorted({*flip} & {*range(rank)}) for flip in sets)
    return ordered and len(sets) == len(flips) <= MAX_FLIPS


def class_colors(count: int) -> list[tuple[int, int, int]]:
    """Colors of the background (black) and of count - 1 classes, far apart in hue.

    >>> class_colors(3)
    [(0, 0, 0), (230, 46, 46), (46, 152, 230)]
    """
    hues = [(0.57 * i) % 1.0 for i in range(count - 1)]
    colors = [colorsys.hsv_to_rgb(hue, 0.8, 0.9) for hue in hues]
    return [(0, 0, 0), *((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colors)]


def postprocessed(labels: Labels, rules: Sequence[ComponentRule]) -> Labels:
    """A label map ([slices,] rows, columns) on the grid of the preprocessing, after the rules; the
    rule i is that of the label i + 1.

    >>> map = np.array([[1, 0, 1, 1]], np.uint8)
    >>> postprocessed(map, [ComponentRule(name="lung", min_voxels=2)]).tolist()
    [[0, 0, 1, 1]]
    """
    result = labels
    for label, rule in enumerate(rules, start=1):
        if rule.keeps_all:
            continue
        number, sizes = components(labels == label)
        if len(sizes):
            removed = ~kept_components(sizes, rule)
            result = np.where(np.append(False, removed)[number], np.uint8(0), result)
    return result


def components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The number of the component of each voxel (0: none), and the size of each component."""
    from scipy import ndimage

    number, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    return number, np.bincount(number.ravel(), minlength=count + 1)[1:]


def kept_components(sizes: NDArray[np.int64], rule: ComponentRule) -> NDArray[np.bool_]:
    """Which components of these sizes a rule keeps. Of equal ones, the first is the largest."""
    kept: NDArray[np.bool_] = sizes >= rule.min_voxels
    if rule.largest and len(sizes):
        kept &= np.arange(len(sizes)) == sizes.argmax()
    return kept
