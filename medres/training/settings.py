"""What a run is: its configuration, and the refusals before the first step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.augment import augmentation
from data_pipelines.files import file_sha256, write_atomic
from data_pipelines.manifest import Manifest
from data_pipelines.preprocess import UNITS, PreprocessSpec, spec_from
from medres.errors import TrainingError
from medres.training.data import TrainingData
from medres.training.recipes import Recipe

DEFAULT_WINDOWS = ["lung", "mediastinum", "bone"]
SMALL_SIDE = 64


def preprocessing(preset: str | dict | PreprocessSpec | None, manifest: Manifest) -> PreprocessSpec:
    if preset is not None:
        return spec_from(preset)
    kinds = manifest.table["kind"].unique()
    if len(kinds) != 1:
        raise TrainingError(
            "the work folder holds radiographs and CT: say which to train on, for instance --preset xray-224 or --preset ct-256"
        )
    return spec_from("xray-224" if kinds[0] == "radiograph" else "ct-256")


def configuration(
    network: dict[str, Any], spec: PreprocessSpec, chosen: Recipe, seed: int, weights: Path | str | None
) -> dict[str, Any]:
    """Everything that decides the result, JSON-able; two runs with equal configurations are the same run.

    network: variant, version, stem, width, windows; None where the default is to be taken.
    """
    windows = network["windows"]
    if spec.kind != "ct" and windows is not None:
        raise TrainingError(
            "windows are for CT: a radiograph's window is part of the image and was applied before the cache"
        )
    stem = network["stem"] or ("small" if max(spec.rows, spec.cols) <= SMALL_SIDE else "imagenet")
    network = network | {"stem": stem, "windows": DEFAULT_WINDOWS if spec.kind == "ct" and windows is None else windows}
    augment = ("ct_slice" if spec.kind == "ct" else "chest_xray") if chosen.augment == "auto" else chosen.augment
    augmentation(augment, UNITS[spec.kind])
    source = None if weights is None else file_sha256(weights)
    settings = chosen.model_copy(update={"augment": augment}).model_dump()
    return {
        "schema": "medres.run/1",
        "model": network,
        "preprocess": spec.model_dump(),
        "recipe": settings,
        "seed": seed,
        "weights_sha256": source,
    }


def check_trainable(data: TrainingData) -> None:
    """Every finding needs both classes, and every class an image, in train and in tune."""
    for split in ("train", "tune"):
        rows, targets = data.part(split)
        if len(rows) == 0:
            raise TrainingError(
                f"the {split} split holds no image of preset {data.cache.spec.name}: ingest again with more patients or another split"
            )
        for i, name in enumerate(targets.names):
            if targets.task == "multiclass":
                missing = not ((targets.labels == i) & (targets.weights > 0)).any()
                what = "no image"
            else:
                known = targets.labels[targets.weights[:, i] > 0, i]
                missing = len(np.unique(known)) < 2
                what = "one class only" if len(known) else "no label"
            if missing:
                raise TrainingError(
                    f"{name}: {what} in the {split} split; leave the finding out with --finding, or ingest with more patients"
                )


def claim(out: Path, config: dict[str, Any]) -> None:
    """Make `out` ours: new, or an earlier run of the same configuration."""
    file, config = out / "config.json", json.loads(json.dumps(config, allow_nan=False))
    if file.exists():
        earlier = json.loads(file.read_text())
        changed = sorted(key for key in config if earlier.get(key) != config[key])
        if changed:
            raise TrainingError(
                f"{out} holds a run with another {', '.join(changed)}: train into a new folder, or repeat the same command to resume"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out} exists and is no run of medres: give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(config, indent=1).encode())
