"""The label map of an image or a series: which voxels belong to which class, in the geometry of
its image.

Classes may overlap: the array has as many layers as classes overlap anywhere. Without overlap it
has one, which is the label map as people know it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_pipelines.errors import AnnotationError, InputError

Layers = NDArray[np.uint8]
Mask = NDArray[np.bool_]
MaskState = Literal["annotated", "not_annotated", "rejected"]

#: a label is a uint8, and 0 is background
MAX_CLASSES = 255


@dataclass(frozen=True, eq=False)
class LabelMap:
    """What was annotated in one image or one series.

    layers: uint8 (layers, slices, rows, columns); 0 is background, n is `classes[n - 1]`. A voxel
        of several classes has one of them in each layer, the first ones first.
    classes: the names of the classes.
    affine: 4 x 4 float64, maps (slice, row, column, 1) to LPS mm; None where the image has no
        position or its slices have no constant step.
    images: the pseudonym of the image of each slice.
    state: "annotated" also where nothing was found (all voxels are background);
        "not_annotated": nobody looked; "rejected": there is a mask that cannot be used. Only an
        annotated image may be trained on.
    flags: codes of what a reader should know, such as `overlap`.

    >>> both = LabelMap.empty((1, 2, 2), ("lung", "heart"))
    >>> both = both.with_plane("lung", np.array([[[True, True], [False, False]]]))
    >>> both = both.with_plane("heart", np.array([[[False, True], [False, False]]]))
    >>> both.counts(), both.overlap_voxels
    ({'lung': 2, 'heart': 1}, 1)
    >>> both.single("lung<heart").tolist()
    [[1, 2], [0, 0]]
    """

    layers: Layers
    classes: tuple[str, ...]
    affine: NDArray[np.float64] | None = None
    images: tuple[str, ...] = ()
    state: MaskState = "annotated"
    flags: tuple[str, ...] = field(default=())

    @classmethod
    def empty(cls, shape: tuple[int, int, int], classes: Sequence[str]) -> LabelMap:
        """A label map (slices, rows, columns) of background. Raises InputError (too_many_classes)
        above 255 classes.
        """
        if len(classes) > MAX_CLASSES:
            raise InputError(
                f"There are {len(classes)} classes; a label map has at most {MAX_CLASSES}. Join "
                f"some of them with mask_classes.",
                code="too_many_classes",
            )
        return cls(np.zeros((1, *shape), np.uint8), tuple(classes))

    @property
    def annotated(self) -> bool:
        """Whether somebody looked, so that background is known to be background."""
        return self.state == "annotated"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        _, slices, rows, columns = self.layers.shape
        return slices, rows, columns

    @property
    def overlap_voxels(self) -> int:
        """Voxels of more than one class."""
        return int(np.count_nonzero(self.layers[1])) if len(self.layers) > 1 else 0

    def plane(self, name: str) -> Mask:
        """The voxels of one class, (slices, rows, columns). Raises InputError (unknown_class)."""
        return np.asarray((self.layers == self._label(name)).any(axis=0))

    def counts(self) -> dict[str, int]:
        """The number of voxels of each class."""
        voxels = self.counts_by_slice().sum(axis=0)
        return {name: int(count) for name, count in zip(self.classes, voxels, strict=True)}

    def counts_by_slice(self) -> NDArray[np.int64]:
        """(slices, classes): the number of voxels of each class in each slice."""
        return np.stack(
            [
                np.bincount(self.layers[:, n].ravel(), minlength=len(self.classes) + 1)[1:]
                for n in range(self.shape[0])
            ]
        ).astype(np.int64)

    def single(self, order: str | None = None) -> Layers:
        """One label array: (rows, columns) of one slice, else (slices, rows, columns).

        order: "a<b<c": where classes overlap, c wins over b and b over a. Raises AnnotationError
        (overlapping_classes, with the number of voxels) where classes overlap and there is no
        order, and InputError (label_order) where the order is not one of all classes.
        """
        labels = self.resolved(order).layers[0]
        return labels[0] if len(labels) == 1 else labels

    def resolved(self, order: str | None) -> LabelMap:
        """The same with one layer; see `single`."""
        if len(self.layers) == 1:
            return self
        if order is None:
            raise AnnotationError(
                f"{self.overlap_voxels} voxels belong to more than one class, and one label map "
                f"is needed. Say which class wins with --label-order, such as a<b<c.",
                code="overlapping_classes",
            )
        ranks = label_ranks(order, self.classes)
        labels = np.empty_like(self.layers[:1])
        for n in range(self.shape[0]):  # slice by slice: the ranks take eight times the memory
            winner = ranks[self.layers[:, n]].argmax(axis=0)
            labels[0, n] = np.take_along_axis(self.layers[:, n], winner[np.newaxis], axis=0)[0]
        return self.changed(layers=labels)

    def with_plane(self, name: str, voxels: Mask, at: slice | int = slice(None)) -> LabelMap:
        """The label map with more voxels of one class. voxels: (slices, rows, columns), or those of
        the slices `at`. Arrays are changed in place where no layer has to be added.
        """
        label = self._label(name)
        missing = voxels & ~(self.layers[:, at] == label).any(axis=0)
        layers = self.layers
        for layer in layers:
            free = missing & (layer[at] == 0)
            layer[at][free] = label
            missing &= ~free
            if not missing.any():
                return self
        layers = np.concatenate([layers, np.zeros_like(layers[:1])])
        layers[-1][at][missing] = label
        return self.changed(layers=layers)

    def renamed(self, classes: Sequence[str]) -> LabelMap:
        """The same voxels in the labels of another list of classes, which has all of this one's."""
        table = np.zeros(len(self.classes) + 1, np.uint8)
        for label, name in enumerate(self.classes, start=1):
            table[label] = classes.index(name) + 1
        return self.changed(layers=table[self.layers], classes=tuple(classes))

    def changed(self, **fields: object) -> LabelMap:
        """A copy with other fields."""
        return LabelMap(**{**vars(self), **fields})

    def _label(self, name: str) -> int:
        if name not in self.classes:
            raise InputError(f"no class {name!r} in this label map", code="unknown_class")
        return self.classes.index(name) + 1


