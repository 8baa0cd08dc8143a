"""Recipes: the settings of the optimization, which do not depend on data and model, as one frozen
object that can be printed. The defaults are the fields of `Recipe`, and their changes in `RECIPES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from data_pipelines.runtime.field_errors import first_field_error
from medres.errors import TrainingError
from medres.training.config.suggestions import unknown_setting

POLICIES = ("ignore", "zero", "one", "soft")


class Recipe(BaseModel):
    """How to optimize.

    optimizer: "sgd" adds the weight decay to the gradient, as in He et al. 2016; "adamw"
        (Loshchilov & Hutter 2019) and "lamb" (You et al. 2020) subtract it from the weights.
    weight_decay: of kernels only, never of biases and norms.
    learning_rate: the maximum learning rate. It is reached after `warmup` epochs (linear) and then
        lowered to 0 by a cosine (Loshchilov & Hutter 2017), divided by 10 after 1/2 and after 3/4
        of all batches ("steps", He et al. 2016 on CIFAR-10), or kept ("constant").
    batch_size: images per batch. accumulate: batches whose mean gradient makes one update.
    clip: maximum global norm of the gradient; 0: no limit.
    patience: early stopping: training ends after this number of epochs without a lower tuning
        (validation) loss; 0: no early stopping.
    ema: momentum of the moving average of weights and norm statistics, which is then evaluated and
        saved; 0: no average. It starts low: min(ema, (1 + n) / (10 + n)) at update n.
    augment: a name of data_pipelines.augment.PRESETS, or "auto": chest_xray for radiographs,
        ct_slice for CT slices and stacks, ct_volume for volumes; mr_slice and mr_volume likewise;
        natural for color pictures.
    mixup, cutmix: alpha of Beta(alpha, alpha) by which pairs of images are mixed (Zhang et al.
        2018) or pasted into each other (Yun et al. 2019); 0: as in the augmentation preset.
    smoothing: label smoothing s: 1 becomes 1 - s/2 and 0 becomes s/2 (for classes, s is divided
        among all of them; Szegedy et al. 2016).
    focal: exponent gamma of the focal loss (Lin et al. 2017); 0: cross-entropy.
    ordinal: the classes from lowest to highest; the loss is then the mean cross-entropy of "above
        this class?" over the cuts between classes.
    stochastic_depth: drop rate of the last block; it rises linearly from the first one (Huang et
        al. 2016).
    class_weights: "balanced" weights each class of each finding by the inverse of its frequency in
        the training split; or factors by name, for the positives of a finding or for a class.
    uncertain: the meaning of a label of -1 in training, by finding ("*": all other findings):
        ignore, zero, one, soft (1/2), or a number 0 to 1. These are the policies of CheXpert
        (Irvin et al. 2019). Tuning and test never use uncertain labels.
    norm: of a network that medres builds: "batch" normalization, "group" (Wu and He 2018), which
        does not depend on the batch, or "sync". Where several devices share a batch, "batch" and
        "sync" both take the statistics of the whole batch.
    freeze_norm: norm layers keep their initial statistics and scales.
    layer_decay: the learning rate of each stage divided by that of the stage after it (the head
        has the full rate).
    unfreeze: n trains only the head for n epochs, then one more stage every n epochs; 0: trains all
        stages from the start.

    >>> Recipe(learning_rate=3e-4).learning_rate
    0.0003
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "default"
    optimizer: Literal["adamw", "sgd", "lamb"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-2, ge=0, allow_inf_nan=False)
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    warmup: float = Field(1.0, ge=0, allow_inf_nan=False)
    batch_size: int = Field(32, ge=1)
    accumulate: int = Field(1, ge=1)
    clip: float = Field(0.0, ge=0, allow_inf_nan=False)
    epochs: int = Field(15, ge=1)
    patience: int = Field(0, ge=0)
    ema: float = Field(0.0, ge=0, lt=1)
    augment: str = "auto"
    mixup: float = Field(0.0, ge=0, le=10)
    cutmix: float = Field(0.0, ge=0, le=10)
    smoothing: float = Field(0.0, ge=0, lt=1)
    focal: float = Field(0.0, ge=0, le=10)
    ordinal: tuple[str, ...] = ()
    stochastic_depth: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] | dict[str, float] = "none"
    uncertain: dict[str, str | float] = {}
    norm: Literal["batch", "group", "sync"] = "batch"
    freeze_norm: bool = False
    layer_decay: float = Field(1.0, gt=0, le=1)
    unfreeze: int = Field(0, ge=0)

    @field_validator("class_weights")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        if isinstance(value, dict) and not all(
            0 < weight < float("inf") for weight in value.values()
        ):
            raise ValueError("class weights by name must be numbers above 0")
        return value

    @field_validator("uncertain")
    @classmethod
    def _policies(cls, value: dict[str, str | float]) -> dict[str, str | float]:
        for policy in value.values():
            allowed = policy in POLICIES if isinstance(policy, str) else 0 <= policy <= 1
            if not allowed:
                raise ValueError(f"a policy is one of {', '.join(POLICIES)}, or a number 0 to 1")
        return value

    def __str__(self) -> str:
        """One line per field, with a note where it differs from the recipe of this name."""
        base = RECIPES.get(self.name, self)
        rows = [(key, value, getattr(base, key)) for key, value in self]
        lines = [
            f"  {key:17s} {value}" + ("" if value == original else f"   (changed from {original})")
            for key, value, original in rows
        ]
        return "\n".join([f"recipe {self.name}", *lines[1:]])


