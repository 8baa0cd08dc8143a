"""A proposal for the settings of a run, from the manifest and the machine, by one table of rules.
Each setting has a reason; nothing is searched or tried.

The first rule of a setting that applies is used. A reason may name fields of the fingerprint.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf
import yaml

from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.kinds import image_kind
from medres.backbones.dense.variants import DENSENETS
from medres.errors import TrainingError
from medres.tasks import TASKS
from medres.training.checks import check_classes
from medres.training.config.options import SMALL_SIDE
from medres.training.config.recipe import RECIPES

UPDATES = 4000  # optimizer steps that a run should have, within 10 to 100 epochs
# MiB of all layer outputs of one 224 x 224 image in float32, by variant (summed over the built
# models); the gradients need the same again.
OUTPUTS_224 = {
    "resnet10": 28,
    "resnet18": 36,
    "resnet34": 53,
    "resnet50": 150,
    "resnet101": 227,
    "resnet152": 316,
    "densenet121": 195,
    "densenet161": 362,
    "densenet169": 234,
    "densenet201": 300,
    "densenet264": 408,
}
# Factors for the small stem, which has no stride (measured at 28 px, and at 224 px).
SMALL_STEM, SMALL_STEM_DENSE = 12, 15


@dataclass(frozen=True)
class Fingerprint:
    """The input of the rules.

    kind, task: as in the manifest. images, patients: of the training split. findings: number of
    findings or classes. side: median of the shorter image side in pixels. spacing_mm: median row
    spacing. slices: median number of images per series. rarest: smallest share of a class, or of
    the positives or negatives of a finding, among the labelled training images. uncertain: number
    of labels of -1. gpu: whether TensorFlow sees one. memory_gib: of the device that trains.
    """

    kind: str
    task: str
    images: int
    patients: int
    tune_patients: int
    findings: int
    side: int
    spacing_mm: float | None
    slices: int
    rarest: float
    uncertain: int
    gpu: bool
    memory_gib: float


@dataclass(frozen=True)
class Rule:
    """`setting` becomes `value`, or the result of `value`, where `applies` is true. Both functions
    receive the fingerprint and the settings that were chosen by earlier rules.
    """

    setting: str
    applies: Callable[[Fingerprint, dict[str, Any]], bool]
    value: Any
    reason: str


def always(fingerprint: Fingerprint, chosen: dict[str, Any]) -> bool:
    return True


def is_dense(fingerprint: Fingerprint, chosen: dict[str, Any]) -> bool:
    """Whether a DenseNet was requested."""
    return chosen["model"] in DENSENETS


def preset_name(fingerprint: Fingerprint, chosen: dict[str, Any]) -> str:
    """The preset of the kind's default layout with the chosen side: "xray-224"."""
    prefix = image_kind(fingerprint.kind).default_preset.rpartition("-")[0]
    return f"{prefix}-{chosen['side']}"


