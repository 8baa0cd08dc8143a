"""A detector on one split of a work folder: predicted and reference boxes in the pixels of the
original images, which `medres.evaluate.evaluate_boxes` compares.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from data_pipelines.annotations.boxes.store import read_boxes
from data_pipelines.cache.original_samples import OriginalSample, OriginalSamples
from data_pipelines.cache.plan import format_left_out
from data_pipelines.cache.store import Cache, ensure_cache
from data_pipelines.cache.tf_dataset import rows_of
from data_pipelines.errors import SpecError
from data_pipelines.ingestion.manifest import SPLITS, Manifest
from data_pipelines.ingestion.test_access_log import log_test_access
from data_pipelines.preprocessing.preparation import to_model_units
from medres.artefact.archive import load as load_artefact
from medres.artefact.card import Card
from medres.detection import decode
from medres.errors import ArtefactError
from medres.evaluate.detection.study import DetectionResult, evaluate_boxes
from medres.inference.boxes.box import Box
from medres.inference.boxes.predicting import boxes_on_original
from medres.inference.masks.files import displayed, png_bytes
from medres.inference.predictor import Predictor
from medres.inference.scoring import SUBGROUPS
from medres.progress import ProgressReporter


def evaluate_detector(
    model: Path | str,
    work: Path | str,
    split: str = "test",
    *,
    progress: ProgressReporter | None = None,
    **options: Any,
) -> DetectionResult:
    """The report of a detector on one split of a work folder that was ingested with boxes.

    Boxes are compared in the pixels of the original images, at the thresholds that are frozen in
    the model. Images without usable boxes are not among the cases, and are counted in a line of
    text. Each access to the test split is logged in the work folder.
    options: of `medres.evaluate.evaluate_boxes`, such as hit, unit and subgroups.

    Raises SpecError (unknown_split, empty_split), ArtefactError (no_detector; other_labels: the
    classes of the work folder are not those of the model), and the errors of the options.
    """
    if split not in SPLITS:
        raise SpecError(
            f"unknown split {split!r}: choose one of {', '.join(SPLITS)}", code="unknown_split"
        )
    reporter = progress or ProgressReporter()
    artefact, manifest = load_artefact(model), Manifest.load(work)
    card, table = artefact.card, manifest.table.set_index("image")
    settings = card.decoding
    with reporter.task("cache with boxes") as update:
        cache = ensure_cache(work, card.preprocess, boxes=True, progress=update)
    _check_classes(card, cache)
    rows = rows_of(cache, split)
    if not len(rows):
        raise SpecError(
            f"the {split} split has no image with usable boxes: choose another --split",
            code="empty_split",
        )
    samples = OriginalSamples(table, cache)
    with tempfile.TemporaryDirectory(prefix="medres-") as folder, Predictor(artefact) as predictor:
        coco = _Coco(list(card.names), Path(folder))
        with reporter.task(f"predict {split}") as update:
            for number, row in enumerate(rows.tolist(), start=1):
                sample = samples.sample(row)
                image = to_model_units(sample.pixels[None], card.preprocess)
                found = decode(predictor.scored(image)[0][0], settings)
                name = str(cache.images["image"].iloc[row])
                coco.add(work, name, table.loc[name].to_dict(), sample, card)
                coco.predict(boxes_on_original(found, sample.grid, card))
                update(number, len(rows))
        if split == "test":
            log_test_access(
                work,
                model_sha256=artefact.sha256,
                manifest_sha256=str(manifest.summary["manifest_sha256"]),
            )
        if cache.left_out:
            reporter.line(f"not among the cases: {format_left_out(cache.left_out)}")
        result = coco.evaluated(
            **{"title": f"Detection: {split} split", "frozen": card.box_thresholds, **options}
        )
    facts = {"model_sha256": artefact.sha256, "split": split, "preprocess": card.preprocess.name}
    provenance = {**result.report.provenance, **facts}
    return DetectionResult(replace(result.report, provenance=provenance))


def _check_classes(card: Card, cache: Cache) -> None:
    if list(card.names) != list(cache.box_classes or ()):
        raise ArtefactError(
            f"the model has the classes {', '.join(card.names)}, and the boxes of the work folder "
            f"have {', '.join(cache.box_classes or ())}: ingest with --box-classes that have the "
            f"names of the model",
            code="other_labels",
        )


@dataclass
class _Coco:
    """COCO annotations and results, the patients, and the images of the worst cases."""

    names: list[str]
    folder: Path
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    patients: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        work: Path | str,
        name: str,
        line: dict[Any, Any],
        sample: OriginalSample,
        card: Card,
    ) -> None:
        """An image with its reference. name: its pseudonym. line: of the manifest."""
        boxes, number = read_boxes(work, name), len(self.images) + 1
        rows, columns = sample.grid.shape[-2:]
        file_name = f"{name}.png"
        self.images.append({"id": number, "file_name": file_name, "width": columns, "height": rows})
        subgroups = {key: line[key] for key in SUBGROUPS if key in line}
        self.patients.append({"image_id": number, "patient": line["patient"], **subgroups})
        original = sample.images[0].pixels
        (self.folder / file_name).write_bytes(png_bytes(displayed(original, card, stacked=False)))
        for edges, label, ignore in zip(boxes.edges, boxes.labels, boxes.ignore, strict=True):
            x_min, y_min, x_max, y_max = map(float, edges)
            sides = x_max - x_min, y_max - y_min
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "bbox": [x_min, y_min, *sides],
                    "area": sides[0] * sides[1],
                    "iscrowd": int(ignore),
                }
            )

    def predict(self, boxes: list[Box]) -> None:
        """The boxes that were found in the last image."""
        for box in boxes:
            size = (box.x_max - box.x_min, box.y_max - box.y_min)
            self.results.append(
                {
                    "image_id": len(self.images),
                    "category_id": self.names.index(box.label) + 1,
                    "bbox": [box.x_min, box.y_min, *size],
                    "score": box.score,
                }
            )

    def evaluated(self, **options: Any) -> DetectionResult:
        """Compare them."""
        categories = [{"id": i, "name": name} for i, name in enumerate(self.names, start=1)]
        reference = {
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }
        patients = pd.DataFrame(self.patients)
        return evaluate_boxes(
            self.results, reference, **{"patients": patients, "images": self.folder, **options}
        )
