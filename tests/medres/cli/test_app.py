from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from helpers import fails, medres

from data_pipelines.ingestion.manifest import Manifest


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import make_tiny_cohort

    folder = tmp_path_factory.mktemp("cli")
    make_tiny_cohort(folder, patients=12)
    return folder


@pytest.mark.parametrize(
    "verb", ["ingest", "cache", "train", "verify", "predict", "wrap", "demo", "evaluate"]
)
def test_every_verb_has_help(verb: str) -> None:
    done = medres(verb, "--help")
    assert done.exit_code == 0
    assert "sage" in done.output


def test_verbs_stand_in_the_order_of_the_work() -> None:
    done = medres("--help")
    rows = re.findall(r"^\W*([a-z]+)  ", done.output.split("Commands")[1], re.MULTILINE)
    assert rows == [
        *("doctor", "ingest", "inspect", "cache", "plan", "weights", "train", "search", "evaluate"),
        *("verify", "predict", "export", "parity", "serve", "wrap", "demo", "study"),
    ]


def test_serve_is_shown_as_people_type_it() -> None:
    usage = re.search(r"Usage: (.+)", medres("serve", "--help").output)[1]
    assert usage.split()[1:3] == ["serve", "[OPTIONS]"]
    assert "model.keras" in usage.lower()
    usage = re.search(r"Usage: (.+)", medres("serve", "pull", "--help").output)[1]
    assert usage.split()[1:] == ["serve", "pull", "[OPTIONS]"]
    assert "medres serve run" not in medres("serve").output


def test_the_version_is_printed() -> None:
    done = medres("--version")
    assert (done.exit_code, done.output) == (0, f"medres {version('medres')}\n")


