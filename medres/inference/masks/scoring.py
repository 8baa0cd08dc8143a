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
from medres.artefact.archive import Artefact
from medres.artefact.archive import load as load_artefact
from medres.artefact.card import Card
from medres.errors import ArtefactError
from medres.evaluate.segmentation.evaluation import SegmentationReport, evaluate_masks
from medres.inference.masks.files import nifti_bytes, png_bytes
from medres.inference.masks.predicting import label_map
from medres.inference.predictor import Predictor
from medres.inference.scoring import is_subgroup
from medres.progress import ProgressReporter


def evaluate_segmenter(
    model: Path | str,
    work: Path | str,
    split: str = "test",
    *,
    compare: Sequence[Path | str] = (),
    progress: ProgressReporter | None = None,
    **options: Any,
) -> SegmentationReport:
    """The report of a segmenter on one split of a work folder that was ingested with masks.

    Cases are volumes, series of slices, or images; prediction and reference are compared on the
    grid of the original images. Samples without a usable mask, and series with gaps or a tilt,
    which the model sees on a grid of its own, are not among the cases, and are counted in a line of
    text.
    Each access to the test split is logged in the work folder.
    compare: model files of further segmenters with the same classes, whose masks of the same cases
        are compared within patients. Models are named by their files, or where these have one name
        by their folders.
    options: of `medres.evaluate.evaluate_masks`, such as tolerance_mm and subgroups (columns of the
        manifest: sex, age, view, site, manufacturer, model, meta:...).

    Raises SpecError (unknown_split, empty_split), ArtefactError (other_labels: the classes of the
    work folder are not those of the model; no_masks: a classifier), EvaluationError
    (missing_prediction: a model to compare does not predict all cases), and the errors of the
    options.
    """
    if split not in SPLITS:
        raise SpecError(
            f"unknown split {split!r}: choose one of {', '.join(SPLITS)}", code="unknown_split"
        )
    reporter, manifest = progress or ProgressReporter(), Manifest.load(work)
    models = [Path(model), *map(Path, compare)]
    with tempfile.TemporaryDirectory(prefix="medres-") as name:
        folders = _Folders(Path(name), model_names(models))
        opened = []
        for number, path in enumerate(models):
            artefact = load_artefact(path)
            left_out = _predict_split(artefact, work, manifest, split, folders, number, reporter)
            opened.append((artefact.card, artefact.sha256, left_out))
        card, sha256, left_out = opened[0]
        for reason, count in sorted((left_out + folders.left_out).items()):
            reporter.line(f"not among the cases: {count} {reason}")
        result = folders.report(card, {"title": f"Segmentation: {split} split", **options})
    facts: dict[str, Any] = {
        "model_sha256": sha256,
        "split": split,
        "preprocess": card.preprocess.name,
    }
    if compare:
        facts["compared_sha256"] = [of_other for _, of_other, _ in opened[1:]]
    return replace(
        result,
        report=replace(result.report, provenance={**result.report.provenance, **facts}),
    )


def model_names(models: Sequence[Path]) -> list[str]:
    """A name for each model file: that of the file, or where files have one name, of its folder.

    >>> model_names([Path("a/model.keras"), Path("b/model.keras")])
    ['a', 'b']
    """
    names = [path.stem for path in models]
    if len(set(names)) < len(names):
        names = [path.absolute().parent.name or path.stem for path in models]
    return names


def _predict_split(
    artefact: Artefact,
    work: Path | str,
    manifest: Manifest,
    split: str,
    folders: _Folders,
    number: int,
    reporter: ProgressReporter,
) -> Counter[str]:
    """Write the masks of the model `number`, and log the access to the test split. The samples
    that its preset leaves out, by reason. Raises SpecError (empty_split) and ArtefactError.
    """
    with reporter.task("cache with masks") as update:
        cache = ensure_cache(work, artefact.card.preprocess, masks=True, progress=update)
    _check_classes(artefact.card, cache)
    rows = rows_of(cache, split)
    if not len(rows):
        raise SpecError(
            f"the {split} split has no image with a usable mask: choose another --split",
            code="empty_split",
        )
    samples = _SplitCases(work, manifest.table.set_index("image"), cache)
    with Predictor(artefact) as predictor, reporter.task(f"predict {split}") as update:
        for done, case in enumerate(samples.cases(rows), start=1):
            folders.write(case, predictor, number)
            update(done, 0)
    if split == "test":
        log_test_access(
            work,
            model_sha256=artefact.sha256,
            manifest_sha256=str(manifest.summary["manifest_sha256"]),
        )
    return Counter(cache.left_out)


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
    """name: a pseudonym. columns: patient, and those of subgroups. reference: uint8
    ([slices,] rows, columns).
    """

    name: str
    columns: dict[str, Any]
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
            row = self.table.loc[middle[0]]
            columns = {"patient": str(row["patient"])}
            columns |= {str(key): row[key] for key in row.index if is_subgroup(str(key))}
            yield _Case(
                name,
                columns,
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
    """Folders of predictions, references and images, and the table of the patients.

    models: a name for each model; the first one decides which cases there are.
    """

    root: Path
    models: list[str]
    patients: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def predictions(self, number: int) -> Path:
        """The folder of a model, with its name."""
        return self.root / str(number) / self.models[number]

    def write(self, case: _Case, predictor: Predictor, number: int) -> None:
        """Predict a case with the model `number`, and write its files; those of the reference
        with the first model. Cases that the first model does not have are passed over.
        """
        if number and case.name not in self.patients:
            return
        grids = [sample.grid for sample in case.samples]
        affine = _affine_of(grids, case.reference)
        if any(grid.is_resampled for grid in grids) or affine is False:
            self.left_out["series without a constant step"] += not number
            return
        card = predictor.card
        predicted = []
        for sample in case.samples:
            image = to_model_units(sample.pixels[np.newaxis], card.preprocess)[0]
            labels, _ = label_map(image, card, predictor.scored)
            predicted.append(restored_labels(labels, sample.grid.axes))
        labels = predicted[0] if case.reference.ndim == predicted[0].ndim else np.stack(predicted)
        self._write(self.predictions(number), case.name, labels, affine)
        if number:
            return
        pixels = np.stack([image.pixels for sample in case.samples for image in sample.images])
        image = pixels if case.reference.ndim == 3 else pixels[0]
        self._write(self.root / "reference", case.name, case.reference, affine)
        self._write(self.root / "image", case.name, image, affine)
        self.patients[case.name] = {"case": case.name, **case.columns}

    def _write(self, folder: Path, name: str, values: np.ndarray, affine: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
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
        rows = list(self.patients.values())
        table.write_bytes(csv_bytes(rows, list(rows[0])))
        return evaluate_masks(
            self.predictions(0),
            self.root / "reference",
            compare=[self.predictions(number) for number in range(1, len(self.models))],
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
