from __future__ import annotations

import keras
import numpy as np
import pytest

from data_pipelines.augment import AugmentSpec
from data_pipelines.augment.joint import compiled_boxes
from medres.training.config.recipe import Recipe
from medres.training.detection.network import box_loss
from medres.training.network import dtype_policy
from medres.training.optimizers import optimizer
from medres.training.tasks.pair_trainer import PairTrainer


def trainer(*, jit: bool, policy: str = "float32") -> PairTrainer:
    from medres.models import detector

    keras.utils.set_random_seed(5)
    with dtype_policy(policy):
        model = detector(
            10, (16, 16, 1), 2, levels=(2, 3), stem="small", width=4, channels=8, head_depth=1
        )
    recipe = Recipe(warmup=0, schedule="constant", clip=5.0)
    spec = AugmentSpec(zoom=0.2, shift=0.1, flip_left_right=True)
    built = optimizer(recipe, 2, model.trainable_variables, {})
    made = PairTrainer(model, compiled_boxes(spec), box_loss(model), built, recipe, jit=jit)
    made.begin_epoch(0)
    return made


def batch(*, empty: bool = False) -> tuple:
    rng = np.random.default_rng(1)
    image = rng.random((4, 16, 16, 1)).astype(np.float32)
    boxes = np.full((4, 3, 5), -1, np.float32)
    if not empty:
        boxes[:, 0] = (3, 4, 9, 10, 1)
        boxes[1, 1] = (8, 8, 14, 15, -2)  # to ignore
    key = np.stack([np.full(4, 7), np.arange(4)], axis=1).astype(np.int32)
    return {"image": image, "key": key}, boxes, np.ones(4, np.float32)


@pytest.mark.long  # compiles two training steps
def test_a_compiled_step_is_equal_to_one_that_is_not() -> None:
    results = []
    for jit in (False, True):
        made = trainer(jit=jit)
        made.step(batch(), 0)
        results.append((made.means()["loss"], made.weights()["logits/kernel"]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-4)


@pytest.mark.long  # traces a training step
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_batch_without_any_box_is_finite_and_learned_from(policy: str) -> None:
    made = trainer(jit=False, policy=policy)
    before = made.weights()
    made.step(batch(empty=True), 0)
    made.step(batch(), 1)
    assert np.isfinite(list(made.means().values())).all()
    assert int(made.bad_batch.numpy()) == -1
    after = made.weights()
    assert all(np.isfinite(values).all() for values in after.values())
    assert not np.array_equal(before["logits/bias"], after["logits/bias"])
    assert made.model.output.dtype == "float32"
