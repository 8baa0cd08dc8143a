"""Whether the parts of a model file agree with each other: the card, the reference outputs, the
distributions, and the graph. A file that contradicts itself is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medres.artefact.card import Card
from medres.artefact.feature_distance import FeatureGaussian, feature_tensors
from medres.artefact.golden_vectors import check_derived, golden_shape
from medres.artefact.orientation import SIDE
from medres.artefact.validation import CARD, GOLDEN, NOVELTY, UPRIGHT
from medres.errors import ArtefactError
from medres.tasks import task_named

if TYPE_CHECKING:
    import keras

MAX_GOLDEN = 8  # reference images


@dataclass(frozen=True)
class ArtefactContents:
    """What a checked model file holds besides its weights.

    inputs, outputs: reference inputs (prepared integers) and the probabilities for them. members:
    the bytes of all members except the weights. The rest as in `Artefact`.
    """

    card: Card
    inputs: np.ndarray
    outputs: np.ndarray
    novelty: FeatureGaussian | None
    orientation_model: FeatureGaussian | None
    members: dict[str, bytes]


def check_contents(contents: ArtefactContents) -> None:
    """Raise ArtefactError unless the members agree with the card. Codes: golden_shape (number,
    shape, dtype or range of the reference inputs and outputs), malformed_gaussian,
    novelty_missing (the card states a limit, and there is no distribution).
    """
    card = contents.card
    _check_inputs(contents.inputs, card)
    _check_outputs(contents.outputs, len(contents.inputs), card)
    check_derived(contents.members[GOLDEN], contents.outputs, card)
    orientation_model = contents.orientation_model
    if orientation_model is not None and len(orientation_model.mean) != SIDE * SIDE:
        raise ArtefactError(
            f"{UPRIGHT} does not describe {SIDE} x {SIDE} pixels", code="malformed_gaussian"
        )
    if card.novelty_threshold is not None and contents.novelty is None:
        raise ArtefactError(
            f"{CARD} states a limit for the distance from the training images, but the file has no "
            f"{NOVELTY}",
            code="novelty_missing",
        )


def check_graph(model: keras.Model, contents: ArtefactContents) -> None:
    """Raise ArtefactError unless the opened model takes the images of the card, gives one output
    per name, and has the features that the distribution describes. Codes: golden_shape,
    novelty_mismatch.
    """
    card = contents.card
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    expected = [(None, *card.input_shape), (None, *card.output_shape)]
    if shapes != expected:
        raise ArtefactError(
            f"the graph maps {_shown(shapes[:-1])} to {_shown(shapes[-1:])}, but {CARD} states "
            f"images of shape {card.input_shape} and outputs of shape {card.output_shape}",
            code="golden_shape",
        )
    if contents.novelty is None:
        return
    try:
        width = sum(tensor.shape[-1] for tensor in feature_tensors(model))
    except (ValueError, AttributeError, TypeError):  # no layer with the features
        width = 0
    if width != len(contents.novelty.mean):
        raise ArtefactError(
            f"{NOVELTY} describes {len(contents.novelty.mean)} features, the graph has {width}",
            code="novelty_mismatch",
        )


def _check_inputs(inputs: np.ndarray, card: Card) -> None:
    spec = card.preprocess
    if (inputs.shape[1:], inputs.dtype) != (golden_shape(card), spec.dtype):
        raise ArtefactError(
            f"{CARD} states the preprocessing {spec.name}, which does not match the shape or "
            f"dtype of the inputs in {GOLDEN}: one of them was altered",
            code="golden_shape",
        )
    if not 1 <= len(inputs) <= MAX_GOLDEN:
        raise ArtefactError(
            f"{GOLDEN} holds {len(inputs)} images; allowed are 1 to {MAX_GOLDEN}",
            code="golden_shape",
        )


def _check_outputs(outputs: np.ndarray, count: int, card: Card) -> None:
    if (outputs.shape, outputs.dtype) != ((count, *card.output_shape), np.dtype("<f4")):
        raise ArtefactError(
            f"{CARD} names {len(card.names)} outputs; {GOLDEN} holds outputs of shape "
            f"{outputs.shape} and dtype {outputs.dtype} for {count} images",
            code="golden_shape",
        )
    if card.detection is not None:
        if not np.isfinite(outputs).all():
            raise ArtefactError(f"the raw maps in {GOLDEN} are not finite", code="golden_shape")
        return
    is_probability = bool(((outputs >= 0) & (outputs <= 1)).all())  # False for NaN
    if is_probability and task_named(card.task).exclusive:
        is_probability = bool(np.abs(outputs.sum(axis=-1) - 1).max() <= 1e-3)
    if not is_probability:
        raise ArtefactError(
            f"the outputs in {GOLDEN} are not the probabilities of a {card.task} model",
            code="golden_shape",
        )


def _shown(shapes: list[tuple[int | None, ...]]) -> str:
    return " and ".join(str(shape) for shape in shapes) or "nothing"
