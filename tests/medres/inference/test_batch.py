from __future__ import annotations

import csv
import functools
import json
import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import write_cr
from fake_cluster import FakeCluster
from helpers import medres as medres_command
from helpers import raises_code

import medres
from data_pipelines.errors import EngineError, InputError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.runtime.engines.distributed import DistributedEngine
from medres.inference import batch


@pytest.fixture(scope="module")
def predictor(tiny_run: Path) -> medres.Predictor:
    return medres.load(tiny_run / "model.keras")


@pytest.fixture
def folder(tiny_work: Path, tmp_path: Path) -> Path:
    """Studies of two images each, a damaged file, an image of stripes, a text file and a link."""
    source = Path(Manifest.load(tiny_work).table["source"].iloc[0])
    folder = tmp_path / "in"
    folder.mkdir()
    files = sorted(source.iterdir())[:8]
    for file in files:
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "cut.dcm").write_bytes(files[0].read_bytes()[:-500])
    stripes = np.zeros((40, 40))
    stripes[::2] = 4000
    write_cr(folder / "odd.dcm", stripes, patient="ODD", study="9")
    (folder / "=note.txt").write_text("no DICOM")
    (folder / "link.dcm").symlink_to(files[0])
    return folder


def test_many_studies_are_answered_as_one_by_one_and_every_file_is_accounted_for(
    predictor, folder: Path, tmp_path: Path
) -> None:
    summary = batch.predict_all(predictor, [folder], tmp_path / "out")
    assert (summary["given"], summary["answered"], summary["quarantined"]) == (7, 3, 4)
    assert summary["files"] == 11
    assert summary["reasons"] == {
        "not_dicom": 1,
        "refused": 1,
        "symbolic_link": 1,
        "truncated_pixels": 1,
    }
    assert json.loads((tmp_path / "out" / "predict.json").read_text()) == summary
    document = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert (document["task"], len(document["studies"])) == ("binary", 6)
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    one_by_one = {p.path: p for p in predictor.predict_many([folder]) if p.refused is None}
    assert rows.keys() == one_by_one.keys()
    for path, row in rows.items():
        assert float(row["probability:square"]) == one_by_one[path].probabilities["square"]
        assert row["decision:square"] == str(one_by_one[path].decisions["square"])
        assert row["images"] == "2"
    with (tmp_path / "out" / "quarantine.csv").open() as file:
        quarantined = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    reasons = {name: (row["reason"], row["code"]) for name, row in quarantined.items()}
    assert reasons["odd.dcm"] == ("refused", "out_of_distribution")
    assert reasons["=note.txt"] == ("not_dicom", "not_dicom")
    assert reasons["link.dcm"] == ("symbolic_link", "symbolic_link")


