"""What to train, proposed from the manifest by rules in one table; each choice says why. No search.

The first rule of a setting that applies is taken. A reason may name fields of the fingerprint.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import yaml

from data_pipelines.ingestion.manifest import Manifest
from medres.errors import TrainingError
from medres.training.config.options import SMALL_SIDE
from medres.training.config.recipe import RECIPES

UPDATES = 4000  # optimiser steps that a run should have, where that is 10 to 100 epochs
# MiB of all layer outputs of one 224 x 224 image in float32, by depth (summed over the built nets);
# gradients take as much again.
OUTPUTS_224 = {"resnet18": 36, "resnet34": 53, "resnet50": 150}
SMALL_STEM = 12  # as many times more for the small stem, which has no stride (summed at 28 px)


@dataclass(frozen=True)
class Fingerprint:
    """What the rules see. side: median of the shorter image side in pixels; rarest: smallest share
    of a class or of a finding's positives or negatives among the labelled training images; slices:
    median number of images a series; memory_gib: of the device that trains.
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
    """`setting` becomes `value` (or its result) where `when` holds of a fingerprint and of what was
    chosen before.
    """

    setting: str
    when: Callable[[Fingerprint, dict[str, Any]], bool]
    value: Any
    reason: str


def always(seen: Fingerprint, chosen: dict[str, Any]) -> bool:
    return True


RULES: tuple[Rule, ...] = (
    Rule(
        "side",
        lambda f, c: f.side <= 96,
        lambda f, c: max(16, f.side),
        "the images have {side} px: nothing is enlarged",
    ),
    Rule("side", lambda f, c: not f.gpu, 128, "no GPU: 128 px keep an epoch short"),
    Rule(
        "side",
        lambda f, c: f.kind == "ct",
        256,
        "CT at half of 512: nodules of 4 mm keep some pixels",
    ),
    Rule(
        "side",
        lambda f, c: f.images >= 20000 and f.side >= 320,
        320,
        "{images} images can use finer detail",
    ),
    Rule("side", always, 224, "the usual size of radiograph classifiers and of pretrained weights"),
    Rule(
        "preset",
        always,
        lambda f, c: f"{'ct' if f.kind == 'ct' else 'xray'}-{c['side']}",
        "{kind} images; see side",
    ),
    Rule("model", lambda f, c: not f.gpu, "resnet18", "no GPU: the shallowest of the usual depths"),
    Rule(
        "model",
        lambda f, c: f.patients < 2000,
        "resnet18",
        "{patients} training patients: a deeper net would learn them by heart",
    ),
    Rule("model", lambda f, c: f.images < 20000, "resnet34", "{images} training images"),
    Rule("model", always, "resnet50", "{images} training images"),
    Rule(
        "width",
        lambda f, c: f.patients < 100,
        32,
        "{patients} training patients: half the usual channels",
    ),
    Rule(
        "recipe",
        lambda f, c: f.patients < 500,
        "small",
        "{patients} training patients: strong decay, stopped early",
    ),
    Rule(
        "recipe", lambda f, c: f.images < 5000, "default", "{images} training images: AdamW, cosine"
    ),
    Rule(
        "recipe",
        always,
        "modern",
        "{images} training images: long schedule, averaged weights, stochastic depth",
    ),
    Rule(
        "class_weights",
        lambda f, c: f.rarest < 0.1,
        "balanced",
        "the rarest class has {rarest:.1%} of the labels",
    ),
    Rule(
        "class_weights", always, "none", "the rarest class has {rarest:.1%} of the labels: no need"
    ),
    Rule(
        "uncertain",
        lambda f, c: f.uncertain > 0,
        {"*": "ignore"},
        "{uncertain} uncertain labels: left out",
    ),
    Rule(
        "batch_size",
        always,
        lambda f, c: batch(f, c)[0],
        "half of {memory_gib:.0f} GiB holds it; 8 batches an epoch or more",
    ),
    Rule(
        "accumulate",
        lambda f, c: batch(f, c)[1] > 1,
        lambda f, c: batch(f, c)[1],
        "keeps the recipe's batch where memory does not",
    ),
    Rule("epochs", always, lambda f, c: epochs(f, c), "about 4,000 updates, in 10 to 100 epochs"),
)


