"""Beside a real PACS: Orthanc and DCMTK of Debian."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import data_pipelines
import medres
from data_pipelines.ingestion.manifest import Manifest

ROOT = Path(__file__).parents[3]


def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("orthanc", ROOT / "benchmarks/serve_orthanc.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MISSING = benchmark().what_is_missing()
pytestmark = [
    pytest.mark.long,  # trains two models, starts Orthanc and the server
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}"),
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct") / "cohort"
    return data_pipelines.make_cohort(folder, 12, 0, only="ct", task="segmentation")


def model_of(cohort: Path, folder: Path, **options: Any) -> tuple[Path, list[Path]]:
    """A model, and the files of a study that it accepts."""
    labels, work = cohort / "labels.csv", folder / "work"
    if "task" in options:
        classes = {"1": "lung", "2": "nodule"}
        data_pipelines.ingest(
            cohort, None, work, masks=cohort / "masks", mask_classes=classes, seed=1
        )
    else:
        data_pipelines.ingest(cohort, labels, work, findings=("nodule",), seed=1)
    medres.train(
        work, model="resnet10", preset="ct-32", width=4, epochs=1, batch_size=8, seed=3,
        out=folder / "run", **options,
    )  # fmt: skip
    table = Manifest.load(work).table
    study = table[table["study"] == table["study"].iloc[-1]]
    files = []
    for number, row in enumerate(study.itertuples()):
        files.append(folder / f"{number:03d}.dcm")
        shutil.copyfile(Path(row.source) / row.path, files[-1])
    return folder / "run" / "model.keras", files


def test_a_ct_comes_from_orthanc_and_its_report_and_overlay_go_back(
    cohort: Path, tmp_path: Path
) -> None:
    model, files = model_of(cohort, tmp_path)
    result = benchmark().measure(model, files, down=60, studies=3)
    assert result["held"] == {"CT": len(files), "OT": 1, "SR": 1}
    check(result)
    assert result["held_after_down"] == {"OT": 1, "SR": 1}
    assert result["states_after_down"] == {"sent": 3}
    assert result["all_hold_the_same"]
    assert result["objects_sent_twice"] == 0


def test_masks_go_back_as_a_segmentation(cohort: Path, tmp_path: Path) -> None:
    options = {"task": "segmentation", "stem": "small", "augment": "none"}
    model, files = model_of(cohort, tmp_path, **options)
    result = benchmark().measure(model, files, down=1)
    assert result["held"] == {"CT": len(files), "OT": 1, "SEG": 1, "SR": 1}
    check(result)


def check(result: dict[str, Any]) -> None:
    assert (result["state"], result["revisions"], result["added_by_sending_again"]) == (
        "sent",
        1,
        0,
    )
    assert result["report_equals_json"]
    assert result["cli_equals_json"]