def test_a_stopped_run_goes_on_after_the_last_whole_line(
    predictor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = batch.predict_all(predictor, [folder], tmp_path / "whole")
    predictions = batch.predict_studies

    def stopped(parts, /, **options):
        for number, record in enumerate(predictions(parts, **options)):
            if number == 2:
                raise KeyboardInterrupt
            yield record

    monkeypatch.setattr(batch, "predict_studies", stopped)
    with pytest.raises(KeyboardInterrupt):
        batch.predict_all(predictor, [folder], tmp_path / "out")
    with (tmp_path / "out" / batch.LINES).open("a") as file:
        file.write('{"key": "half a li')
    sizes: list[int] = []

    def counted(parts, /, **options):
        sizes.append(len(parts))
        return predictions(parts, **options)

    monkeypatch.setattr(batch, "predict_studies", counted)
    assert batch.predict_all(predictor, [folder], tmp_path / "out") == whole
    assert sizes == [4]
    for name in ("predictions.csv", "quarantine.csv", "predict.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len((tmp_path / "out" / batch.LINES).read_text().splitlines()) == 1 + 6


def test_another_engine_writes_the_same_tables(
    predictor, folder: Path, tmp_path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = batch.predict_all(predictor, [folder], tmp_path / "here")
    reopen = functools.partial(medres.load, tiny_run / "model.keras")
    monkeypatch.setattr(batch, "_open_predictors", {predictor.artefact.sha256: predictor})
    cluster = FakeCluster(lost=[1, 0, 0, 2])
    engine = DistributedEngine(cluster)
    there = batch.predict_all(predictor, [folder], tmp_path / "there", engine=engine, reopen=reopen)
    assert here == there
    assert len(cluster.submitted) > 6
    for path in (tmp_path / "here").iterdir():
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes()


def test_a_machine_needs_the_same_model_file(predictor, folder: Path, tmp_path: Path) -> None:
    engine = DistributedEngine(FakeCluster())
    with raises_code(EngineError, "no_reopen"):
        batch.predict_all(predictor, [folder], tmp_path / "a", engine=engine)
    reopen = functools.partial(medres.load, tmp_path / "absent.keras")
    with raises_code(EngineError, "model_not_shared"):
        batch.predict_all(predictor, [folder], tmp_path / "b", engine=engine, reopen=reopen)


def test_no_earlier_answer_stands_for_a_file_that_was_replaced(
    predictor, folder: Path, tmp_path: Path
) -> None:
    """Same path, same size, same time of modification; another patient."""
    file, other = folder / "TINY000-0.dcm", folder / "TINY001-0.dcm"
    for each in folder.iterdir():
        if each not in (file, other):
            each.unlink()
    data, status = other.read_bytes(), file.stat()
    other.unlink()
    batch.predict_all(predictor, [folder], tmp_path / "out")
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    batch.predict_all(predictor, [folder], tmp_path / "out")
    with (tmp_path / "out" / "predictions.csv").open() as table:
        (row,) = csv.DictReader(table)
    expected = predictor.predict(data)
    assert row["study_uid"] == expected.study_uid
    assert float(row["probability:square"]) == expected.probabilities["square"]


def test_what_a_person_allows_afterwards_is_predicted(
    predictor, folder: Path, tmp_path: Path
) -> None:
    for file in folder.iterdir():
        if not file.name.startswith("TINY000"):
            file.unlink()
    dataset = pydicom.dcmread(folder / "TINY000-0.dcm")
    dataset.PatientName = "Doe^Jane"
    dataset.save_as(folder / "TINY000-0.dcm")
    dataset = pydicom.dcmread(folder / "TINY000-1.dcm")
    dataset.PatientName = "Roe^Jane"
    dataset.save_as(folder / "TINY000-1.dcm")
    out = tmp_path / "out"
    assert batch.predict_all(predictor, folder, out)["quarantined"] == 1
    assert batch.predict_all(predictor, folder, out, allow_name_mismatch=True)["answered"] == 1


def test_the_command_writes_tables_or_overlays(
    tiny_run: Path, folder: Path, tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from medres.cli.app import app

    def run(*arguments: object):
        return CliRunner().invoke(
            app, ["predict", str(tiny_run / "model.keras"), *map(str, arguments)]
        )

    done = run(folder, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("7 studies: 3 predicted, 4 quarantined (not_dicom 1, refused 1, ")
    done = run(folder, "--saliency", tmp_path / "seen", "--method", "gradcam++", "--json")
    assert done.exit_code == 0, done.stderr
    answers = json.loads(done.stdout)
    drawn = [Path(one["saliency"]) for one in answers if one["refused"] is None]
    assert len(drawn) == 3
    assert all(
        path.read_bytes().startswith(b"\x89PNG") and path.with_suffix(".npz").is_file()
        for path in drawn
    )
    done = run(folder, "--saliency", tmp_path / "seen")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert str(tmp_path / "seen") in done.stderr
    assert run(folder, "--saliency", tmp_path / "a", "--out", tmp_path / "b").exit_code == 2


def test_limits_hold_one_by_one_and_in_many(tiny_run: Path, folder: Path, tmp_path: Path) -> None:
    file = folder / "odd.dcm"
    limited = ("--limit", "file=1KiB", "--json")
    (one,) = json.loads(medres_command("predict", tiny_run / "model.keras", file, *limited).stdout)
    assert "1024" in one["refused"]
    many = json.loads(
        medres_command(
            "predict", tiny_run / "model.keras", file, "--out", tmp_path / "out", *limited
        ).stdout
    )
    assert many["reasons"] == {"limit_exceeded": 1}


def test_a_folder_of_something_else_is_left_alone(predictor, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with raises_code(InputError, "output_exists", "mine"):
        batch.predict_all(predictor, [folder], tmp_path / "mine")
    (tmp_path / "mine" / "notes.txt").unlink()
    (tmp_path / "mine" / batch.LINES).write_text('{"model_sha256": "other"}\n')
    with raises_code(InputError, "output_exists", "mine"):
        batch.predict_all(predictor, [folder], tmp_path / "mine")
    (tmp_path / "mine" / batch.LINES).write_text("nonsense\n")
    with raises_code(InputError, "output_exists", batch.LINES):
        batch.predict_all(predictor, [folder], tmp_path / "mine")


def test_each_study_has_its_objects_beside_the_tables(
    predictor, folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom", reason="the extra medres[results] is not installed")
    batch.predict_all(predictor, [folder], tmp_path / "out", objects=True)
    document = json.loads((tmp_path / "out" / "predictions.json").read_text())
    reports = 0
    for study in document["studies"]:
        assert study["refused_objects"] == []
        assert len(study["objects"]) == (0 if study["refused"] else 3)
        for name in study["objects"]:
            reports += name.endswith("_report.dcm")
            assert (tmp_path / "out" / name).is_file()
    assert reports == 3
