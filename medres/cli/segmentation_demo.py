"""Segmentation from masks to a report on a synthetic cohort, with the same functions as real
work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from data_pipelines.ingestion.pipeline import ingest
from data_pipelines.kinds import RADIOGRAPH
from data_pipelines.labels.task import SEGMENTATION
from data_pipelines.runtime.atomic_files import require_new, write_atomic
from data_pipelines.synthetic.cohort import make_cohort
from medres.cli.demo import RESULT_FILE, example_files
from medres.evaluate.segmentation.evaluation import SegmentationReport
from medres.inference.loading import load
from medres.inference.masks.files import write_masks
from medres.inference.masks.scoring import evaluate_segmenter
from medres.progress import ProgressReporter
from medres.training.run import train

PATIENTS = 60
CLASSES = {"1": "lung", "2": "nodule"}
SETTINGS: dict[str, Any] = {
    "task": SEGMENTATION,
    "model": "resnet10",
    "preset": "xray-64",
    "width": 16,
    "batch_size": 8,
    "epochs": 10,
    "monitor": "dice",
}


def run_segmentation(
    out: Path, *, seed: int = 0, progress: ProgressReporter | None = None
) -> tuple[dict[str, Any], SegmentationReport]:
    """Make a cohort with masks in `out`, ingest, cache, train, evaluate and predict; returns the
    paths of the results, and the report.

    An earlier demo in `out` is replaced; any other content is an error.
    """
    out, reporter = Path(out), progress or ProgressReporter()
    if (out / RESULT_FILE).exists():
        shutil.rmtree(out)
    require_new(out, what="the demo")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / RESULT_FILE, b"{}")
    reporter.line("1/5 make a cohort of synthetic DICOM files with masks")
    cohort = make_cohort(
        out / "dicom", patients=PATIENTS, seed=seed, only=RADIOGRAPH.name, task=SEGMENTATION
    )
    reporter.line("2/5 ingest: index, check, group, match the masks, split by patient")
    with reporter.task("ingest") as update:
        manifest = ingest(
            cohort,
            cohort / "labels.csv",
            out / "work",
            masks=cohort / "masks",
            mask_classes=CLASSES,
            seed=seed,
            progress=update,
        )
    reporter.line(
        "3/5 cache and train a U-Net on a narrow ResNet-10: "
        + ", ".join(f"{key} {value}" for key, value in SETTINGS.items())
    )
    trained_run = train(out / "work", **SETTINGS, seed=seed, out=out / "run", progress=reporter)
    reporter.line("4/5 evaluate the masks of the test split")
    found = evaluate_segmenter(trained_run.artefact, out / "work", progress=reporter)
    found.save(out / "report")
    reporter.line("5/5 predict one test study from its DICOM files")
    example = example_files(manifest)
    with load(trained_run.artefact) as predictor:
        prediction = predictor.predict(example)
        write_masks([prediction], predictor.card, out / "masks")
    result = {
        "report": str(out / "report" / "report.html"),
        "model": str(trained_run.artefact),
        "masks": str(out / "masks"),
        "dice": {name: finding["dice"] for name, finding in found.numbers["findings"].items()},
        "example": prediction.as_dict() | {"path": str(example[0].parent)},
    }
    write_atomic(out / RESULT_FILE, json.dumps(result, indent=1).encode())
    return result, found
