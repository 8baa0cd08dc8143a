"""What a run is: its options, its configuration, and the refusals before the first step."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_pipelines.augment import AugmentSpec, augmentation
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.kinds import image_kind
from data_pipelines.preprocessing.spec import PreprocessSpec, spec_from
from data_pipelines.runtime.atomic_files import file_sha256, write_atomic
from medres.errors import EvaluationError, TrainingError
from medres.evaluate.metrics.thresholds import criterion
from medres.training.config.recipe import Recipe
from medres.training.config.recipe import recipe as recipe_of

DEFAULT_WINDOWS = ["lung", "mediastinum", "bone"]
SMALL_SIDE = 64


class RunOptions(BaseModel):
    """Everything of a run that is no field of its recipe.

    model: resnet18, resnet34, resnet50, ..., or a .keras file with a backbone of one's own. preset:
        a name or spec of data_pipelines.preprocessing.spec; None is xray-224 or ct-256, after the
        manifest. recipe: the name to start from.
    version, width: see medres.backbones. stem: None is "small" up to 64 px, else "imagenet".
        windows: CT only; None is lung, mediastinum and bone.
    weights: a file to start from (`load_pretrained`): another run's model.keras,
        keras.applications, torchvision, RadImageNet, ...
    scaling: what those weights expect ("imagenet", "caffe"), folded into the stem; None: what a
        medres model receives.
    precision: "float32", "mixed_bfloat16", or "auto": the faster of both in a short self-test,
        where the machine has bfloat16.
    calibration: of probabilities, on the tuning split. operating_points: name -> criterion, as in
        {"screening": "sensitivity:0.95"}; see medres.evaluate.metrics.thresholds. alpha: error rate
        of the conformal sets; 0: none.
    views: 5 adds test-time augmentation, four shifted copies of an image (see
        medres.models.test_time_augmentation), to the saved model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = "resnet18"
    preset: str | dict[str, Any] | PreprocessSpec | None = None
    recipe: str | Recipe = "default"
    seed: int = Field(0, ge=0)
    version: str = "1.5"
    stem: str | None = None
    width: int | None = None
    windows: list[str | tuple[float, float]] | None = None
    weights: Path | None = None
    scaling: Literal["imagenet", "caffe"] | None = None
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    calibration: Literal["platt", "temperature", "none"] = "platt"
    operating_points: dict[str, str] = {}
    alpha: float = Field(0.1, ge=0, lt=1)
    views: Literal[1, 5] = 1