RECIPES: dict[str, Recipe] = {
    "default": Recipe(),
    # He et al. 2016, sections 3.4 and 4.2: SGD with momentum, weight decay 1e-4 in the loss,
    # learning rate 0.1 divided by 10 twice, a short warm-up.
    "paper": Recipe(
        name="paper",
        optimizer="sgd",
        learning_rate=0.1,
        weight_decay=1e-4,
        schedule="steps",
        batch_size=128,
        epochs=90,
    ),
    # He et al. 2016, section 4.2, in a shortened form: 64,000 updates there are 164 epochs of the
    # 50,000 images of CIFAR-10.
    "cifar": Recipe(
        name="cifar",
        optimizer="sgd",
        learning_rate=0.1,
        weight_decay=1e-4,
        schedule="steps",
        warmup=0.0,
        batch_size=128,
        epochs=30,
        augment="cifar",
    ),
    # After "ResNet strikes back" (Wightman et al. 2021), for thousands of images rather than a
    # million.
    "modern": Recipe(
        name="modern",
        weight_decay=0.05,
        warmup=3,
        epochs=60,
        ema=0.999,
        clip=1.0,
        mixup=0.2,
        smoothing=0.05,
        stochastic_depth=0.05,
    ),
    # The head first, then stage by stage from the last one; norm statistics stay those of the
    # pretraining.
    "finetune": Recipe(
        name="finetune",
        learning_rate=3e-4,
        epochs=20,
        ema=0.99,
        clip=1.0,
        freeze_norm=True,
        layer_decay=0.7,
        unfreeze=2,
    ),
    # Detectors: a clipped gradient, since the first batches have few positions that answer for a
    # box (Tian et al. 2019 warm up for the same reason).
    "detection": Recipe(
        name="detection",
        learning_rate=2e-3,
        weight_decay=1e-4,
        batch_size=8,
        clip=5.0,
        epochs=24,
    ),
    # For a few hundred images: strong weight decay, many short epochs, early stopping.
    "small": Recipe(
        name="small",
        learning_rate=5e-4,
        weight_decay=0.05,
        batch_size=16,
        epochs=100,
        patience=20,
        ema=0.99,
        clip=1.0,
        smoothing=0.05,
        stochastic_depth=0.1,
        class_weights="balanced",
    ),
}


def recipe(
    name: str | Recipe = "default", changes: Mapping[str, Any] | None = None, **overrides: Any
) -> Recipe:
    """The named recipe with some fields changed; a value of None leaves a field unchanged.

    Raises TrainingError (codes unknown_recipe, bad_setting).

    >>> recipe("paper", epochs=10).learning_rate
    0.1
    """
    if isinstance(name, str) and name not in RECIPES:
        raise TrainingError(
            f"recipe {name!r} is unknown: choose one of {', '.join(RECIPES)}",
            code="unknown_recipe",
        )
    base = RECIPES[name] if isinstance(name, str) else name
    changed = {
        key: value for key, value in {**(changes or {}), **overrides}.items() if value is not None
    }
    if unknown := [key for key in changed if key not in Recipe.model_fields]:
        raise TrainingError(
            "recipe: " + unknown_setting(str(unknown[0]), list(Recipe.model_fields)),
            code="bad_setting",
        )
    try:
        return Recipe.model_validate(base.model_dump() | changed)
    except ValidationError as error:
        sentence = first_field_error(error).sentence("recipe: setting")
        raise TrainingError(sentence, code="bad_setting") from None
