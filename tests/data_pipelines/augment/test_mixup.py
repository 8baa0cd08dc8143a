from __future__ import annotations

import numpy as np
import pytest
from helpers import raises_code
from scipy import stats

from data_pipelines.augment import AugmentSpec, draw_pairs, mix
from data_pipelines.errors import SpecError

MANY = np.stack([np.full(3000, 1, np.int32), np.arange(3000, dtype=np.int32)], axis=1)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_parts_follow_the_beta_distribution(alpha: float) -> None:
    part = np.asarray(draw_pairs(MANY, AugmentSpec(mixup=alpha))["part"])[:, 0]
    assert stats.kstest(part, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    label = np.array([[1, 0], [0, 0], [1, 1], [0, 1]], np.float32)
    weight = np.array([[1, 1], [1, 0], [0, 0], [2, 1]], np.float32)
    return rng.random((4, 8, 10, 1)).astype(np.float32), label, weight


def cross_entropy(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    return -(label * np.log(probability) + (1 - label) * np.log(1 - probability))


@pytest.mark.parametrize("spec", [AugmentSpec(mixup=1.0), AugmentSpec(cutmix=1.0)])
def test_the_loss_is_that_of_both_labels_each_with_its_weight(batch, spec: AugmentSpec) -> None:
    image, label, weight = batch
    drawn = {name: np.asarray(v) for name, v in draw_pairs(MANY[:4], spec).items()}
    mixed, soft, total = (np.asarray(part) for part in mix(image, label, weight, drawn, spec))
    other = np.roll(image, -1, axis=0)
    if spec.mixup:
        part = drawn["part"][:, 0]
        assert mixed == pytest.approx(
            part[:, None, None, None] * image + (1 - part)[:, None, None, None] * other, abs=1e-6
        )
    else:
        own = mixed == image
        assert (mixed == np.where(own, image, other)).all()
        part = own.mean(axis=(1, 2, 3))
        assert 0 < part.mean() < 1
    probability = np.random.default_rng(1).uniform(0.1, 0.9, label.shape)
    want = part[:, None] * weight * cross_entropy(probability, label)
    want += (
        (1 - part[:, None])
        * np.roll(weight * 1.0, -1, axis=0)
        * cross_entropy(probability, np.roll(label, -1, axis=0))
    )
    assert total * cross_entropy(probability, soft) == pytest.approx(want, abs=1e-5)
    assert (soft[total == 0] == 0).all()


def test_cutmix_boxes_have_the_drawn_area_where_they_fit(batch) -> None:
    image = np.zeros((4, 100, 100, 1), np.float32)
    image[1] = 1
    drawn = {"part": np.full((4, 1), 0.75, np.float32), "place": np.full((4, 2), 0.5, np.float32)}
    mixed = np.asarray(mix(image, batch[1], batch[2], drawn, AugmentSpec(cutmix=1.0))[0])
    assert mixed[0].mean() == pytest.approx(0.25)
    assert (mixed[0, 25:75, 25:75] == 1).all()


def test_classes_are_mixed_one_hot(batch) -> None:
    label, weight = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], np.array([1, 1, 0, 1], np.float32)
    drawn = {"part": np.full((4, 1), 0.75, np.float32)}
    _, soft, total = (
        np.asarray(p) for p in mix(batch[0], label, weight, drawn, AugmentSpec(mixup=1.0))
    )
    assert soft[0] == pytest.approx([0.75, 0.25, 0])
    assert soft[1] == pytest.approx([0, 1, 0])
    assert total == pytest.approx([1, 0.75, 0.25, 1])


def test_class_numbers_are_refused(batch) -> None:
    with raises_code(SpecError, "integer_labels", "one-hot"):
        mix(batch[0], np.zeros(4, np.int32), np.ones(4, np.float32), {}, AugmentSpec(mixup=1.0))
