"""Decoded samples on disk, once for all epochs: the plan, the shards, and the tf.data sets that
read them.

May import from the rooms of files and tables (ingestion, labels, splits, preprocessing, volumes);
training reads from here. Only writing shards and `tf_dataset` import TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.cache.store import Cache, eligible_rows, ensure_cache, verify_caches
    from data_pipelines.cache.tf_dataset import (
        Targets,
        datasets,
        epoch_key,
        eval_batches,
        join_boxes,
        join_masks,
        join_targets,
        rows_of,
        train_batches,
        training_steps,
    )
    from data_pipelines.cache.worker import prepare_files

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.cache.store": "Cache eligible_rows ensure_cache verify_caches",
        "data_pipelines.cache.tf_dataset": "Targets datasets epoch_key eval_batches join_boxes "
        "join_masks join_targets rows_of train_batches training_steps",
        "data_pipelines.cache.worker": "prepare_files",
    },
)