def test_help_is_light() -> None:
    script = (
        "import sys; from medres.cli.app import app; print(sorted({'tensorflow', 'keras', "
        "'pandas', 'pydicom'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_ingest_cache_train_predict(cohort: Path, tmp_path: Path) -> None:
    work, run = tmp_path / "work", tmp_path / "run"
    done = medres(
        "ingest", cohort / "images", "--labels", cohort / "labels.csv", "--out", work, "--json"
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["given"] == 24
    done = medres("cache", work, "--preset", "xray-32", "--json")
    assert done.exit_code == 0, done.stderr
    assert sum(json.loads(done.stdout)["images"].values()) == 24
    done = medres(
        "train",
        work,
        "--model",
        "resnet10",
        "--width",
        8,
        "--preset",
        "xray-32",
        "--epochs",
        1,
        "--batch-size",
        8,
        "--out",
        run,
    )
    assert done.exit_code == 0, done.stderr
    assert (run / "model.keras").is_file()
    note = tmp_path / "note.txt"
    note.write_text("not DICOM")
    done = medres(
        "predict", run / "model.keras", cohort / "images" / "TINY001-0.dcm", note, "--json"
    )
    assert done.exit_code == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first.keys() >= {"path", "probabilities", "decisions", "refused"}
    assert first["refused"] is None
    assert 0 <= first["probabilities"]["square"] <= 1
    assert isinstance(first["decisions"]["square"], bool)
    assert second["refused"]
    assert second["probabilities"] == {}


def test_an_output_folder_that_exists_is_an_error(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine.txt").write_text("keep")
    done = medres(
        "ingest", cohort / "images", "--labels", cohort / "labels.csv", "--out", tmp_path / "work"
    )
    assert str(tmp_path / "work") in fails(done)
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["mine.txt"]


def test_a_folder_without_dicom(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "DICOM" in fails(medres("ingest", tmp_path / "empty", "--out", tmp_path / "work"))
    assert not (tmp_path / "work").exists()


def test_paths_that_are_not_there(tmp_path: Path, tiny_run: Path) -> None:
    fails(medres("ingest", tmp_path / "absent", "--out", tmp_path / "work"))
    fails(medres("cache", tmp_path / "absent", "--preset", "xray-32"))
    fails(medres("train", tmp_path / "absent", "--out", tmp_path / "run"))
    fails(medres("predict", tmp_path / "absent.keras", tmp_path))
    fails(medres("predict", tiny_run / "model.keras", tmp_path / "absent.dcm"))


def test_wrong_usage_exits_2(tiny_work: Path, tmp_path: Path) -> None:
    fails(medres("train", tiny_work), code=2)
    fails(medres("ingest"), code=2)
    fails(medres("cache", tiny_work), code=2)
    fails(medres("frobnicate"), code=2)
    fails(medres("train", tiny_work, "--out", tmp_path / "run", "--epochs", "many"), code=2)
    fails(
        medres(
            "train", tiny_work, "--out", tmp_path / "run", "--preset", "ct-32", "--window", "1,x"
        ),
        code=2,
    )


@pytest.mark.parametrize(
    ("arguments", "mention"),
    [
        (["--preset", "mri-9"], "mri-9"),
        (["--preset", "ct-32"], "radiograph"),
        (["--recipe", "magic"], "'magic'"),
        (["--model", "resnet19", "--preset", "xray-32"], "resnet19"),
        (["--epochs", "0"], "epochs"),
        (["--augment", "wild", "--preset", "xray-32"], "wild"),
        (
            ["--augment", "ct_slice", "--preset", "xray-32"],
            "ct_slice",
        ),
        (["--window", "lung", "--preset", "xray-32"], "setting windows"),
        (["--weights", "absent.h5", "--preset", "xray-32"], "absent.h5"),
    ],
)
def test_settings_that_cannot_be(
    tiny_work: Path, tmp_path: Path, arguments: list[str], mention: str
) -> None:
    assert mention in fails(medres("train", tiny_work, "--out", tmp_path / "run", *arguments))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_a_full_disk_and_ctrl_c(
    tiny_work: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: BaseException,
    message: str,
) -> None:
    work = tmp_path / "work"
    shutil.copytree(tiny_work, work, ignore=shutil.ignore_patterns("cache"))

    def breaks(*_: object) -> None:
        raise error

    monkeypatch.setattr("data_pipelines.cache.builder._write_shard", breaks)
    done = medres("cache", work, "--preset", "xray-32")
    assert done.exit_code == 1
    assert done.stderr.strip().splitlines()[-1].startswith("medres: ")
    assert message in done.stderr.strip().splitlines()[-1]
    assert all(
        path.name.startswith(".") for path in (work / "cache").iterdir()
    )  # only what is needed to resume


def test_a_fault_of_ours_is_one_line_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("Doe^John")

    monkeypatch.delenv("MEDRES_DEBUG", raising=False)
    monkeypatch.setattr("medres.inspection.environment.examine", broken)
    message = fails(medres("doctor"))
    assert "RuntimeError" in message
    assert "Doe" not in message


def test_evaluate_is_a_verb_like_the_others() -> None:
    from typer.main import get_command

    from medres.cli.app import app

    names = [name for param in get_command(app).commands["evaluate"].params for name in param.opts]
    assert {"--scores", "--tune", "--split", "--json", "--out", "--operating-point"} <= set(names)
    fails(medres("evaluate", "--scores", "s.csv", "--threshold", "a=b", "--out", "R"), code=2)


def test_debug_shows_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDRES_DEBUG", "")
    done = medres("--debug", "cache", tmp_path, "--preset", "xray-32")
    assert done.exit_code == 1
    assert isinstance(done.exception, Exception)
    assert not isinstance(done.exception, SystemExit)


def test_a_damaged_manifest_is_one_line(tiny_work: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(tiny_work, work)
    Manifest.load(work).table.drop(columns="split").to_parquet(work / "manifest.parquet")
    assert "manifest.parquet" in fails(
        medres("train", work, "--preset", "xray-32", "--out", tmp_path / "run")
    )
