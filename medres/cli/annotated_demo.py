"""Segmentation and detection from annotations to a report on a synthetic cohort, with the same
functions as real work.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.ingestion.pipeline import ingest
from data_pipelines.kinds import RADIOGRAPH
from data_pipelines.labels.task import DETECTION, SEGMENTATION
from data_pipelines.runtime.atomic_files import write_atomic
from data_pipelines.synthetic.cohort import make_cohort
from medres.cli.demo import RESULT_FILE, claim_folder, example_files
from medres.inference.boxes.files import write_boxes
from medres.inference.boxes.scoring import evaluate_detector
from medres.inference.loading import load
from medres.inference.masks.files import write_masks
from medres.inference.masks.scoring import evaluate_segmenter
from medres.progress import ProgressReporter
from medres.training.run import train


@dataclass(frozen=True)
class AnnotatedDemo:
    """The demo of a task. annotations: "masks" or "boxes", an argument of `ingest` and the name of
    the folder of predictions. source: of them, in the cohort. options: of ingest. settings: of the
    run. shown: figures of a class. evaluate, write: the report of a split, the files of a
    prediction.
    """

    patients: int
    annotations: str
    source: str
    options: dict[str, Any]
    network: str
    settings: dict[str, Any]
    shown: tuple[str, ...]
    evaluate: Callable[..., Any]
    write: Callable[..., Any]


DEMOS: dict[str, AnnotatedDemo] = {
    SEGMENTATION: AnnotatedDemo(
        patients=60,
        annotations="masks",
        source="masks",
        options={"mask_classes": {"1": "lung", "2": "nodule"}},
        network="a U-Net on a narrow ResNet-10",
        settings={
            "model": "resnet10",
            "preset": "xray-64",
            "width": 16,
            "batch_size": 8,
            "epochs": 10,
            "monitor": "dice",
        },
        shown=("dice",),
        evaluate=evaluate_segmenter,
        write=write_masks,
    ),
    DETECTION: AnnotatedDemo(
        patients=120,
        annotations="boxes",
        source="boxes.csv",
        options={},
        network="a detector on a narrow ResNet-10",
        settings={
            "model": "resnet10",
            "preset": "xray-128",
            "width": 16,
            "levels": (2, 3, 4),
            "channels": 32,
            "head_depth": 1,
            "epochs": 8,
        },
        shown=("ap50", "froc_mean"),
        evaluate=evaluate_detector,
        write=write_boxes,
    ),
}


def run_annotated(
    task: str, out: Path, *, seed: int = 0, progress: ProgressReporter | None = None
) -> tuple[dict[str, Any], Any]:
    """Make a cohort with masks or boxes in `out`, ingest, cache, train, evaluate and predict;
    returns the paths and figures of the results, and the report.

    task: a key of DEMOS. An earlier demo in `out` is replaced; any other content is an error.
    """
    demo, out, reporter = DEMOS[task], claim_folder(out), progress or ProgressReporter()
    reporter.line(f"1/5 make a cohort of synthetic DICOM files with {demo.annotations}")
    cohort = make_cohort(
        out / "dicom", patients=demo.patients, seed=seed, only=RADIOGRAPH.name, task=task
    )
    reporter.line(
        f"2/5 ingest: index, check, group, match the {demo.annotations}, split by patient"
    )
    with reporter.task("ingest") as update:
        manifest = ingest(
            cohort,
            cohort / "labels.csv",
            out / "work",
            seed=seed,
            progress=update,
            **{demo.annotations: cohort / demo.source, **demo.options},
        )
    reporter.line(
        f"3/5 cache and train {demo.network}: "
        + ", ".join(f"{key} {value}" for key, value in demo.settings.items())
    )
    trained_run = train(
        out / "work", **demo.settings, task=task, seed=seed, out=out / "run", progress=reporter
    )
    reporter.line(f"4/5 evaluate the {demo.annotations} of the test split")
    found = demo.evaluate(trained_run.artefact, out / "work", progress=reporter)
    found.save(out / "report")
    reporter.line("5/5 predict one test study from its DICOM files")
    example = example_files(manifest)
    with load(trained_run.artefact) as predictor:
        prediction = predictor.predict(example)
        demo.write([prediction], predictor.card, out / demo.annotations)
    findings = found.numbers["findings"]
    result = {
        "report": str(out / "report" / "report.html"),
        "model": str(trained_run.artefact),
        demo.annotations: str(out / demo.annotations),
        **{key: {name: one[key] for name, one in findings.items()} for key in demo.shown},
        "example": prediction.as_dict() | {"path": str(example[0].parent)},
    }
    write_atomic(out / RESULT_FILE, json.dumps(result, indent=1).encode())
    return result, found