RULES: tuple[Rule, ...] = (
    Rule(
        "side",
        lambda fingerprint, chosen: fingerprint.side <= 96,
        lambda fingerprint, chosen: max(16, fingerprint.side),
        "the images have {side} px: they are not enlarged",
    ),
    Rule(
        "side",
        lambda fingerprint, chosen: not fingerprint.gpu,
        128,
        "no GPU: epochs are short with 128 px",
    ),
    Rule(
        "side",
        lambda fingerprint, chosen: image_kind(fingerprint.kind).has_series,
        256,
        "half of the usual 512 px: a nodule of 4 mm still covers several pixels",
    ),
    Rule(
        "side",
        lambda fingerprint, chosen: fingerprint.images >= 20000 and fingerprint.side >= 320,
        320,
        "{images} training images: enough to learn fine detail",
    ),
    Rule("side", always, 224, "the usual size of radiograph classifiers and of pretrained weights"),
    Rule(
        "preset",
        always,
        preset_name,
        "kind of image: {kind}",
    ),
    Rule(
        "model",
        lambda fingerprint, chosen: not fingerprint.gpu,
        "resnet18",
        "no GPU: the smallest of the usual models",
    ),
    Rule(
        "model",
        lambda fingerprint, chosen: fingerprint.patients < 2000,
        "resnet18",
        "{patients} training patients: a deeper model would overfit",
    ),
    Rule(
        "model",
        lambda fingerprint, chosen: fingerprint.images < 20000,
        "resnet34",
        "{images} training images",
    ),
    Rule("model", always, "resnet50", "{images} training images"),
    Rule(
        "width",
        lambda fingerprint, chosen: (
            fingerprint.patients < 100 and not is_dense(fingerprint, chosen)
        ),
        32,
        "{patients} training patients: half of the usual channels",
    ),
    Rule(
        "recipe",
        lambda fingerprint, chosen: fingerprint.patients < 500,
        "small",
        "{patients} training patients: strong weight decay and early stopping",
    ),
    Rule(
        "recipe",
        lambda fingerprint, chosen: fingerprint.images < 5000,
        "default",
        "{images} training images: AdamW with a cosine schedule",
    ),
    Rule(
        "recipe",
        always,
        "modern",
        "{images} training images: long schedule, averaged weights, stochastic depth",
    ),
    Rule(
        "stochastic_depth",
        lambda fingerprint, chosen: (
            is_dense(fingerprint, chosen) and RECIPES[chosen["recipe"]].stochastic_depth > 0
        ),
        0.0,
        "a DenseNet has no residual branches that could be left out",
    ),
    Rule(
        "class_weights",
        lambda fingerprint, chosen: fingerprint.rarest < 0.1,
        "balanced",
        "the rarest class has {rarest:.1%} of the labels",
    ),
    Rule(
        "class_weights",
        always,
        "none",
        "the rarest class has {rarest:.1%} of the labels: no weights needed",
    ),
    Rule(
        "uncertain",
        lambda fingerprint, chosen: fingerprint.uncertain > 0,
        {"*": "ignore"},
        "{uncertain} uncertain labels: not used in training",
    ),
    Rule(
        "batch_size",
        always,
        lambda fingerprint, chosen: batch_size_and_accumulation(fingerprint, chosen)[0],
        "fits into half of {memory_gib:.0f} GiB; at least 8 batches per epoch",
    ),
    Rule(
        "accumulate",
        lambda fingerprint, chosen: batch_size_and_accumulation(fingerprint, chosen)[1] > 1,
        lambda fingerprint, chosen: batch_size_and_accumulation(fingerprint, chosen)[1],
        "the recipe's batch size does not fit into memory: gradients are accumulated",
    ),
    Rule(
        "epochs",
        always,
        lambda fingerprint, chosen: epoch_count(fingerprint, chosen),
        "about 4,000 updates, within 10 to 100 epochs",
    ),
)


class Facts(Protocol):
    """What every fingerprint has; see `Fingerprint`."""

    @property
    def kind(self) -> str: ...
    @property
    def images(self) -> int: ...
    @property
    def patients(self) -> int: ...
    @property
    def tune_patients(self) -> int: ...


@dataclass(frozen=True)
class TrainingProposal:
    """Settings for `medres train --config`, and a reason for each of them."""

    fingerprint: Facts
    settings: dict[str, Any]
    reasons: dict[str, str]

    def __str__(self) -> str:
        width = max(len(str(value)) for value in self.settings.values())
        return "\n".join(
            f"{name:14s} {value!s:{width}s}  {self.reasons[name]}"
            for name, value in self.settings.items()
        )

    def to_yaml(self) -> str:
        """The settings as YAML, each after its reason as a comment."""
        parts = [
            "# Proposed by medres plan. Change what you know better, then run: medres train WORK "
            "--config FILE --out RUN"
        ]
        for name, value in self.settings.items():
            parts += [f"# {self.reasons[name]}", yaml.safe_dump({name: value}).strip()]
        return "\n".join(parts) + "\n"


def plan(
    manifest: Manifest, *, kind: str | None = None, model: str | None = None
) -> TrainingProposal:
    """A proposal for a work folder, with a reason for each setting.

    kind: "radiograph" or "ct", required where the folder has both. model: a variant of which the
        memory is known, such as "densenet121"; None: by the number of images and patients. Raises
        TrainingError (codes several_kinds, no_labels, unknown_model).
    """
    return plan_for(fingerprint(manifest, kind), model)


