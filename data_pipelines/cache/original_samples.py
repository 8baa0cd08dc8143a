"""The samples of a cache with the images that they were made of, read from their files as the cache
was.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_pipelines.cache.plan import file_refs
from data_pipelines.cache.store import Cache
from data_pipelines.cache.worker import image_reader, planes_of_files
from data_pipelines.kinds import FORMATS_WITH_POSITION
from data_pipelines.pixels.image import Image
from data_pipelines.preprocessing.original_grid import OriginalGrid, original_grid
from data_pipelines.preprocessing.samples import SampleSlices, prepare_samples
from data_pipelines.volumes.plane import plane_of


@dataclass(frozen=True, eq=False)
class OriginalSample:
    """The prepared integers of a sample, its grid, and its original images: of a volume all
    slices, else the image itself or the middle one.
    """

    pixels: np.ndarray
    grid: OriginalGrid
    images: list[Image]


class OriginalSamples:
    """The samples of a cache. table: of the manifest, by image."""

    def __init__(self, table: pd.DataFrame, cache: Cache) -> None:
        self.table, self.cache, self.spec = table, cache, cache.spec
        self.slices = {
            int(str(record)): rows["image"].tolist()
            for record, rows in cache.slices.sort_values("slice").groupby("record", sort=False)
        }

    def sample(self, row: int) -> OriginalSample:
        """The sample of a row of the cache. Raises CacheError (source_changed) and DicomError."""
        names = self.slices[row]
        refs = file_refs(self.table.loc[names].reset_index())
        read = functools.lru_cache(maxsize=None)(image_reader(refs))
        has_position = refs[0].file_format in FORMATS_WITH_POSITION
        planes = (
            planes_of_files(refs)
            if has_position
            else [plane_of(read(n).header, 0) for n in range(len(refs))]
        )
        sample = SampleSlices(tuple(range(len(refs))))
        (pixels,) = prepare_samples([sample], planes, read, self.spec)
        grid = original_grid(sample, planes, read(sample.middle), self.spec)
        shown = range(len(refs)) if self.spec.layout == "volume" else [sample.middle]
        return OriginalSample(pixels, grid, [read(n) for n in shown])
