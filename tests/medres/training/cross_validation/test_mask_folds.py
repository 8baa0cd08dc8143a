"""Cross-validation of segmenters."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from helpers import work_in_process

import medres
from data_pipelines.ingestion.manifest import Manifest
from medres.progress import ProgressReporter
from medres.training.cross_validation import folds
from medres.training.cross_validation.mask_folds import fold_lines, out_of_fold_dice


def test_patients_weigh_the_same_and_empty_references_do_not_count() -> None:
    rows = [
        ("a", "1", 0.8),
        ("b", "1", 0.6),  # two cases of one patient
        ("c", "2", 0.9),
        ("d", "3", None),  # its reference does not have the class
    ]
    cases = pd.DataFrame(rows, columns=["case", "patient", "dice"])
    cases = cases.assign(**{"class": "liver", "fold": 0, "seed": 4})
    summary = out_of_fold_dice(cases)
    assert summary["dice"] == pytest.approx((0.7 + 0.9) / 2)
    assert summary["dice_by_class"]["liver"]["n_patients"] == 2
    assert summary["seed_sd"] is None
    assert fold_lines(summary) == ["out-of-fold Dice of liver: 0.800"]
    again = pd.concat([cases, cases.assign(seed=5, dice=cases["dice"] - 0.1)])
    assert out_of_fold_dice(again)["seed_sd"] == pytest.approx(0.1 / 2**0.5)


@pytest.mark.long  # two runs
def test_every_patient_is_predicted_once(
    mask_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_in_process(monkeypatch)

    def here(run: folds.FoldRun, settings: Path, *rest: object) -> None:
        out, seed = run.out, run.seed
        medres.train(run.work, config=settings, seed=seed, out=out, progress=ProgressReporter())

    monkeypatch.setattr(folds, "_run", here)
    made = folds.cross_validate(
        mask_work,
        out=tmp_path / "cv",
        folds=2,
        progress=ProgressReporter(),
        task="segmentation",
        model="resnet10",
        width=4,
        stem="small",
        preset="xray-32",
        batch_size=4,
        epochs=1,
        precision="float32",
    )
    assert made.artefact is None
    assert made.scores is not None
    table = Manifest.load(mask_work).table
    outside = table[(table["split"] != "test") & (table["mask_state"] == "annotated")]
    assert sorted(made.scores["patient"].unique()) == sorted(outside["patient"].unique())
    assert not made.scores.duplicated(["case", "class"]).any()
    summary = json.loads((tmp_path / "cv/summary.json").read_text())
    assert set(summary["dice_by_class"]) == {"bright", "dark"}
    assert len(summary["runs"]) == 2
