"""One cohort through every way to a probability: the same file must give the same number
everywhere.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.cache.store import ensure_cache
from data_pipelines.cache.tf_dataset import eval_batches, join_targets
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.sources.image_source import file_format_of
from medres.artefact.archive import load
from medres.errors import ExportError
from medres.inference.exporting import FORMATS, TOLERANCE, Format, export, runtime, same_decisions
from medres.inference.predictor import BATCH, Predictor
from medres.inference.scoring import score_split
from medres.progress import ProgressReporter

SAME_MACHINE = 1e-6


@dataclass(frozen=True)
class PathResult:
    """One way to the probabilities, against the scores that `medres train` and `evaluate` use:
    greatest difference over `images`
    and whether every decision is the same. `limit`: what is allowed.
    """

    name: str
    images: int
    difference: float
    decisions_equal: bool
    limit: float

    @property
    def holds(self) -> bool:
        return self.difference <= self.limit and self.decisions_equal


def parity(
    model: Path | str,
    work: Path | str,
    split: str = "tune",
    *,
    formats: Sequence[Format] = FORMATS,
    optimise: bool = False,
    progress: ProgressReporter | None = None,
) -> list[PathResult]:
    """Compare all ways on the images of a split: plain Keras in batches (as in a notebook),
    `Predictor` from the original files, and each exported format. Raises ExportError where an
    export is refused; the rest is told by `Way.holds`.
    """
    reporter, predictor = progress or ProgressReporter(), Predictor(load(model))
    table, _ = score_split(model, work, split, progress=reporter)
    columns = [c for c in table.columns if c == "score" or c.startswith("score:")]
    want = table[columns].to_numpy(np.float64)
    cache = ensure_cache(work, predictor.card.preprocess)
    manifest, targets = join_targets(Manifest.load(work), cache)
    batches = eval_batches(cache, targets, BATCH, split)
    images = np.concatenate([inputs["image"].numpy() for inputs, _, _ in batches])

    def way(name: str, found: np.ndarray, limit: float, rows: Any = slice(None)) -> PathResult:
        wanted = want[rows]
        difference = float(np.abs(found - wanted).max()) if len(wanted) else 0.0
        return PathResult(
            name, len(wanted), difference, same_decisions(found, wanted, predictor.card), limit
        )

    ways = [
        way(
            "plain Keras",
            predictor.artefact.model.predict(images, batch_size=BATCH, verbose=0),
            TOLERANCE,
        )
    ]
    places, found = _from_files(predictor, manifest, table["image"].tolist(), reporter)
    if places:
        ways.append(way("Predictor, from the files", found, SAME_MACHINE, places))
    with tempfile.TemporaryDirectory(prefix="medres-") as folder:
        for name in formats:
            made = export(predictor.artefact, name, Path(folder) / name, optimise=optimise)
            ways.append(way(name, runtime(name, made.path)(images), TOLERANCE))
    return ways


def require(ways: Sequence[PathResult]) -> None:
    """Raise ExportError that names the ways that do not hold."""
    broken = [
        f"{w.name} (difference {w.difference:.1e}, limit {w.limit:.0e})"
        for w in ways
        if not w.holds
    ]
    if broken:
        raise ExportError(f"the same file does not give the same answer: {', '.join(broken)}")


def _from_files(
    predictor: Predictor, manifest: Manifest, images: list[str], reporter: ProgressReporter
) -> tuple[list[int], np.ndarray]:
    """Places in `images` whose single-frame file the predictor answers for, and its probabilities
    there. Files that it refuses, and frames of larger files, are left out; so are stacks and
    volumes, which no one file holds.
    """
    if predictor.card.preprocess.form != "image":
        return [], np.zeros((0, len(predictor.card.names)))
    rows = manifest.table.set_index("image").loc[images]
    files = [Path(source) / path for source, path in zip(rows["source"], rows["path"], strict=True)]
    images_in, places, found = Counter(files), [], []
    with reporter.task("predict from the files") as update:
        for place, file in enumerate(files):
            if images_in[file] == 1 and file.is_file() and file_format_of(file) != "npz":
                prediction = predictor.predict(file)
                if prediction.refused is None and prediction.images == 1:
                    places.append(place)
                    found.append([prediction.probabilities[name] for name in predictor.card.names])
            update(place + 1, len(files))
    return places, np.array(found)