@dataclass(frozen=True)
class TrainingProposal:
    """A proposal: settings that `medres train --config` takes, and a reason for each."""

    fingerprint: Fingerprint
    settings: dict[str, Any]
    reasons: dict[str, str]

    def __str__(self) -> str:
        width = max(len(str(value)) for value in self.settings.values())
        return "\n".join(
            f"{name:14s} {value!s:{width}s}  {self.reasons[name]}"
            for name, value in self.settings.items()
        )

    def to_yaml(self) -> str:
        """The settings, each under its reason as a comment."""
        parts = [
            "# proposed by medres plan; change what you know better, then: medres train WORK "
            "--config FILE --out RUN"
        ]
        for name, value in self.settings.items():
            parts += [f"# {self.reasons[name]}", yaml.safe_dump({name: value}).strip()]
        return "\n".join(parts) + "\n"


def plan(manifest: Manifest, *, kind: str | None = None) -> TrainingProposal:
    """A plan for a work folder. kind: "radiograph" or "ct" where it holds both. Raises
    TrainingError.
    """
    return plan_for(fingerprint(manifest, kind))


def plan_for(seen: Fingerprint) -> TrainingProposal:
    """Apply the table to a fingerprint."""
    chosen: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for rule in RULES:
        if rule.setting not in chosen and rule.when(seen, chosen):
            chosen[rule.setting] = rule.value(seen, chosen) if callable(rule.value) else rule.value
            reasons[rule.setting] = rule.reason.format(**dataclasses.asdict(seen))
    reasons["preset"] = reasons.pop("side")
    chosen.pop("side")
    return TrainingProposal(seen, chosen, reasons)


def fingerprint(manifest: Manifest, kind: str | None = None) -> Fingerprint:
    """What the rules need to know of a manifest and this machine."""
    kinds = sorted(manifest.table["kind"].unique())
    if kind is None and len(kinds) != 1:
        raise TrainingError(
            "the work folder holds radiographs and CT: say which to plan for, with --kind "
            "radiograph or --kind ct"
        )
    table = manifest.table[manifest.table["kind"] == (kind or kinds[0])]
    train = table[table["split"] == "train"]
    if train.empty or manifest.summary["task"] == "none":
        raise TrainingError(
            "nothing to plan for: no labelled training image of that kind; see ingest.json"
        )
    labels = [column for column in train if str(column).startswith("label:")]
    if labels:
        shares = [train[c][train[c].isin([0, 1])].mean() for c in labels]
        rarest = min((min(s, 1 - s) for s in shares if not math.isnan(s)), default=0.0)
    else:
        rarest = float(train["class"][train["class"] != ""].value_counts(normalize=True).min())
    spacing = table["row_spacing"].median()
    gpu = bool(tf.config.list_physical_devices("GPU"))
    return Fingerprint(
        kind=kind or kinds[0],
        task=manifest.summary["task"],
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
    )  # fmt: skip


def device_memory(gpu: bool) -> float:
    """GiB of the first GPU, as nvidia-smi tells it, or else of the machine."""
    if gpu and (tool := shutil.which("nvidia-smi")):
        told = subprocess.run(
            [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=False,
        )
        first = told.stdout.split("\n")[0].strip()
        if first.isdigit():
            return int(first) / 1024
    if not hasattr(os, "sysconf"):  # Windows
        return 8.0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def batch(seen: Fingerprint, chosen: dict[str, Any]) -> tuple[int, int]:
    """Batch size, a power of two, and how many batches make the recipe's; half of the memory is
    left free.
    """
    wanted, side = RECIPES[chosen["recipe"]].batch_size, chosen["side"]
    each = (
        2
        * OUTPUTS_224[chosen["model"]]
        / 1024
        * (side / 224) ** 2
        * (SMALL_STEM if side <= SMALL_SIDE else 1)
    )
    fits = 2 ** int(math.log2(max(1.0, seen.memory_gib / 2 / each)))
    many = 2 ** int(math.log2(max(4.0, seen.images / 8)))
    size = min(wanted, fits, many)
    return size, max(1, wanted // size) if fits < wanted and fits <= many else 1


def epochs(seen: Fingerprint, chosen: dict[str, Any]) -> int:
    steps = max(1, seen.images // (chosen["batch_size"] * chosen.get("accumulate", 1)))
    return min(100, max(10, math.ceil(UPDATES / steps)))
