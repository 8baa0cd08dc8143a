"""The tuning (validation) pass of several workers: each scores its share of the images."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from data_pipelines.cache.tf_dataset import eval_batches
from medres.training.data import CompiledModel, ScoredImages, TrainingData
from medres.training.distributed.team import Team

BATCH = 32  # images on each device


def score_together(
    team: Team, model: CompiledModel, data: TrainingData, split: str
) -> ScoredImages | None:
    """The outputs for one split, in cache order, on the chief; None on the other workers."""
    if team.size == 1:
        return model.score(data, split)
    context = tf.distribute.InputContext(team.size, team.rank, team.size)
    batch = BATCH * model.devices * team.size
    batches = eval_batches(data.cache, data.targets, batch, split, context=context)
    outputs = [model.logits(inputs["image"]) for inputs, _, _ in batches]
    classes = model.model.output.shape[-1]
    own = np.concatenate(outputs) if outputs else np.zeros((0, classes), np.float32)
    parts = team.gather_bytes(own.astype("<f4").tobytes())
    if parts is None:
        return None
    scores = np.zeros((len(data.rows(split)), classes), np.float32)
    for rank, part in enumerate(parts):
        scores[rank :: team.size] = np.frombuffer(part, "<f4").reshape(-1, classes)
    return ScoredImages(scores, data.split_targets(split), data.table(split))
