from __future__ import annotations

import keras
import pytest

from medres.errors import TrainingError
from medres.training.recipes import RECIPES, optimizer, recipe


def rate(optimiser: keras.optimizers.Optimizer, step: int) -> float:
    optimiser.iterations.assign(step)
    return float(optimiser.learning_rate)


def test_cosine_with_warmup() -> None:
    made = optimizer(recipe("default", learning_rate=0.01, epochs=10), 20)
    assert rate(made, 0) == 0
    assert rate(made, 10) == pytest.approx(0.005)
    assert rate(made, 20) == pytest.approx(0.01)
    assert rate(made, 110) == pytest.approx(0.005, rel=1e-3)
    assert rate(made, 200) == pytest.approx(0, abs=1e-8)


def test_steps_divide_by_ten() -> None:
    made = optimizer(recipe("paper", epochs=4), 100)
    assert [rate(made, s) for s in (0, 199, 250, 350)] == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_decay_skips_biases_and_norms() -> None:
    image = keras.Input((4,))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.BatchNormalization()(image)))
    for name in RECIPES:
        made = optimizer(recipe(name), 10)
        made.build(model.trainable_variables)
        decayed = [v.path.split("/")[-1] for v in model.trainable_variables if made._use_weight_decay(v)]
        assert decayed == ["kernel"]


def test_changes_override_and_none_does_not() -> None:
    assert recipe("default", epochs=3, batch_size=None) == RECIPES["default"].model_copy(update={"epochs": 3})


@pytest.mark.parametrize("change", [{"epochs": 0}, {"learning_rate": -1.0}, {"class_weights": "odd"}, {"speed": 3}])
def test_bad_values_are_refused_by_field(change: dict) -> None:
    with pytest.raises(TrainingError, match=next(iter(change))):
        recipe("default", **change)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(TrainingError, match="default, paper, finetune"):
        recipe("magic")
