from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers import raises_code

from medres.errors import TrainingError
from medres.losses import MaskedBinaryCrossentropy
from medres.training.losses import Loss

FINDINGS = 4


def batch(missing: float = -1.0) -> tuple[np.ndarray, np.ndarray]:
    """As many images as findings: a weight along the wrong axis would have the right shape."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (FINDINGS, FINDINGS)).astype(np.float32)
    labels[rng.random(labels.shape) < 0.4] = missing
    return labels, rng.normal(size=labels.shape).astype(np.float32)


def cells(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """By definition; 0 where the label is missing."""
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return np.where(labels >= 0, -np.log(np.where(labels == 1, p, 1 - p)), 0.0)


@pytest.mark.parametrize("missing", [-1.0, np.nan])
def test_the_mean_is_over_labeled_cells_as_in_training(missing: float) -> None:
    labels, logits = batch(missing)
    mask = labels >= 0
    loss = float(MaskedBinaryCrossentropy(from_logits=True)(labels, logits))
    assert loss == pytest.approx(cells(labels, logits).sum() / mask.sum(), rel=1e-5)
    known = np.where(mask, labels, 0.0)
    in_training = Loss("multilabel").mean(known, logits, mask.astype(np.float32))
    assert loss == pytest.approx(float(in_training), rel=1e-6)
    probabilities = 1 / (1 + np.exp(-logits))
    assert float(MaskedBinaryCrossentropy()(labels, probabilities)) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("shape", [(FINDINGS,), (FINDINGS, 1)])
def test_a_weight_belongs_to_an_image(shape: tuple[int, ...]) -> None:
    labels, logits = batch()
    weight = np.arange(FINDINGS, dtype=np.float32)
    loss = MaskedBinaryCrossentropy(from_logits=True)(labels, logits, weight.reshape(shape))
    expected = (cells(labels, logits) * weight[:, None]).sum() / (labels >= 0).sum()
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_a_weight_of_each_cell_is_refused() -> None:
    labels, logits = batch()
    with raises_code(TrainingError, "weight_shape", f"({FINDINGS}, {FINDINGS})"):
        MaskedBinaryCrossentropy(from_logits=True)(labels, logits, np.ones_like(labels))


def test_without_labels_the_loss_is_zero() -> None:
    labels, logits = batch()
    assert float(MaskedBinaryCrossentropy(from_logits=True)(labels * 0 - 1, logits)) == 0.0


def test_smoothing_is_that_of_training() -> None:
    labels, logits = batch()
    mask = labels >= 0
    loss = MaskedBinaryCrossentropy(from_logits=True, label_smoothing=0.2)
    in_training = Loss("multilabel", smoothing=0.2).mean(np.where(mask, labels, 0), logits, mask)
    assert float(loss(labels, logits)) == pytest.approx(float(in_training), rel=1e-6)


def test_it_is_saved_with_a_model() -> None:
    loss = MaskedBinaryCrossentropy(from_logits=True, label_smoothing=0.1)
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert copy.get_config() == loss.get_config()
    assert copy.from_logits
