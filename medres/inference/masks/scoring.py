"""A segmenter on one split of a work folder: predicted and reference label maps, on the grid of the
images, as folders that `medres.evaluate.evaluate_masks` compares.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.annotations import read_label_map
from data_pipelines.annotations.grids import Grid
from data_pipelines.cache.original_samples import OriginalSample, OriginalSamples
from data_pipelines.cache.store import Cache, ensure_cache
from data_pipelines.cache.tf_dataset import rows_of
from data_pipelines.errors import SpecError
from data_pipelines.ingestion.manifest import SPLITS, Manifest
from data_pipelines.ingestion.test_access_log import log_test_access
from data_pipelines.preprocessing.original_grid import OriginalGrid, restored_labels
from data_pipelines.preprocessing.preparation import to_model_units
from data_pipelines.runtime.atomic_files import csv_bytes
from medres.artefact.archive import load as load_artefact
from medres.artefact.card import Card
from medres.errors import ArtefactError
from medres.evaluate.segmentation.evaluation import SegmentationReport, evaluate_masks
from medres.inference.masks.files import nifti_bytes, png_bytes
from medres.inference.masks.predicting import label_map
from medres.inference.predictor import Predictor
from medres.progress import ProgressReporter


def evaluate_segmenter(
    model: Path | str,
    work: Path | str,
    split: str = "test",
    *,
    progress: ProgressReporter | None = None,
    **options: Any,
) -> SegmentationReport:
    """The report of a segmenter on one split of a work folder that was ingested with masks.

    Cases are volumes, series of slices, or images; prediction and reference are compared on the
    grid of the original images. Samples without a usable mask, and series with gaps or a tilt,
    which the model sees on a grid of its own, are not among the cases, and are counted in a line of
    text.
    Each access to the test split is logged in the work folder.
    options: of `medres.evaluate.evaluate_masks`, such as tolerance_mm.

    Raises SpecError (unknown_split, empty_split), ArtefactError (other_labels: the classes of the
    work folder are not those of the model; no_masks: a classifier), and the errors of the options.
    """
    if split not in SPLITS:
        raise SpecError(
            f"unknown split {split!r}: choose one of {', '.join(SPLITS)}", code="unknown_split"
        )
    reporter = progress or ProgressReporter()
    artefact, manifest = load_artefact(model), Manifest.load(work)
    card = artefact.card
    with reporter.task("cache with masks") as update:
        cache = ensure_cache(work, card.preprocess, masks=True, progress=update)
    _check_classes(card, cache)
    rows = rows_of(cache, split)
    if not len(rows):
        raise SpecError(
            f"the {split} split has no image with a usable mask: choose another --split",
            code="empty_split",
        )
    with tempfile.TemporaryDirectory(prefix="medres-") as name, Predictor(artefact) as predictor:
        folders = _Folders(Path(name))
        samples = _SplitCases(work, manifest.table.set_index("image"), cache)
        with reporter.task(f"predict {split}") as update:
            for number, case in enumerate(samples.cases(rows), start=1):
                folders.write(case, predictor)
                update(number, 0)
        if split == "test":
            log_test_access(
                work,
                model_sha256=artefact.sha256,
                manifest_sha256=str(manifest.summary["manifest_sha256"]),
            )
        for reason, count in sorted((Counter(cache.left_out) + folders.left_out).items()):
            reporter.line(f"not among the cases: {count} {reason}")
        result = folders.report(card, {"title": f"Segmentation: {split} split", **options})
    facts = {"model_sha256": artefact.sha256, "split": split, "preprocess": card.preprocess.name}
    return replace(
        result,
        report=replace(result.report, provenance={**result.report.provenance, **facts}),
    )


def _check_classes(card: Card, cache: Cache) -> None:
    if card.segmentation is None:
        raise ArtefactError("the model is a classifier and has no masks", code="no_masks")
    if list(card.names[1:]) != list(cache.mask_classes or ()):
        raise ArtefactError(
            f"the model has the classes {', '.join(card.names[1:])}, and the masks of the work "
            f"folder have {', '.join(cache.mask_classes or ())}: ingest with --mask-classes that "
            f"have the names of the model",
            code="other_labels",
        )


@dataclass(frozen=True, eq=False)
class _Case:
    """name: a pseudonym. reference: uint8 ([slices,] rows, columns)."""

    name: str
    patient: str
    samples: list[OriginalSample]
    reference: np.ndarray


class _SplitCases(OriginalSamples):
    """The cases of a split."""

    def __init__(self, work: Path | str, table: pd.DataFrame, cache: Cache) -> None:
        super().__init__(table, cache)
        self.work = work

    def cases(self, rows: np.ndarray) -> Iterator[_Case]:
        """The cases of some samples of the cache."""
        for name, group in self._groups(rows):
            middle = [str(self.cache.images["image"].iloc[row]) for row in group]
            shown = self.slices[group[0]] if self.spec.layout == "volume" else middle
            patient = str(self.table.loc[middle[0], "patient"])
            yield _Case(
                name,
                patient,
                [self.sample(row) for row in group],
                read_label_map(self.work, shown).single(),
            )

    def _groups(self, rows: np.ndarray) -> Iterator[tuple[str, list[int]]]:
        """The samples of each case: the slices of a series together."""
        images = self.cache.images["image"].iloc[rows]
        joins = self.spec.image_kind.has_series and self.spec.layout != "volume"
        names = self.table.loc[images, "series"] if joins else images
        groups: dict[str, list[int]] = {}
        for row, name in zip(rows.tolist(), names.astype(str), strict=True):
            groups.setdefault(name, []).append(row)
        yield from groups.items()


@dataclass
class _Folders:
    """Folders of predictions, references and images, and the table of the patients."""

    root: Path
    patients: list[dict[str, str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def write(self, case: _Case, predictor: Predictor) -> None:
        """Predict a case and write its files."""
        grids = [sample.grid for sample in case.samples]
        affine = _affine_of(grids, case.reference)
        if any(grid.is_resampled for grid in grids) or affine is False:
            self.left_out["series without a constant step"] += 1
            return
        card = predictor.card
        predicted = []
        for sample in case.samples:
            image = to_model_units(sample.pixels[np.newaxis], card.preprocess)[0]
            labels, _ = label_map(image, card, predictor.scored)
            predicted.append(restored_labels(labels, sample.grid.axes))
        labels = predicted[0] if case.reference.ndim == predicted[0].ndim else np.stack(predicted)
        pixels = np.stack([image.pixels for sample in case.samples for image in sample.images])
        image = pixels if case.reference.ndim == 3 else pixels[0]
        arrays = {"prediction": labels, "reference": case.reference, "image": image}
        for kind, values in arrays.items():
            self._write(kind, case.name, values, affine)
        self.patients.append({"case": case.name, "patient": case.patient})

    def _write(self, kind: str, name: str, values: np.ndarray, affine: Any) -> None:
        folder = self.root / kind
        folder.mkdir(exist_ok=True)
        is_image = values.dtype != np.uint8
        if is_image and (affine is None or values.ndim > 3):
            low, high = float(values.min()), float(values.max())
            values = np.rint(255 * (values - low) / max(high - low, 1e-9)).astype(np.uint8)
        if affine is None or values.ndim > 3 or (is_image and values.shape[-1] == 3):
            (folder / f"{name}.png").write_bytes(png_bytes(values))
            return
        volume = values if values.ndim == 3 else values[np.newaxis]
        data = volume.astype(np.float32) if is_image else volume
        (folder / f"{name}.nii.gz").write_bytes(nifti_bytes(data, affine))

    def report(self, card: Card, options: dict[str, Any]) -> SegmentationReport:
        """Compare the folders. Raises SpecError (empty_split)."""
        if not self.patients:
            raise SpecError("no case of the split can be compared", code="empty_split")
        table = self.root / "patients.csv"
        table.write_bytes(csv_bytes(self.patients, ["case", "patient"]))
        return evaluate_masks(
            self.root / "prediction",
            self.root / "reference",
            patients=table,
            classes={value: name for value, name in enumerate(card.names) if value},
            **{"images": self.root / "image", **options},
        )


def _affine_of(grids: Sequence[OriginalGrid], reference: np.ndarray) -> Any:
    """To LPS mm: of the volume; for one image from its spacing; None without a spacing; False for
    slices without a constant step.
    """
    if grids[0].affine is not None:
        return grids[0].affine
    planes = [plane for grid in grids for plane in grid.planes]
    if reference.ndim == 3:
        grid = Grid.from_planes(planes)
        affine = None if grid is None else grid.affine
        return False if affine is None else affine
    spacing = planes[0].spacing
    if spacing is None:
        return None
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 1.0, spacing[0], spacing[1], 1.0
    return affine
