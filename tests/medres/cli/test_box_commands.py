"""`medres evaluate --boxes`, without TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import fails, medres
from made_boxes import made_boxes


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for name, seed in (("test", 1), ("tune", 2)):
        reference, predictions = made_boxes(seed, images=16)
        (tmp_path / f"{name}-reference.json").write_text(json.dumps(reference))
        (tmp_path / f"{name}.json").write_text(json.dumps(predictions))
        (tmp_path / f"{name}-half.json").write_text(json.dumps(predictions[::2]))
    rows = [f"{image['id']},P{i // 2},{'AB'[i % 2]}" for i, image in enumerate(reference["images"])]
    (tmp_path / "patients.csv").write_text("\n".join(["image_id,patient,site", *rows]))
    return tmp_path / "test.json", tmp_path / "test-reference.json"


def test_report_and_lines(files: tuple[Path, Path], tmp_path: Path) -> None:
    boxes, reference = files
    out = tmp_path / "out"
    options = ("--boxes", boxes, "--reference", reference, "--out", out)
    more = ("--patients", tmp_path / "patients.csv", "--subgroup", "site", "--unit", "patient")
    frozen = (
        "--tune",
        tmp_path / "tune.json",
        "--tune-reference",
        tmp_path / "tune-reference.json",
    )
    other = ("--compare", tmp_path / "test-half.json", "--threshold", "class1=0.4")
    run = medres("evaluate", *options, *more, *frozen, *other)
    assert run.exit_code == 0, run.output
    assert "class0: AP50 0." in run.stdout
    assert "AP50 of predictions - test-half" in run.stdout
    report = json.loads((out / "report.json").read_text())
    assert (report["task"], report["analysis_unit"]) == ("detection", "patient")
    points = report["findings"]["class1"]["operating_points"]
    assert [point["origin"] for point in points] == ["declared", "frozen"]
    again = medres("evaluate", *options, "--overwrite", "--json", "--hit", "iou")
    assert json.loads(again.stdout)["findings"]["class0"]["ap"]["estimate"] > 0
    assert json.loads((out / "report.json").read_text())["hit_rule"] == "iou"


def test_wrong_usage(files: tuple[Path, Path], tmp_path: Path) -> None:
    boxes, reference = files
    out = ("--out", tmp_path / "out")
    both = ("--boxes", boxes, "--reference", reference)
    fails(medres("evaluate", "--boxes", boxes, *out), code=2)
    fails(medres("evaluate", *both, "--margin", "0.1", *out), code=2)
    fails(medres("evaluate", *both, "--threshold", "high", *out), code=2)
    fails(medres("evaluate", *both, "--tune", boxes, *out), code=2)
    fails(medres("evaluate", "--scores", "x.csv", "--hit", "iou", *out), code=2)
    fails(medres("evaluate", "--scores", "x.csv", "--reference", reference, *out), code=2)
    fails(medres("evaluate", "--boxes", tmp_path / "absent.json", "--reference", reference, *out))
    assert not (tmp_path / "out").exists()