def plan_for(fingerprint: Fingerprint, model: str | None = None) -> TrainingProposal:
    """The proposal of the table for a fingerprint, and for a model if one is requested."""
    if model is not None and model not in OUTPUTS_224:
        raise TrainingError(
            f"model {model!r}: the memory that it needs is known for {', '.join(OUTPUTS_224)} only",
            code="unknown_model",
        )
    chosen: dict[str, Any] = {} if model is None else {"model": model}
    reasons: dict[str, str] = {} if model is None else {"model": "as requested"}
    for rule in RULES:
        if rule.setting not in chosen and rule.applies(fingerprint, chosen):
            value = rule.value
            chosen[rule.setting] = value(fingerprint, chosen) if callable(value) else value
            reasons[rule.setting] = rule.reason.format(**dataclasses.asdict(fingerprint))
    reasons["preset"] += f"; {reasons.pop('side')}"
    chosen.pop("side")
    return TrainingProposal(fingerprint, chosen, reasons)


def fingerprint(manifest: Manifest, kind: str | None = None) -> Fingerprint:
    """The fingerprint of a manifest and of this machine."""
    kinds = sorted(manifest.table["kind"].unique())
    if kind is None and len(kinds) != 1:
        raise TrainingError(
            f"the work folder has images of several kinds: choose one with "
            f"{' or '.join(f'--kind {name}' for name in kinds)}",
            code="several_kinds",
        )
    kind = kind or kinds[0]
    table = manifest.table[manifest.table["kind"] == kind]
    train = table[table["split"] == "train"]
    task = TASKS.get(manifest.summary["task"])
    if train.empty or task is None:
        raise TrainingError(
            f"no labelled training image of kind {kind}: a plan needs one; see ingest.json for the "
            f"splits and the labels",
            code="no_labels",
        )
    labels = [column for column in train if str(column).startswith("label:")]
    if task.exclusive:
        check_classes(manifest, kind)
        shares = train["class"][train["class"] != ""].value_counts(normalize=True)
        rarest = float(shares.min())
    else:
        positives = [train[c][train[c].isin([0, 1])].mean() for c in labels]
        rarest = min((min(p, 1 - p) for p in positives if not math.isnan(p)), default=0.0)
    spacing = table["row_spacing"].median()
    gpu = bool(tf.config.list_physical_devices("GPU"))
    return Fingerprint(
        kind=kind,
        task=task.name,
        images=len(train),
        patients=train["patient"].nunique(),
        tune_patients=table.loc[table["split"] == "tune", "patient"].nunique(),
        findings=len(labels) or train["class"].nunique(),
        side=int(table[["rows", "cols"]].min(axis=1).median()),
        spacing_mm=None if math.isnan(spacing) else round(float(spacing), 4),
        slices=int(table.groupby("series").size().median()),
        rarest=float(rarest),
        uncertain=int((train[labels] == -1).sum().sum()) if labels else 0,
        gpu=gpu,
        memory_gib=round(device_memory(gpu), 1),
    )


def device_memory(gpu: bool) -> float:
    """GiB of the first GPU according to nvidia-smi, otherwise of the machine."""
    if gpu and (tool := shutil.which("nvidia-smi")):
        query = subprocess.run(
            [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=False,
        )
        mebibytes = query.stdout.split("\n")[0].strip()
        if mebibytes.isdigit():
            return int(mebibytes) / 1024
    if not hasattr(os, "sysconf"):  # Windows
        return 8.0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def batch_size_and_accumulation(
    fingerprint: Fingerprint, chosen: dict[str, Any]
) -> tuple[int, int]:
    """The batch size, a power of two, and how many batches make the batch of the recipe. Half of
    the memory stays free.
    """
    recipe_size, side = RECIPES[chosen["recipe"]].batch_size, chosen["side"]
    small_stem = SMALL_STEM_DENSE if is_dense(fingerprint, chosen) else SMALL_STEM
    small_stem = small_stem if side <= SMALL_SIDE else 1
    gib_per_image = 2 * OUTPUTS_224[chosen["model"]] / 1024 * (side / 224) ** 2 * small_stem
    fits = 2 ** int(math.log2(max(1.0, fingerprint.memory_gib / 2 / gib_per_image)))
    useful = 2 ** int(math.log2(max(4.0, fingerprint.images / 8)))
    size = min(recipe_size, fits, useful)
    accumulates = fits < recipe_size and fits <= useful
    return size, max(1, recipe_size // size) if accumulates else 1


def epoch_count(fingerprint: Fingerprint, chosen: dict[str, Any]) -> int:
    steps = max(1, fingerprint.images // (chosen["batch_size"] * chosen.get("accumulate", 1)))
    return min(100, max(10, math.ceil(UPDATES / steps)))
