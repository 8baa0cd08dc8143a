"""The label map of one prepared sample, and why a sample is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from data_pipelines.preprocessing.study import Study
from medres.artefact.card import Card
from medres.artefact.masks import Labels, postprocessed
from medres.errors import PredictionError, RefusedInput
from medres.inference.decisions import unlike_training
from medres.inference.masks.study_mask import study_masks
from medres.inference.prediction import StudyAnswer
from medres.inference.sliding_windows import sliding_window

#: float32 images (n, *card.input_shape) -> probabilities (n, *card.output_shape), distances (n,)
Scored = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


def segmented(
    study: Study, inputs: Callable[[np.ndarray], np.ndarray], card: Card, scored: Scored
) -> StudyAnswer:
    """The label maps of a study, on the grid of its images. inputs: from prepared integers
    (n, ...) to model units. Refused: out_of_distribution, not_finite.
    """
    fields = card.segmentation
    if fields is None:
        raise PredictionError("the model is no segmenter", code="no_masks")
    labels, novelty = list[Labels](), None
    for sample in study.pixels:
        try:
            found, distance = label_map(inputs(sample[np.newaxis])[0], card, scored)
        except PredictionError as error:
            if error.code != "non_finite":
                raise
            refusal = RefusedInput("the model gives no number for this image", code="not_finite")
            return StudyAnswer(refusal, novelty)
        novelty = distance if novelty is None else max(novelty, distance or 0.0)
        labels.append(found)
    refused = unlike_training(novelty, card.novelty_threshold)
    if refused is not None:
        return StudyAnswer(refused, novelty)
    masks = study_masks(labels, study.grids, study.slices, card.names, fields, list(study.pixels))
    return StudyAnswer(None, novelty, masks=masks)


def label_map(image: np.ndarray, card: Card, scored: Scored) -> tuple[Labels, float | None]:
    """The label map uint8 ([slices,] rows, columns) of one float32 image (*spec.shape) in model
    units, after the post-processing, and its distance from the training images.

    An image that is larger than the patch of the model is covered by overlapping windows; its
    distance is the mean of those of the windows. Test-time flips count for the labels alone.
    Raises PredictionError (no_masks, non_finite).
    """
    fields, novelty = card.segmentation, None
    if fields is None:
        raise PredictionError("the model is no segmenter", code="no_masks")
    if card.sides == image.shape[:-1] and not fields.flips:
        scores, distances = scored(image[np.newaxis])
        if not np.isfinite(scores).all():
            raise PredictionError("the outputs are not finite", code="non_finite")
        labels = scores[0].argmax(axis=-1).astype(np.uint8)
        novelty = None if distances is None else float(distances[0])
    else:
        of_windows: list[np.ndarray] = []
        turn = itertools.cycle(range(1 + len(fields.flips)))  # 0: the windows as they are

        def predict(windows: np.ndarray) -> np.ndarray:
            scores, distances = scored(windows)
            if next(turn) == 0 and distances is not None:
                of_windows.append(distances)
            return scores

        labels = sliding_window(predict, image, card.sides, fields.overlap, flips=fields.flips)
        novelty = float(np.concatenate(of_windows).mean()) if of_windows else None
    return postprocessed(labels, fields.postprocess), novelty
