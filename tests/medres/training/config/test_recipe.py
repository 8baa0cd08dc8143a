from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers import raises_code
from pydantic import ValidationError

from medres.errors import TrainingError
from medres.training.config.recipe import RECIPES, Recipe, recipe
from medres.training.optimizers import optimizer


def variables(values: list[float]) -> list[keras.Variable]:
    """A kernel, a bias, a gamma and a beta of one value each."""
    layer = [
        keras.Variable([value], name=name)
        for value, name in zip(values, ("kernel", "bias", "gamma", "beta"), strict=True)
    ]
    return layer


def rate(made, step: int) -> float:
    made.iterations.assign(step)
    return float(made.learning_rate)


def test_cosine_with_warmup() -> None:
    made = optimizer(recipe("default", learning_rate=0.01, epochs=10), 20, variables([1.0] * 4))
    assert rate(made, 0) == 0
    assert rate(made, 10) == pytest.approx(0.005)
    assert rate(made, 20) == pytest.approx(0.01)
    assert rate(made, 110) == pytest.approx(0.005, rel=1e-3)
    assert rate(made, 200) == pytest.approx(0, abs=1e-8)


def test_steps_divide_by_ten_after_the_warmup() -> None:
    made = optimizer(recipe("paper", epochs=4), 100, variables([1.0] * 4))
    assert [rate(made, s) for s in (0, 50, 199, 250, 350)] == pytest.approx(
        [0, 0.05, 0.1, 0.01, 0.001]
    )


def test_accumulated_batches_make_one_update_of_their_mean_and_the_rate_counts_batches() -> None:
    held = variables([1.0] * 4)
    made = optimizer(
        recipe("paper", learning_rate=0.1, warmup=1, epochs=10, accumulate=4, weight_decay=0),
        20,
        held,
    )
    for gradient in (1.0, 2.0, 3.0):
        made.apply([np.full(1, gradient, np.float32)] * 4, held)
    assert float(held[0][0]) == 1.0
    assert float(made.learning_rate) == pytest.approx(0.1 * 3 / 20)
    made.apply([np.full(1, 6.0, np.float32)] * 4, held)
    assert float(held[0][0]) == pytest.approx(1.0 - 0.1 * 3 / 20 * (1 + 2 + 3 + 6) / 4)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_decay_skips_biases_and_norms_and_is_decoupled(name: str) -> None:
    """With a gradient of zero a decoupled decay is all that moves: w (1 - rate x decay)."""
    held = variables([2.0] * 4)
    made = optimizer(
        recipe(optimizer=name, schedule="constant", warmup=0, learning_rate=0.1, weight_decay=0.5),
        10,
        held,
    )
    made.apply([np.zeros(1, np.float32)] * 4, held)
    assert [float(v[0]) for v in held] == pytest.approx([2.0 * (1 - 0.1 * 0.5), 2.0, 2.0, 2.0])


def test_the_papers_decay_is_in_the_gradient() -> None:
    """Two steps of momentum SGD by hand: v = 0.9 v - rate (g + decay w); w += v."""
    held, gradient = variables([2.0] * 4), 0.3
    made = optimizer(recipe("paper", warmup=0, schedule="constant", weight_decay=0.5), 10, held)
    w, b, v, u = 2.0, 2.0, 0.0, 0.0
    for _ in range(2):
        made.apply([np.full(1, gradient, np.float32)] * 4, held)
        v = 0.9 * v - 0.1 * (gradient + 0.5 * w)
        u = 0.9 * u - 0.1 * gradient
        w, b = w + v, b + u
    assert [float(x[0]) for x in held] == pytest.approx([w, b, b, b], rel=1e-6)


def test_layer_rates_scale_the_step_and_the_decay() -> None:
    image = keras.Input((3,))
    model = keras.Model(
        image, keras.layers.Dense(2, name="late")(keras.layers.Dense(4, name="early")(image))
    )
    before = [v.numpy() for v in model.trainable_variables]
    chosen = recipe(schedule="constant", warmup=0, learning_rate=0.1, weight_decay=0.5)
    made = optimizer(chosen, 10, model.trainable_variables, {"early": 0.25})
    made.apply(
        [np.ones(v.shape, np.float32) for v in model.trainable_variables], model.trainable_variables
    )
    moved = [a - v.numpy() for a, v in zip(before, model.trainable_variables, strict=True)]
    assert moved[0] == pytest.approx(
        0.025 + 0.025 * 0.5 * before[0], rel=1e-4
    )  # the first step of Adam is the rate
    assert moved[1] == pytest.approx(0.025, rel=1e-4)
    assert moved[3] == pytest.approx(0.1, rel=1e-4)


def test_every_recipe_prints_itself_and_its_changes() -> None:
    for name, one in RECIPES.items():
        text = str(one)
        assert text.splitlines()[0] == f"recipe {name}"
        assert all(f" {field} " in text for field in Recipe.model_fields if field != "name")
        assert "changed" not in text
    assert "epochs            3   (changed from 60)" in str(recipe("modern", epochs=3))


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValidationError):
        RECIPES["paper"].epochs = 3


def test_changes_override_and_none_does_not() -> None:
    assert recipe("default", epochs=3, batch_size=None) == RECIPES["default"].model_copy(
        update={"epochs": 3}
    )


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0}, {"learning_rate": -1.0}, {"learning_rate": float("nan")},
        {"class_weights": "odd"}, {"speed": 3}, {"class_weights": {"a": 0.0}},
        {"uncertain": {"a": "perhaps"}}, {"uncertain": {"a": 2.0}}, {"ema": 1.0},
        {"stochastic_depth": 1.0}, {"smoothing": -0.1}, {"accumulate": 0},
    ],
)  # fmt: skip
def test_bad_values_are_refused_by_field(change: dict) -> None:
    with raises_code(TrainingError, "bad_setting", next(iter(change))):
        recipe("default", **change)


def test_unknown_names_are_refused() -> None:
    with raises_code(TrainingError, "unknown_recipe", *RECIPES):
        recipe("magic")
