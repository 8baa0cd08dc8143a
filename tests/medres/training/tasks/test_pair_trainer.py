from __future__ import annotations

import keras
import numpy as np
import pytest

from data_pipelines.augment import AugmentSpec
from data_pipelines.augment.joint import compiled_pair
from medres.losses import DiceCrossentropy
from medres.models import segmenter
from medres.training.config.recipe import Recipe
from medres.training.optimizers import optimizer
from medres.training.tasks.pair_trainer import ImageLoss, PairTrainer


def trainer(*, jit: bool, crop: tuple[int, int] | None = None) -> PairTrainer:
    keras.utils.set_random_seed(5)
    side = crop or (16, 16)
    model = segmenter(10, (*side, 1), 3, stem="small", width=4)
    recipe = Recipe(warmup=0, schedule="constant")
    spec = AugmentSpec(rotation=10, flip_left_right=True, crop=crop)
    built = optimizer(recipe, 2, model.trainable_variables, {})
    pair = compiled_pair(spec, 0.5 if crop else 0.0)
    made = PairTrainer(model, pair, DiceCrossentropy(), built, recipe, jit=jit)
    made.begin_epoch(0)
    return made


def batch(labels: int) -> tuple:
    rng = np.random.default_rng(1)
    image = rng.random((4, 16, 16, 1)).astype(np.float32)
    mask = np.zeros((4, 16, 16), np.int32)
    mask[:, 4:9, 3:8] = labels
    key = np.stack([np.full(4, 7), np.arange(4)], axis=1).astype(np.int32)
    return {"image": image, "key": key}, mask, np.ones(4, np.float32)


@pytest.mark.long  # compiles two training steps
def test_a_compiled_step_is_equal_to_one_that_is_not() -> None:
    losses = []
    for jit in (False, True):
        made = trainer(jit=jit, crop=(8, 8))
        made.step(batch(2), 0)
        losses.append((made.means()["loss"], made.weights()["logits/kernel"]))
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-5)
    np.testing.assert_allclose(losses[0][1], losses[1][1], atol=1e-4)


@pytest.mark.long  # traces a training step
def test_a_batch_without_foreground_is_finite_and_learned_from() -> None:
    made = trainer(jit=False)
    before = made.weights()["logits/bias"]
    made.step(batch(0), 0)
    assert np.isfinite(list(made.means().values())).all()
    assert int(made.bad_batch.numpy()) == -1
    assert not np.array_equal(before, made.weights()["logits/bias"])


def test_the_loss_is_the_weighted_mean_over_images() -> None:
    loss = ImageLoss(DiceCrossentropy(batch=False))
    labels = np.array([[[0, 1]], [[1, 1]]])
    logits = np.random.default_rng(0).normal(size=(2, 1, 2, 2)).astype(np.float32)
    single = [float(loss.mean(labels[i : i + 1], logits[i : i + 1], [1.0])) for i in (0, 1)]
    weighted = float(loss.mean(labels, logits, [3.0, 1.0]))
    assert weighted == pytest.approx((3 * single[0] + single[1]) / 4, rel=1e-2)
    assert float(loss.mean(labels, logits, [0.0, 0.0])) == 0.0


def test_coarser_outputs_weigh_half_of_the_finer_one_before_them() -> None:
    rng = np.random.default_rng(0)
    labels, weights = rng.integers(0, 3, (2, 8, 8)).astype(np.int32), np.ones(2, np.float32)
    logits = {name: rng.random((2, 8, 8, 3)).astype(np.float32) for name in ("logits", "logits_2")}
    loss = ImageLoss(DiceCrossentropy())
    single = [float(loss.mean(labels, logits[name], weights)) for name in ("logits", "logits_2")]
    both = float(loss.mean(labels, logits, weights))
    assert both == pytest.approx((single[0] + 0.5 * single[1]) / 1.5, rel=1e-6)
