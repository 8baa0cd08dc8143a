"""Recipes: everything about a training run that is neither data nor model, as one frozen object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medres.errors import TrainingError

if TYPE_CHECKING:
    import keras


class Recipe(BaseModel):
    """How to optimise.

    learning_rate: peak rate, reached after `warmup` epochs (linear) and then lowered to 0 by a cosine (Loshchilov & Hutter 2017)
        or divided by 10 after 1/2 and 3/4 of all steps ("steps", as He et al. 2016 on CIFAR-10).
    weight_decay: decoupled, on kernels only, never on biases and norms.
    augment: a name of data_pipelines.augment.PRESETS, or "auto": chest_xray for radiographs, ct_slice for CT.
    class_weights: "balanced" weighs each class of each finding by the inverse of its frequency in the training split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "default"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-2, ge=0)
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    warmup: float = Field(1.0, ge=0)
    batch_size: int = Field(32, ge=1)
    epochs: int = Field(15, ge=1)
    augment: str = "auto"
    class_weights: Literal["none", "balanced"] = "none"


RECIPES: dict[str, Recipe] = {
    "default": Recipe(),
    # He et al. 2016, section 3.4: SGD with momentum, weight decay 1e-4 in the loss (here decoupled: rate 0.1 times 1e-4 a step).
    "paper": Recipe(
        name="paper", optimizer="sgd", learning_rate=0.1, weight_decay=1e-4, schedule="steps", batch_size=128, epochs=90
    ),
    "finetune": Recipe(name="finetune", learning_rate=1e-4, epochs=10),
}


def recipe(name: str | Recipe = "default", **changes: object) -> Recipe:
    """The named recipe with some fields changed; None leaves a field as it is. Raises TrainingError for unknown names or values."""
    if isinstance(name, str) and name not in RECIPES:
        raise TrainingError(f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}")
    base = RECIPES[name] if isinstance(name, str) else name
    try:
        return Recipe.model_validate(
            base.model_dump() | {key: value for key, value in changes.items() if value is not None}
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise TrainingError(f"recipe, field {field}: {first['msg']}; received {first['input']!r}") from None


def optimizer(chosen: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The Keras optimiser of a recipe; its rate is a function of its own step counter, so it resumes exactly."""
    import keras

    rate = _schedule(chosen, steps_per_epoch)
    if chosen.optimizer == "sgd":
        made = keras.optimizers.SGD(
            rate, momentum=chosen.momentum, nesterov=True, weight_decay=chosen.weight_decay or None
        )
    else:
        made = keras.optimizers.AdamW(rate, weight_decay=chosen.weight_decay)
    made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return made


def _schedule(chosen: Recipe, steps_per_epoch: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    from keras.optimizers import schedules

    steps = max(1, chosen.epochs * steps_per_epoch)
    warmup = min(int(chosen.warmup * steps_per_epoch), steps - 1)
    if chosen.schedule == "constant":
        return chosen.learning_rate
    if chosen.schedule == "steps":
        rates = [chosen.learning_rate * factor for factor in (1.0, 0.1, 0.01)]
        return schedules.PiecewiseConstantDecay([steps // 2, 3 * steps // 4], rates)
    if warmup == 0:
        return schedules.CosineDecay(chosen.learning_rate, steps)
    return schedules.CosineDecay(0.0, steps - warmup, warmup_target=chosen.learning_rate, warmup_steps=warmup)
