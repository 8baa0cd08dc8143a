"""`Prediction`: what a model says about one study, and what exactly it is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from medres.errors import RefusedInput
from medres.inference.boxes.box import Box, BoxPreview
from medres.inference.masks.study_mask import StudyMask

if TYPE_CHECKING:
    from data_pipelines.dicom.reader import DicomSource
    from medres.inference.study_saliency import Saliency


class StudyAnswer(NamedTuple):
    """The label maps or the boxes of a study, or why it is refused; and the greatest distance of an
    image from the training images.
    """

    error: RefusedInput | None
    novelty: float | None
    masks: tuple[StudyMask, ...] = ()
    boxes: Sequence[Box] = ()
    previews: tuple[BoxPreview, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """The model's prediction for one study, or its refusal.

    probabilities: dict, finding (or class) -> float 0..1; {} if the study was refused.
    decisions: dict, finding -> bool, whether the probability reaches the operating point `default`,
        or {"class": name}; {} if the study was refused.
    refused: str, the reason for a refusal in one sentence, else None. code: str, its reason code,
        else None.
    path: str, the file or folder for which the prediction was requested, if any.
    sets: dict, finding -> list of the labels, of 0 and 1, in the conformal prediction set at the
        card's alpha, or {"class": names}; {} if the model has no conformal quantiles.
    conformal: dict, alpha, the sets and the uncertain findings as in JSON, None without conformal
        sets.
    images: tuple with one dict per scored image (of a volume: one per volume; of stacks: one per
        middle slice), finding (or class) -> float 0..1, before pooling; () if the study was
        refused.
    slices: tuple as long as `images`; for each of them the tuple of the (SOP Instance UID, 0-based
        frame) of its slices, in order; () without files.
    n_images: int, how many images were prepared for the model, also where it refused them.
    novelty: float, the greatest distance of an image from the training images, None if the model
        file does not hold their distribution.
    study_uid: str, StudyInstanceUID. series_uids, sop_instance_uids: tuples of str, each UID once,
        in the order of the files: of the images that were scored; in a refusal, of the files that
        were read until then. "" and () where no DICOM file was read, or where the files are of
        several studies. `repr` hides these UIDs.
    model_sha256: str, 64 hexadecimal digits, of the model file.
    thresholds: dict, finding -> float 0..1, the operating point `default` of the decisions; {} for
        exclusive classes.
    boxes: of a detector, list of `Box` in the pixels of the original images, also those below the
        threshold of their class (`positive_boxes` has the others); [] where nothing was found, for
        a refusal and for other models. A detector has no probabilities; its decision for a class is
        whether any box reaches the threshold.
    previews: of a detector, the prepared images with their boxes, for pictures.
    masks: of a segmenter, tuple of `StudyMask`, the label maps on the grid of the images: one for a
        volume or a series of slices, else one for each image; () for a refusal and for a
        classifier. A segmenter has no probabilities and no decisions.
    files: tuple of what was read: paths, bytes or data sets; () without files.
    """

    probabilities: dict[str, float]
    decisions: dict[str, bool | str]
    refused: str | None = None
    path: str | None = None
    sets: dict[str, list[int] | list[str]] = field(default_factory=dict)
    images: tuple[dict[str, float], ...] = field(default=(), repr=False)
    novelty: float | None = None
    code: str | None = None
    conformal: dict[str, Any] | None = None
    n_images: int = 0
    slices: tuple[tuple[tuple[str, int], ...], ...] = field(default=(), repr=False)
    study_uid: str = field(default="", repr=False)
    series_uids: tuple[str, ...] = field(default=(), repr=False)
    sop_instance_uids: tuple[str, ...] = field(default=(), repr=False)
    model_sha256: str = ""
    thresholds: dict[str, float] = field(default_factory=dict)
    masks: tuple[StudyMask, ...] = field(default=(), repr=False, compare=False)
    files: tuple[DicomSource, ...] = field(default=(), repr=False, compare=False)
    boxes: list[Box] = field(default_factory=list, repr=False)
    previews: tuple[BoxPreview, ...] = field(default=(), repr=False, compare=False)
    _explain: Callable[[str, str], Saliency] | None = field(default=None, repr=False, compare=False)

    @property
    def mask(self) -> StudyMask | None:
        """The label map, if there is exactly one."""
        return self.masks[0] if len(self.masks) == 1 else None

    @property
    def positive_boxes(self) -> list[Box]:
        """The boxes whose score reaches the frozen threshold of their class."""
        return [box for box in self.boxes if box.is_positive]

    @property
    def abstained(self) -> list[str]:
        """Findings whose prediction set does not hold exactly one label: the decision is left to a
        human reader.
        """
        return [name for name, labels in self.sets.items() if len(labels) != 1]

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of `medres predict --json`."""
        return {
            "path": self.path,
            "study_uid": self.study_uid,
            "series_uids": list(self.series_uids),
            "sop_instance_uids": list(self.sop_instance_uids),
            "probabilities": self.probabilities,
            "thresholds": self.thresholds,
            "decisions": self.decisions,
            "refused": self.refused,
            "code": self.code,
            "sets": self.sets,
            "abstained": self.abstained,
            "conformal": self.conformal,
            "images": list(self.images),
            "slices": [[list(position) for position in image] for image in self.slices],
            "n_images": self.n_images,
            "novelty": self.novelty,
            "model_sha256": self.model_sha256,
            **({"boxes": [box.as_dict() for box in self.boxes]} if self.previews else {}),
            **({"masks": [mask.as_dict() for mask in self.masks]} if self.masks else {}),
        }

    def saliency(self, finding: str | None = None, *, method: str = "gradcam") -> Saliency:
        """Saliency map of the image of the study with the highest probability. The files are read
        again, and must have the bytes that were predicted.

        finding: by default the most probable one. method: one of `medres.explain.METHODS`.

        Raises RefusedInput: no_saliency_of_masks for a segmenter; nothing_to_explain for a refused
        study, or for one predicted from pixels without files; source_changed if a file, or a
        pydicom Dataset, has changed since. Raises DicomError if a file can no longer be read.
        """
        if self.masks:
            raise RefusedInput(
                "no saliency map: a segmenter answers for each pixel, which its masks show",
                code="no_saliency_of_masks",
            )
        if self.refused is not None or self._explain is None:
            raise RefusedInput(
                "no saliency map: the study was refused, or predicted without its files",
                code="nothing_to_explain",
            )
        name = finding or max(self.probabilities, key=self.probabilities.__getitem__)
        return self._explain(name, method)
