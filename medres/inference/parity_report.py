"""Compare every path from a file to a probability on one cohort: the same file must give the same
number everywhere.
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
from medres.inference.exporting import TOLERANCE, export, runtime, same_decisions
from medres.inference.predictor import BATCH, Predictor
from medres.inference.scoring import score_split
from medres.progress import ProgressReporter
from medres.runtimes.formats import FORMATS, Format

SAME_MACHINE = 1e-6


@dataclass(frozen=True)
class PathResult:
    """One path to the probabilities, compared with the scores that `medres train` and `medres
    evaluate` use. images: how many were compared. difference: the greatest difference of a
    probability; limit: the greatest allowed.
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
    """Compare all paths on the images of a split: plain Keras in batches (as in a notebook),
    `Predictor` from the original files, and each exported format. Raises ExportError if an export
    fails; whether a path agrees is in `PathResult.holds`.
    """
    reporter, predictor = progress or ProgressReporter(), Predictor(load(model))
    table, _ = score_split(model, work, split, progress=reporter)
    columns = [c for c in table.columns if c == "score" or c.startswith("score:")]
    reference = table[columns].to_numpy(np.float64)
    cache = ensure_cache(work, predictor.card.preprocess)
    manifest, targets = join_targets(Manifest.load(work), cache)
    batches = eval_batches(cache, targets, BATCH, split)
    images = np.concatenate([inputs["image"].numpy() for inputs, _, _ in batches])

    def compared(
        name: str, outputs: np.ndarray, limit: float, rows: Any = slice(None)
    ) -> PathResult:
        expected = reference[rows]
        difference = float(np.abs(outputs - expected).max()) if len(expected) else 0.0
        equal = same_decisions(outputs, expected, predictor.card)
        return PathResult(name, len(expected), difference, equal, limit)

    results = [
        compared(
            "plain Keras",
            predictor.artefact.model.predict(images, batch_size=BATCH, verbose=0),
            TOLERANCE,
        )
    ]
    rows, outputs = _from_files(predictor, manifest, table["image"].tolist(), reporter)
    if rows:
        results.append(compared("Predictor, from the files", outputs, SAME_MACHINE, rows))
    with tempfile.TemporaryDirectory(prefix="medres-") as folder:
        for name in formats:
            exported = export(predictor.artefact, name, Path(folder) / name, optimise=optimise)
            results.append(compared(name, runtime(name, exported.path)(images), TOLERANCE))
    return results


def require(results: Sequence[PathResult]) -> None:
    """Raise ExportError (parity) that names the paths that do not agree."""
    failures = [
        f"{result.name} (difference {result.difference:.1e}, limit {result.limit:.0e})"
        for result in results
        if not result.holds
    ]
    if failures:
        raise ExportError(
            f"the same file gives different probabilities: {', '.join(failures)}", code="parity"
        )


def _from_files(
    predictor: Predictor, manifest: Manifest, images: list[str], reporter: ProgressReporter
) -> tuple[list[int], np.ndarray]:
    """Indices in `images` of the images that the predictor scores from their file, and their
    probabilities (n, outputs). Left out are files that it refuses, frames of multi-frame files, and
    stacks and volumes, which need several files.
    """
    if predictor.card.preprocess.form != "image":
        return [], np.zeros((0, len(predictor.card.names)))
    rows = manifest.table.set_index("image").loc[images]
    files = [Path(source) / path for source, path in zip(rows["source"], rows["path"], strict=True)]
    images_in = Counter(files)
    indices: list[int] = []
    outputs: list[list[float]] = []
    with reporter.task("predict from the files") as update:
        for index, file in enumerate(files):
            if images_in[file] == 1 and file.is_file() and file_format_of(file) != "npz":
                prediction = predictor.predict(file)
                if prediction.refused is None and prediction.n_images == 1:
                    indices.append(index)
                    outputs.append(
                        [prediction.probabilities[name] for name in predictor.card.names]
                    )
            update(index + 1, len(files))
    return indices, np.array(outputs)