def label_ranks(order: str, classes: Sequence[str]) -> NDArray[np.int16]:
    """The rank of each label, background first, in an order such as a<b<c.

    Raises InputError (label_order) unless it names each class once.

    >>> label_ranks("b<a", ("a", "b")).tolist()
    [0, 2, 1]
    """
    names = [name.strip() for name in order.split("<")]
    absent = [name for name in classes if name not in names]
    if absent or len(set(names)) < len(names):
        raise InputError(
            f"The label order {order!r} must name each class once; the classes are "
            f"{', '.join(classes)}.",
            code="label_order",
        )
    return np.array([0, *(names.index(name) + 1 for name in classes)], np.int16)


@dataclass(frozen=True)
class ClassNames:
    """Which class a label of a mask means.

    names: label (a number as text, or the name of a segment) -> class; '' means background, and the
        label `*` stands for all that are not listed. Empty: each label is a class of its own.
    """

    names: Mapping[str, str] = field(default_factory=dict)

    def of(self, label: str) -> str:
        """The class, '' for background. Raises AnnotationError (unknown_label)."""
        if not self.names:
            return label
        if label not in self.names and "*" not in self.names:
            raise AnnotationError(
                "The mask has a label that no class has. Name it with --mask-classes LABEL=CLASS; "
                "*= makes all others background.",
                code="unknown_label",
            )
        return self.names.get(label, self.names.get("*", ""))


def label_map_of(
    values: NDArray, names: ClassNames, affine: NDArray[np.float64] | None = None
) -> LabelMap:
    """Label values (slices, rows, columns) as a label map; 0 is background.

    Raises AnnotationError: float_mask for values that are not whole numbers, negative_label,
    too_many_labels above 255 classes, and unknown_label.
    """
    if values.dtype.kind == "f" and not all(np.array_equal(v, np.rint(v)) for v in values):
        raise AnnotationError(
            "The mask has values that are not whole numbers: it is a probability map or an image. "
            "Apply a threshold first.",
            code="float_mask",
        )
    labels = np.unique(np.concatenate([np.unique(each) for each in values]))
    if labels[0] < 0:
        raise AnnotationError("The mask has a negative label.", code="negative_label")
    of_label = ["" if label == 0 else names.of(str(int(label))) for label in labels]
    classes = tuple(dict.fromkeys(filter(None, of_label)))
    if len(classes) > MAX_CLASSES:
        raise AnnotationError(
            f"The mask has {len(classes)} labels; at most {MAX_CLASSES} are classes. If each label "
            f"is one object, give all of them one class: --mask-classes '*=NAME'.",
            code="too_many_labels",
        )
    table = np.array([classes.index(name) + 1 if name else 0 for name in of_label], np.uint8)
    layers = np.stack([table[np.searchsorted(labels, each)] for each in values])
    return LabelMap(layers[np.newaxis], classes, affine)
