"""The whole chain on a synthetic cohort, with the same functions as real work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.ingestion.pipeline import ingest
from data_pipelines.kinds import RADIOGRAPH
from data_pipelines.runtime.atomic_files import require_new, write_atomic
from data_pipelines.synthetic.cohort import make_cohort
from medres.evaluate.report import evaluate
from medres.inference.loading import load
from medres.inference.scoring import score
from medres.progress import ProgressReporter
from medres.training.run import train

RESULT_FILE = "demo.json"  # marks the folder of a demo
PATIENTS = 160
SETTINGS: dict[str, Any] = {
    "model": "resnet18",
    "preset": "xray-64",
    "width": 16,
    "batch_size": 16,
    "epochs": 16,
}


def run(out: Path, *, seed: int = 0, progress: ProgressReporter | None = None) -> dict[str, Any]:
    """Make a cohort in `out`, ingest, cache, train, evaluate and predict; returns the AUC and the
    paths of the results.

    An earlier demo in `out` is replaced; any other content is an error.
    """
    out, reporter = claim_folder(out), progress or ProgressReporter()
    reporter.line("1/5 make a cohort of synthetic DICOM files")
    make_cohort(out / "dicom", patients=PATIENTS, seed=seed)
    reporter.line("2/5 ingest: index, check, group, split by patient")
    with reporter.task("ingest") as update:
        manifest = ingest(
            out / "dicom", out / "dicom" / "labels.csv", out / "work", seed=seed, progress=update
        )
    reporter.line(
        "3/5 cache and train a narrow ResNet-18 on the radiographs: "
        + ", ".join(f"{k} {v}" for k, v in SETTINGS.items())
    )
    trained_run = train(out / "work", **SETTINGS, seed=seed, out=out / "run", progress=reporter)
    reporter.line("4/5 evaluate the test split")
    report = evaluate(score(trained_run.artefact, out / "work"))
    report.save(out / "report")
    reporter.line("5/5 predict one test study from its DICOM files")
    example = example_files(manifest)
    prediction = load(trained_run.artefact).predict(example)
    finding = next(iter(report.numbers["findings"].values()))
    result = {
        "report": str(out / "report" / "report.html"),
        "model": str(trained_run.artefact),
        "auc": finding["auc"],
        "example": prediction.as_dict() | {"path": str(example[0].parent)},
    }
    write_atomic(out / RESULT_FILE, json.dumps(result, indent=1).encode())
    return result


def claim_folder(out: Path | str) -> Path:
    """The folder of a demo, empty but for its mark. An earlier demo there is removed; any other
    content is an error (InputError, output_exists).
    """
    out = Path(out)
    if (out / RESULT_FILE).exists():
        shutil.rmtree(out)
    require_new(out, what="the demo")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / RESULT_FILE, b"{}")
    return out


def example_files(manifest: Manifest) -> list[Path]:
    """The files of the first test study that is a radiograph."""
    table = manifest.table
    rows = table[(table["split"] == "test") & (table["kind"] == RADIOGRAPH.name)]
    rows = rows[rows["study"] == min(rows["study"])]
    return [Path(source) / path for source, path in zip(rows["source"], rows["path"], strict=True)]
