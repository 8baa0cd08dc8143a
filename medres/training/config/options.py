"""The options of a run, its configuration (config.json), and the checks of both before the first
training step. Defaults of the options are the fields of `RunOptions`; those of the optimization are
in medres.training.config.recipe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_pipelines.augment import AugmentSpec, augmentation
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.kinds import SIGNED, image_kind
from data_pipelines.preprocessing.spec import PreprocessSpec, spec_from
from data_pipelines.runtime.atomic_files import write_atomic
from data_pipelines.runtime.field_errors import first_field_error
from medres.backbones.variants import variant_name
from medres.backbones.weights.cached_files import WeightsFile, weights_file
from medres.backbones.weights.table import is_named
from medres.errors import EvaluationError, TrainingError
from medres.evaluate.metrics.thresholds import criterion
from medres.tasks import TASKS, Task, TaskOption, annotated_task
from medres.training.config.recipe import Recipe
from medres.training.config.recipe import recipe as recipe_of
from medres.training.config.suggestions import unknown_setting

DEFAULT_WINDOWS = ["lung", "mediastinum", "bone"]
SMALL_SIDE = 64  # px, up to which the stem is "small"
LATER_FIELD = "norm"  # of recipes; earlier runs have its default
MAX_DIFFERENCES = 6  # named in a message
OPTIONAL = (
    "monitor",
    "metrics",
    "task",
    "segmentation",
    "detection",
)  # in config.json only where they are not the default


class RunOptions(BaseModel):
    """All settings of a run that are not fields of its recipe, with their defaults.

    model: resnet18, resnet34, densenet121, ..., or a .keras file with your own backbone.
    preset: the name of a preprocessing preset, or a spec of data_pipelines.preprocessing.spec;
        None: xray-224 or ct-256, according to the manifest.
    recipe: the name of the recipe to start from.
    version, width: see medres.backbones.
    shortcut: "A" (no weights, as MedicalNet's resnet18 and resnet34 need), "B" or "C" of He et al.
        2016; None: "B". Of a ResNet only.
    stem: None: "small" for images up to 64 px, otherwise "imagenet".
    windows: for CT only, names or (center, width) in HU; None: lung, mediastinum and bone.
    weights: "imagenet" or another name of `medres weights`, or a file with initial weights
        (`load_pretrained`): model.keras of another run, keras.applications, torchvision, ...
    scaling: the input scaling that the weights of a file expect ("imagenet" or "caffe"), which is
        folded into the stem; None: -1 to 1, as in medres models.
    precision: "float32", "mixed_bfloat16", or "auto": the faster one in a short benchmark, where
        the machine supports bfloat16.
    calibration: of probabilities, on the tuning (validation) split.
    operating_points: criteria by name, for instance {"screening": "sensitivity:0.95"}; see
        medres.evaluate.metrics.thresholds.
    alpha: error rate of the conformal sets; 0: no conformal sets.
    monitor: chooses the epoch that is saved, on the tuning (validation) split: "loss" (lowest),
        "auc" (highest), "dice" (highest, of a segmenter), "ap50" (highest, of a detector and its
        default) or "froc", or the name of a metric of `metrics` in
        medres.train; NAME:min or NAME:max gives the direction where it is not known. Early stopping
        counts by it too.
    views: 5 adds test-time augmentation with four shifted copies of the image to the saved model
        (see medres.models.test_time_augmentation).
    task: "classification", or "segmentation", which learns the label maps of a work folder that was
        ingested with masks, or "detection", which learns its boxes. The next five settings are for
        segmentation, those after them for detection.
    decoder: "unet" (default), "fpn" or, in 2D, "deeplabv3+".
    loss: "dice_crossentropy" (default), "tversky" or "focal"; see medres.losses.
    patch: (rows, columns) or (slices, rows, columns), if the network is to see a part of each image
        at a time; prediction then slides it over the image. None: whole images.
    foreground: share of the patches that hold foreground; the others are anywhere.
    flips: test-time flips, each the axes along which an image ([slices,] rows, columns) is flipped
        once more, such as [[1], [0, 1]]; the model answers with the mean. Not along the axis of
        left and right where these are classes of their own.
    levels, channels, head_depth: of `medres.detector`; None: its defaults.
    fp_per_image: most false positives per image of the tuning split at the threshold of each class
        that is frozen in the card.
    deep_supervision: the loss also counts at coarser maps, in training alone; the saved model has
        one output. For segmentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = "resnet18"
    preset: str | dict[str, Any] | PreprocessSpec | None = None
    recipe: str | Recipe = "default"
    seed: int = Field(0, ge=0)
    version: str = "1.5"
    shortcut: Literal["A", "B", "C"] | None = None
    stem: str | None = None
    width: int | None = None
    windows: list[str | tuple[float, float]] | None = None
    weights: str | Path | None = None
    scaling: Literal["imagenet", "caffe"] | None = None
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    calibration: Literal["platt", "temperature", "none"] = "platt"
    operating_points: dict[str, str] = {}
    alpha: float = Field(0.1, ge=0, lt=1)
    monitor: str = "loss"
    views: Literal[1, 5] = 1
    task: TaskOption = "classification"
    decoder: str = "unet"
    loss: Literal["dice_crossentropy", "tversky", "focal"] = "dice_crossentropy"
    patch: tuple[int, ...] | None = None
    foreground: float = Field(1 / 3, ge=0, le=1)
    flips: tuple[tuple[int, ...], ...] = ()
    levels: tuple[int, ...] | None = None
    channels: int | None = Field(None, ge=1)
    head_depth: int | None = Field(None, ge=0)
    fp_per_image: float = Field(1.0, gt=0, allow_inf_nan=False)
    deep_supervision: bool = False


def resolve_settings(
    config: Path | str | Mapping[str, Any] | None, overrides: Mapping[str, Any]
) -> tuple[RunOptions, Recipe]:
    """Options and recipe from a file or a mapping, with overrides (None: not overridden).

    Raises TrainingError (codes unknown_setting, bad_setting) for a key that is neither an option
    nor a field of the recipe, and for a value that is not allowed. `recipe` may be the fields of a
    recipe, as they stand in config.json.

    >>> options, recipe = resolve_settings({"recipe": "small", "seed": 4}, {"epochs": 30})
    >>> options.seed, recipe.name, recipe.epochs, recipe.batch_size
    (4, 'small', 30, 16)
    """
    merged = read_config(config) | {
        key: value for key, value in overrides.items() if value is not None
    }
    task = annotated_task(str(merged.get("task")))
    if task is not None:
        merged = {"recipe": task.recipe, "monitor": task.monitor} | merged
    names = [name for name in [*RunOptions.model_fields, *Recipe.model_fields] if name != "name"]
    for key in merged:
        if key not in names:
            raise TrainingError(unknown_setting(str(key), names), code="unknown_setting")
    if isinstance(merged.get("recipe"), Mapping):  # from JSON
        merged["recipe"] = recipe_of("default", merged["recipe"])
    try:
        options = RunOptions.model_validate(
            {key: merged[key] for key in RunOptions.model_fields if key in merged}
        )
    except ValidationError as error:
        sentence = first_field_error(error).sentence("setting")
        raise TrainingError(sentence, code="bad_setting") from None
    try:
        for name, text in options.operating_points.items():
            criterion(text, name)
    except EvaluationError as error:
        raise TrainingError(f"setting operating_points: {error}", code="bad_setting") from None
    return options, recipe_of(
        options.recipe, {key: merged[key] for key in Recipe.model_fields if key in merged}
    )


def read_config(config: Path | str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings by name from a YAML or JSON file (as `medres plan` writes it), or from a mapping.
    Raises TrainingError (code unreadable_config).
    """
    if config is None or isinstance(config, Mapping):
        return dict(config or {})
    path = Path(config)
    try:
        settings = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise TrainingError(
            f"{path} is not valid YAML or JSON{f', line {mark.line + 1}' if mark else ''}",
            code="unreadable_config",
        ) from None
    if not isinstance(settings, dict):
        raise TrainingError(
            f"{path} has no settings: write each one as NAME: VALUE on a line of its own",
            code="unreadable_config",
        )
    return settings


def preprocessing(preset: str | dict | PreprocessSpec | None, manifest: Manifest) -> PreprocessSpec:
    """The spec of a run; None: the default preset of the kind of image in the manifest."""
    if preset is not None:
        return spec_from(preset)
    kinds = manifest.table["kind"].unique()
    if len(kinds) != 1:
        raise TrainingError(
            f"the work folder has images of several kinds ({', '.join(sorted(kinds))}): choose one "
            f"with --preset, for instance "
            f"{' or '.join(image_kind(kind).default_preset for kind in sorted(kinds))}",
            code="several_kinds",
        )
    return spec_from(image_kind(kinds[0]).default_preset)


def configuration(
    options: RunOptions, chosen: Recipe, spec: PreprocessSpec, *, backbone: str | None = None
) -> dict[str, Any]:
    """The content of config.json: everything that determines the result. Two runs with equal
    configurations are the same run.

    backbone: SHA-256 of the user's backbone, which replaces the variant.
    """
    kind = image_kind(spec.kind)
    has_windows = kind.has_windows
    if options.windows is not None and not has_windows:
        raise TrainingError(
            f"setting windows: windows are for CT, and the images are of kind {spec.kind}: their "
            f"values are final in the cache; remove the setting",
            code="no_windows",
        )
    if (chosen.unfreeze or chosen.freeze_norm) and options.weights is None and backbone is None:
        raise TrainingError(
            f"recipe {chosen.name} freezes layers, but the model starts from random weights: give "
            f"--weights FILE, or choose another recipe",
            code="no_weights",
        )
    if options.scaling is not None and kind.input_scaling is not SIGNED:
        raise TrainingError(
            f"setting scaling: {kind.name} images enter the network with the scaling "
            f"{kind.input_scaling.name!r}, and no other can be folded into the weights; remove the "
            f"setting",
            code="kind_scaling",
        )
    if options.scaling is not None and options.weights is None:
        raise TrainingError(
            "setting scaling: it describes pretrained weights; give --weights FILE as well",
            code="no_weights",
        )
    network: dict[str, Any] = {
        "variant": options.model,
        "version": options.version,
        "width": options.width,
    }
    is_small = max(spec.rows, spec.cols) <= SMALL_SIDE and not is_named(options.weights)
    network["stem"] = options.stem or ("small" if is_small else "imagenet")
    network["windows"] = (
        DEFAULT_WINDOWS if has_windows and options.windows is None else options.windows
    )
    if kind.input_scaling is not SIGNED:
        network["image_scaling"] = kind.input_scaling.name
    if chosen.norm != Recipe.model_fields["norm"].default:
        network["norm"] = _own_norm(chosen.norm, backbone)
    if options.shortcut is not None:
        network |= _shortcut(options.shortcut, options.model, backbone)
    if backbone is not None:
        network |= {"variant": "backbone", "backbone_sha256": backbone}
    task = annotated_task(options.task)
    network |= _network_settings(options, task)
    usual = (task and task.augmentation) or spec.default_augmentation
    augment = usual if chosen.augment == "auto" else chosen.augment
    augment_spec(chosen.model_copy(update={"augment": augment}), spec)
    start = initial_weights(options, backbone)
    if start is not None and start.input_scaling not in (None, network.get("image_scaling")):
        network["input_scaling"] = start.input_scaling
    return {
        "schema": "medres.run/1",
        "model": network,
        "preprocess": spec.model_dump(),
        "recipe": chosen.model_copy(update={"augment": augment}).model_dump(),
        "seed": options.seed,
        "weights_sha256": None if start is None else start.sha256,
        **({} if start is None else {"weights_source": start.source}),
        "scaling": options.scaling,
        "after": options.model_dump(include={"calibration", "operating_points", "alpha", "views"}),
        **_task_settings(options, task),
    }


def _shortcut(shortcut: str, model: str, backbone: str | None) -> dict[str, str]:
    """Options of the backbone. The zeros of shortcut A stand at the end, as in MedicalNet. Raises
    TrainingError (code bad_setting) if the network is no ResNet of medres.
    """
    if backbone is not None or variant_name(model).startswith("densenet"):
        raise TrainingError(
            f"setting shortcut: {shortcut!r} is for a ResNet that medres builds, and the model is "
            f"{'a backbone of your own' if backbone is not None else model}: leave it out",
            code="bad_setting",
        )
    return {"shortcut": shortcut} | ({"channel_padding": "end"} if shortcut == "A" else {})


def _own_norm(norm: str, backbone: str | None) -> str:
    """Raises TrainingError (code bad_setting) where the user's backbone has its own norms."""
    if backbone is not None:
        raise TrainingError(
            f"recipe, field norm: {norm!r} is for networks that medres builds, and this run has a "
            f"backbone of its own with its own normalization; remove the field",
            code="bad_setting",
        )
    return norm


#: options of annotated tasks that are part of the network, with `model` of config.json
_OF_NETWORK = ("decoder", "patch", "levels", "channels", "head_depth")


def _network_settings(options: RunOptions, task: Task | None) -> dict[str, Any]:
    names = [name for name in _OF_NETWORK if task is not None and name in task.options]
    values = {name: getattr(options, name) for name in names}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _task_settings(options: RunOptions, task: Task | None) -> dict[str, Any]:
    """Raises TrainingError (code other_task) for a setting of another task."""
    for other in TASKS.values():
        title = other.name if other.is_annotated else "classification"
        if title == options.task:
            continue
        for name in other.options:
            if getattr(options, name) != RunOptions.model_fields[name].default:
                raise TrainingError(
                    f"setting {name}: it is for {title}, and this run has the task "
                    f"{options.task}; remove the setting, or choose --task {title}",
                    code="other_task",
                )
    if task is None:
        return {}
    own = {name for name in task.options if name not in _OF_NETWORK}
    for later in ("deep_supervision", "flips"):  # older runs do not have them in config.json
        own -= set() if getattr(options, later) else {later}
    return {"task": options.task, task.name: options.model_dump(include=own)}


def initial_weights(options: RunOptions, backbone: str | None) -> WeightsFile | None:
    """The file of the weights from which a run starts, downloaded if it is one of the table; None
    for random weights. Raises TrainingError (code no_weights), WeightsError.
    """
    if options.weights is None:
        return None
    if is_named(options.weights) and (backbone is not None or options.scaling is not None):
        reason = (
            "a backbone of your own has its own weights: give them to "
            'medres.backbones.resnet(..., weights="imagenet")'
            if backbone is not None
            else "they bring their own scaling: remove the setting scaling"
        )
        raise TrainingError(f"weights {options.weights!r}: {reason}", code="bad_setting")
    return weights_file(options.weights, variant_name(options.model))


def augment_spec(chosen: Recipe, spec: PreprocessSpec) -> AugmentSpec:
    """The augmentation of training images: the recipe's preset in the units of `spec`, with the
    mixup or cutmix of the recipe.
    """
    pairs = {
        name: value for name, value in (("mixup", chosen.mixup), ("cutmix", chosen.cutmix)) if value
    }
    preset = augmentation(chosen.augment, image_kind(spec.kind).units.name)
    if not pairs:
        return preset
    if len(pairs) > 1:
        raise TrainingError(
            "recipe, fields mixup and cutmix: both are above 0; set one of them to 0",
            code="bad_setting",
        )
    return AugmentSpec.model_validate(preset.model_dump() | {"mixup": 0.0, "cutmix": 0.0} | pairs)


def existing_config(out: Path) -> dict[str, Any]:
    """The configuration of the run in `out`, or {}."""
    file = out / "config.json"
    config = json.loads(file.read_text()) if file.is_file() else {}
    if "recipe" in config:
        config["recipe"].setdefault(LATER_FIELD, Recipe.model_fields[LATER_FIELD].default)
    return config


def before_later_field(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as it was written before recipes had the field norm."""
    recipe = {name: value for name, value in config["recipe"].items() if name != LATER_FIELD}
    return {**config, "recipe": recipe}


def claim_run_folder(out: Path, config: dict[str, Any]) -> None:
    """Create `out` with config.json, or accept an existing run with the same configuration. Raises
    TrainingError (codes other_run, not_a_run) for any other folder.

    An existing run whose number of epochs is lower, with otherwise equal settings, is continued:
    its number goes into the list `continued` of config.json.
    """
    file, config = out / "config.json", json.loads(json.dumps(config, allow_nan=False))
    if file.exists():
        existing = existing_config(out)
        if raises_epochs(existing, config):
            earlier = [*existing.get("continued", []), existing["recipe"]["epochs"]]
            existing |= {"recipe": config["recipe"], "continued": earlier}
            write_atomic(file, json.dumps(existing, indent=1).encode())
        elif not _same_run(existing, config):
            raise TrainingError(
                f"the existing run in {out} has different settings: "
                f"{_differences(existing, config)}. Train into a new folder, or repeat the "
                f"original command to resume",
                code="other_run",
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(
            f"{out} exists and is not a run of medres: choose a new folder", code="not_a_run"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(config, indent=1).encode())


def raises_epochs(existing: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a configuration is that of an existing run ({}: there is none) with more epochs."""
    if not existing or existing["recipe"]["epochs"] >= config["recipe"]["epochs"]:
        return False
    return _same_run(
        existing, json.loads(json.dumps(with_epochs(config, existing["recipe"]["epochs"])))
    )


def with_epochs(config: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """A configuration with another number of epochs."""
    return {**config, "recipe": {**config["recipe"], "epochs": epochs}}


def minutes(budget: float | str) -> float:
    """A time budget in minutes, from minutes or from a text with s, m or h. Raises TrainingError
    (code bad_setting).

    >>> minutes("90s"), minutes("2h"), minutes(30)
    (1.5, 120.0, 30.0)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([smh]?)\s*", str(budget).lower())
    if match is None or not 0 < float(match[1]) < 1e7:
        raise TrainingError(
            f"time budget: give minutes above 0, or a text such as 90s, 30m or 2h; received "
            f"{str(budget)[:40]!r}",
            code="bad_setting",
        )
    return float(match[1]) * {"s": 1 / 60, "m": 1.0, "h": 60.0, "": 1.0}[match[2]]


def record_end(out: Path, stopped: Mapping[str, Any] | None) -> None:
    """Write why a run ended early into its config.json, or remove what an earlier call wrote."""
    config = existing_config(out)
    if config.get("stopped") != stopped:
        config.pop("stopped", None)
        config |= {"stopped": stopped} if stopped else {}
        write_atomic(out / "config.json", json.dumps(config, indent=1).encode())


def _same_run(existing: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    names = {*config, *OPTIONAL}
    return all(existing.get(name) == config.get(name) for name in names)


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as pairs such as ("recipe.epochs", 15).

    >>> dict(flattened({"seed": 0, "recipe": {"epochs": 15}}))
    {'seed': 0, 'recipe.epochs': 15}
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _differences(existing: dict[str, Any], requested: dict[str, Any]) -> str:
    """The settings that differ: "epochs 2, requested 4; seed 0, requested 1"."""
    before, after = dict(flattened(existing)), dict(flattened(requested))
    names = [
        name
        for name in sorted(before.keys() | after.keys())
        if name.partition(".")[0] in {*requested, *OPTIONAL} and before.get(name) != after.get(name)
    ]
    changes = [
        f"{name.removeprefix('recipe.').removeprefix('after.')} {_short(before.get(name))}, "
        f"requested {_short(after.get(name))}"
        for name in names[:MAX_DIFFERENCES]
    ]
    if len(names) > MAX_DIFFERENCES:
        changes.append(f"and {len(names) - MAX_DIFFERENCES} more")
    return "; ".join(changes)


def _short(value: object) -> str:
    """A value in a message; of a hash, the first digits."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
