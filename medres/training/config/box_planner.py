"""A proposal for the settings of a detector, by a few rules: the image is as large as its smallest
objects need, and the finest level of the pyramid follows from their size in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from data_pipelines.annotations.boxes.store import boxes_of_images
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.kinds import image_kind
from medres.errors import TrainingError
from medres.training.config.planner import TrainingProposal, device_memory
from medres.training.config.recipe import RECIPES

STRIDE = 32  # of the last stage of a backbone; sides are multiples of it
OBJECT_PIXELS = 16.0  # that a typical object of the smallest class should cover along a side
FINE_PIXELS = 32.0  # below it, objects need the level of stride 4
SIDES = {
    True: (256, 1024),
    False: (128, 256),
}  # px, smallest and largest, by whether there is a GPU
UPDATES = {True: 8000, False: 2000}  # optimizer steps of a run
MIN_BOXES = 50  # of a class, below which its figures are hardly more than chance


@dataclass(frozen=True)
class BoxFingerprint:
    """The input of the rules, of the annotated training images.

    side: the median of their longer sides in pixels. smallest, share: the class whose objects are
    smallest, and the median of their root of the area in longer sides of the image. rarest, count:
    the class with fewest boxes.
    """

    kind: str
    images: int
    patients: int
    tune_patients: int
    classes: tuple[str, ...]
    side: int
    smallest: str
    share: float
    rarest: str
    count: int
    gpu: bool
    memory_gib: float


def plan_boxes(work: Path | str, *, kind: str | None = None) -> TrainingProposal:
    """The proposal for a detector on a work folder that was ingested with boxes. Raises
    TrainingError (several_kinds, no_object) and ManifestError (no_boxes).
    """
    return plan_boxes_for(box_fingerprint(work, kind))


def plan_boxes_for(facts: BoxFingerprint) -> TrainingProposal:
    """The proposal for a fingerprint."""
    low, high = SIDES[facts.gpu]
    needed = STRIDE * math.ceil(OBJECT_PIXELS / facts.share / STRIDE)
    side = min(max(low, needed), high, max(low, STRIDE * math.ceil(facts.side / STRIDE)))
    pixels = facts.share * side
    is_fine = pixels < FINE_PIXELS
    device = "a GPU" if facts.gpu else "no GPU: a small network"
    batch = RECIPES["detection"].batch_size
    epochs = min(100, max(10, math.ceil(UPDATES[facts.gpu] * batch / max(1, facts.images))))
    limit = "" if pixels >= OBJECT_PIXELS else f"; {OBJECT_PIXELS:g} px would need {needed} px"
    few = (
        f"; {facts.rarest} has only {facts.count} boxes, and little can be learned of it"
        if facts.count < MIN_BOXES
        else ""
    )
    rows: list[tuple[str, Any, str]] = [
        ("task", "detection", f"the work folder has boxes of {', '.join(facts.classes)}{few}"),
        (
            "preset",
            f"{image_kind(facts.kind).layouts['image'].preset}-{side}",
            f"a typical {facts.smallest} has {facts.share:.1%} of the longer side of the image, "
            f"and {pixels:.0f} px of {side}{limit}",
        ),
        (
            "levels",
            [2, 3, 4, 5] if is_fine else [3, 4, 5, 6],
            f"objects of {pixels:.0f} px {'need' if is_fine else 'do not need'} the level of "
            f"stride 4",
        ),
        ("model", "resnet18", device),
        ("stem", "imagenet", "levels of strides 4 to 64"),
        ("width", 64 if facts.gpu else 24, f"channels of the first stage; {device}"),
        ("channels", 128 if facts.gpu else 64, f"of the pyramid and the heads; {device}"),
        ("head_depth", 2 if facts.gpu else 1, f"convolutions of each head; {device}"),
        ("recipe", "detection", "AdamW with a clipped gradient"),
        ("batch_size", batch, "the usual one of detectors"),
        (
            "epochs",
            epochs,
            f"about {UPDATES[facts.gpu]:,} updates of {facts.images} training images, within 10 "
            f"to 100 epochs",
        ),
    ]
    settings, reasons = ({row[0]: row[i] for row in rows} for i in (1, 2))
    return TrainingProposal(facts, settings, reasons)


def box_fingerprint(work: Path | str, kind: str | None = None) -> BoxFingerprint:
    """The fingerprint of a work folder with boxes, and of this machine."""
    table = Manifest.load(work).table
    kinds = sorted(table["kind"].unique())
    if kind is None and len(kinds) != 1:
        raise TrainingError(
            f"the work folder has images of several kinds: choose one with "
            f"{' or '.join(f'--kind {name}' for name in kinds)}",
            code="several_kinds",
        )
    kind = kind or str(kinds[0])
    table = table[table["kind"] == kind]
    everything, classes = boxes_of_images(work, table["image"].tolist())
    is_annotated = np.array([boxes.annotated for boxes in everything], bool)
    train = is_annotated & (table["split"] == "train").to_numpy()
    used = [boxes for boxes, keep in zip(everything, train, strict=True) if keep]
    objects = pd.DataFrame(
        [
            (classes[label], math.sqrt(area) / max(boxes.size))
            for boxes in used
            for label, area, ignore in zip(boxes.labels, boxes.areas, boxes.ignore, strict=True)
            if not ignore
        ],
        columns=["class", "share"],
    )
    if objects.empty:
        raise TrainingError(
            f"no training image of kind {kind} has a usable box: a plan needs one; see ingest.json "
            f"for the splits and the boxes",
            code="no_object",
        )
    shares, counts = objects.groupby("class")["share"].median(), objects["class"].value_counts()
    gpu = bool(tf.config.list_physical_devices("GPU"))
    return BoxFingerprint(
        kind=kind,
        images=len(used),
        patients=table.loc[train, "patient"].nunique(),
        tune_patients=table.loc[table["split"] == "tune", "patient"].nunique(),
        classes=classes,
        side=int(np.median([max(boxes.size) for boxes in used])),
        smallest=str(shares.idxmin()),
        share=float(shares.min()),
        rarest=str(counts.idxmin()),
        count=int(counts.min()),
        gpu=gpu,
        memory_gib=round(device_memory(gpu), 1),
    )
