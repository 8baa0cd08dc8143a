"""Recipes: everything about a training run that is neither data nor model, as one frozen object
that prints itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medres.errors import TrainingError

POLICIES = ("ignore", "zero", "one", "soft")


class Recipe(BaseModel):
    """How to optimise.

    optimizer: "sgd" adds the decay to the gradient, as the paper does; "adamw" (Loshchilov & Hutter
        2019) and "lamb" (You et al. 2020) take it from the weights. weight_decay: on kernels only,
        never on biases and norms.
    learning_rate: peak rate, reached after `warmup` epochs (linear) and then lowered to 0 by a
        cosine (Loshchilov & Hutter 2017) or divided by 10 after 1/2 and 3/4 of all steps ("steps",
        He et al. 2016 on CIFAR-10).
    accumulate: batches whose mean gradient makes one update. clip: greatest global norm of the
        gradient; 0 is none.
    ema: momentum of the moving average of weights and norm statistics that is measured and kept; 0
        is none. It starts fast: min(ema, (1 + n) / (10 + n)) at update n.
    augment: a name of data_pipelines.augment.PRESETS, or "auto": chest_xray for radiographs,
        ct_slice for CT slices and stacks, ct_volume for volumes.
    mixup, cutmix: alpha of Beta(alpha, alpha) by which pairs of images are mixed (Zhang et al.
        2018) or pasted into each other (Yun et al. 2019); 0 is what the augmentation preset says.
    smoothing: label smoothing s: 1 becomes 1 - s/2 and 0 s/2 (classes: s is shared among all;
        Szegedy et al. 2016).
    focal: exponent gamma of the focal loss (Lin et al. 2017); 0 is cross-entropy.
    ordinal: the classes from lowest to highest; the loss is then the mean cross-entropy of "above
        this class?" over the cuts.
    stochastic_depth: rate at the last block, rising linearly (Huang et al. 2016). patience: epochs
        without a lower tuning loss after which training ends; 0 is never.
    class_weights: "balanced" weighs each class of each finding by the inverse of its frequency in
        the training split; or weights by name, of a finding's positives or of a class.
    uncertain: what a label of -1 is in training, by finding ("*": all others): ignore, zero, one,
        soft (1/2), or a number 0..1. CheXpert's U-policies (Irvin et al. 2019). Tuning and test
        never use uncertain labels.
    freeze_norm: norm layers keep the statistics and scales they start with. layer_decay: rate of
        each stage over the rate of the stage after it (the head has the full one). unfreeze: n
        trains the head alone for n epochs, then one stage more every n.
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
    freeze_norm: bool = False
    layer_decay: float = Field(1.0, gt=0, le=1)
    unfreeze: int = Field(0, ge=0)

    @field_validator("class_weights")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        if isinstance(value, dict) and not all(
            0 < weight < float("inf") for weight in value.values()
        ):
            raise ValueError("weights by name are numbers above 0")
        return value

    @field_validator("uncertain")
    @classmethod
    def _policies(cls, value: dict[str, str | float]) -> dict[str, str | float]:
        for policy in value.values():
            known = policy in POLICIES if isinstance(policy, str) else 0 <= policy <= 1
            if not known:
                raise ValueError(f"a policy is one of {', '.join(POLICIES)}, or a number 0..1")
        return value

    def __str__(self) -> str:
        """The fields, one a line, with a mark where they differ from the recipe of that name."""
        base = RECIPES.get(self.name, self)
        rows = [(key, value, getattr(base, key)) for key, value in self]
        lines = [
            f"  {key:17s} {value}" + ("" if value == own else f"   (changed from {own})")
            for key, value, own in rows
        ]
        return "\n".join([f"recipe {self.name}", *lines[1:]])


RECIPES: dict[str, Recipe] = {
    "default": Recipe(),
    # He et al. 2016, sections 3.4 and 4.2: SGD with momentum, decay 1e-4 in the loss, rate 0.1
    # divided by 10, a short warm-up.
    "paper": Recipe(
        name="paper",
        optimizer="sgd",
        learning_rate=0.1,
        weight_decay=1e-4,
        schedule="steps",
        batch_size=128,
        epochs=90,
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
    # Head first, then stage by stage from the last; norm statistics stay those of the pretraining.
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
    # Few hundred images: strong decay, many short epochs, stopped when the tuning loss no longer
    # falls.
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
    name: str | Recipe = "default", changes: Mapping[str, Any] | None = None, **further: Any
) -> Recipe:
    """The named recipe with some fields changed; None leaves a field as it is. Raises TrainingError
    for unknown names or values.
    """
    if isinstance(name, str) and name not in RECIPES:
        raise TrainingError(f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}")
    base = RECIPES[name] if isinstance(name, str) else name
    wanted = {
        key: value for key, value in ({**(changes or {}), **further}).items() if value is not None
    }
    try:
        return Recipe.model_validate(base.model_dump() | wanted)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        hint = (
            ""
            if field in Recipe.model_fields
            else f"; the fields are {', '.join(Recipe.model_fields)}"
        )
        raise TrainingError(
            f"recipe, field {field}: {first['msg']}; received {first['input']!r}{hint}"
        ) from None