def resolve_settings(
    config: Path | str | Mapping[str, Any] | None, given: Mapping[str, Any]
) -> tuple[RunOptions, Recipe]:
    """Options and recipe from a file or mapping, overridden by what was given (None: not given).

    Raises TrainingError for a key that is neither an option nor a field of the recipe, and for a
    value that cannot be.
    """
    merged = read_config(config) | {key: value for key, value in given.items() if value is not None}
    known = [*RunOptions.model_fields, *Recipe.model_fields]
    for key in merged:
        if key not in known or key == "name":
            near = difflib.get_close_matches(str(key), known, 1)
            raise TrainingError(
                f"there is no setting {key!r}"
                + (f": did you mean {near[0]!r}?" if near else f": {', '.join(known)}")
            )
    try:
        options = RunOptions.model_validate(
            {key: merged[key] for key in RunOptions.model_fields if key in merged}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise TrainingError(
            f"setting {first['loc'][0]}: {first['msg']}; received {first['input']!r}"
        ) from None
    try:
        for name, text in options.operating_points.items():
            criterion(text, name)
    except EvaluationError as error:
        raise TrainingError(str(error)) from None
    return options, recipe_of(
        options.recipe, {key: merged[key] for key in Recipe.model_fields if key in merged}
    )


def read_config(config: Path | str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings by name from a YAML or JSON file (as `medres plan` writes), or a mapping. Raises
    TrainingError.
    """
    if config is None or isinstance(config, Mapping):
        return dict(config or {})
    path = Path(config)
    try:
        found = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        raise TrainingError(
            f"{path} is no YAML or JSON{f', line {where.line + 1}' if where else ''}"
        ) from None
    if not isinstance(found, dict):
        raise TrainingError(f"{path} holds no settings: write them as NAME: VALUE, one a line")
    return found


def preprocessing(preset: str | dict | PreprocessSpec | None, manifest: Manifest) -> PreprocessSpec:
    if preset is not None:
        return spec_from(preset)
    kinds = manifest.table["kind"].unique()
    if len(kinds) != 1:
        raise TrainingError(
            "the work folder holds radiographs and CT: say which to train on, for instance "
            "--preset xray-224 or --preset ct-256"
        )
    return spec_from(image_kind(kinds[0]).default_preset)


def configuration(
    options: RunOptions, chosen: Recipe, spec: PreprocessSpec, *, backbone: str | None = None
) -> dict[str, Any]:
    """Everything that decides the result, JSON-able; two runs with equal configurations are the
    same run.

    backbone: SHA-256 of a backbone of one's own, which stands in for the variant.
    """
    windows = options.windows
    if spec.kind != "ct" and windows is not None:
        raise TrainingError(
            "windows are for CT: a radiograph's window is part of the image and was applied "
            "before the cache"
        )
    if (chosen.unfreeze or chosen.freeze_norm) and options.weights is None and backbone is None:
        raise TrainingError(
            f"recipe {chosen.name} freezes layers, and the net starts from random weights: give "
            f"--weights FILE, or another recipe"
        )
    if options.scaling is not None and options.weights is None:
        raise TrainingError(
            "scaling says what pretrained weights expect: give --weights FILE as well"
        )
    network: dict[str, Any] = {
        "variant": options.model,
        "version": options.version,
        "width": options.width,
    }
    network["stem"] = options.stem or (
        "small" if max(spec.rows, spec.cols) <= SMALL_SIDE else "imagenet"
    )
    network["windows"] = DEFAULT_WINDOWS if spec.kind == "ct" and windows is None else windows
    if backbone is not None:
        network |= {"variant": "backbone", "backbone_sha256": backbone}
    augment = spec.default_augmentation if chosen.augment == "auto" else chosen.augment
    augment_spec(chosen.model_copy(update={"augment": augment}), spec)
    return {
        "schema": "medres.run/1",
        "model": network,
        "preprocess": spec.model_dump(),
        "recipe": chosen.model_copy(update={"augment": augment}).model_dump(),
        "seed": options.seed,
        "weights_sha256": None if options.weights is None else file_sha256(options.weights),
        "scaling": options.scaling,
        "after": options.model_dump(include={"calibration", "operating_points", "alpha", "views"}),
    }


def augment_spec(chosen: Recipe, spec: PreprocessSpec) -> AugmentSpec:
    """What happens to training images: the recipe's preset in the units of `spec`, with the
    recipe's mixup or cutmix.
    """
    pairs = {
        name: value for name, value in (("mixup", chosen.mixup), ("cutmix", chosen.cutmix)) if value
    }
    preset = augmentation(chosen.augment, image_kind(spec.kind).units.name)
    if not pairs:
        return preset
    if len(pairs) > 1:
        raise TrainingError("recipe, fields mixup and cutmix: choose one of them")
    return AugmentSpec.model_validate(preset.model_dump() | {"mixup": 0.0, "cutmix": 0.0} | pairs)


def existing_config(out: Path) -> dict[str, Any]:
    """The configuration of the run in `out`, or {}."""
    file = out / "config.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def claim_run_folder(out: Path, config: dict[str, Any]) -> None:
    """Make `out` ours: new, or an earlier run of the same configuration."""
    file, config = out / "config.json", json.loads(json.dumps(config, allow_nan=False))
    if file.exists():
        before = existing_config(out)
        changed = sorted(key for key in config if before.get(key) != config[key])
        if changed:
            raise TrainingError(
                f"{out} holds a run with another {', '.join(changed)}: train into a new folder, "
                f"or repeat the same command to resume"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out} exists and is no run of medres: give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(config, indent=1).encode())
