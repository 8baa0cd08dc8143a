"""The verbs about data from the command line: what each option does, and one clear line where it
cannot.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import fails, medres, work_in_process
from PIL import Image

from data_pipelines.ingestion.manifest import Manifest


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in class folders: in/cat and in/dog, twelve each."""
    root = tmp_path_factory.mktemp("folders") / "in"
    for n in range(24):
        path = root / ("cat", "dog")[n % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (20, 20)).astype(np.uint8)).save(
            path
        )
    return root


@pytest.fixture(scope="module")
def labels(folders: Path) -> Path:
    path = folders.parent / "labels.csv"
    rows = [
        {
            "path": p.relative_to(folders).as_posix(),
            "x": int(p.stem) % 2,
            "patient": f"P{int(p.stem) // 2}",
            "site": ("north", "south")[int(p.stem) // 2 % 2],
        }
        for p in sorted(folders.rglob("*.png"))
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    work_in_process(monkeypatch)


def test_class_folders_to_a_work_folder(folders: Path, tmp_path: Path) -> None:
    assert "--units" in fails(medres("ingest", folders, "--out", tmp_path / "work"))
    options = (
        "--units",
        "display",
        "--class-folders",
        "--finding",
        "dog",
        "--fractions",
        "0.5,0.25,0.25",
    )
    done = medres("ingest", folders, *options, "--out", tmp_path / "work", "--json")
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert [summary["splits"][s]["images"] for s in ("train", "tune", "test")] == [12, 6, 6]
    table = Manifest.load(tmp_path / "work").table
    assert all(table["label:dog"] == table["path"].str.startswith("dog"))


def test_splits_of_every_kind(folders: Path, labels: Path, tmp_path: Path) -> None:
    base = ("ingest", folders, "--units", "display", "--labels", labels)
    done = medres(
        *base, "--external-site", "site=North", "--folds", "2", "--out", tmp_path / "external"
    )
    assert done.exit_code == 0, done.stderr
    table = Manifest.load(tmp_path / "external").table
    assert ((table["split"] == "test") == (table["site"] == "north")).all()
    assert ((table["fold"] == -1) == (table["split"] == "test")).all()
    key = tmp_path / "external" / "pseudonym.key"
    done = medres(
        *base, "--splits-from", tmp_path / "external", "--out", tmp_path / "later", "--json"
    )
    assert json.loads(done.stdout)["splits_kept"] == {"patient_groups": 12, "new_patient_groups": 0}
    later = Manifest.load(tmp_path / "later").table.set_index("image")["split"]
    assert (later[table["image"]].to_numpy() == table["split"].to_numpy()).all()
    done = medres(
        *base, "--split-mode", "hash", "--key-file", key, "--out", tmp_path / "hash", "--json"
    )
    assert json.loads(done.stdout)["split_origin"] == "hash"
    both = medres(
        *base, "--split-mode", "hash", "--splits-from", tmp_path / "later", "--out", tmp_path / "no"
    )
    assert "exclude each other" in fails(both)


def test_readers_are_reconciled_or_refused(folders: Path, labels: Path, tmp_path: Path) -> None:
    table = pd.read_csv(labels)
    second = table.assign(x=np.where(table.index % 6 == 0, 1 - table["x"], table["x"]))
    pd.concat([table, second]).to_csv(tmp_path / "two.csv", index=False)
    base = ("ingest", folders, "--units", "display", "--labels", tmp_path / "two.csv")
    assert "--readers majority, any, uncertain" in fails(medres(*base, "--out", tmp_path / "a"))
    done = medres(*base, "--readers", "uncertain", "--out", tmp_path / "b", "--json")
    assert json.loads(done.stdout)["readers"]["disagreements"] == {"x": 4}
    assert (Manifest.load(tmp_path / "b").table["label:x"] == -1).sum() == 4


def test_limits_and_wrong_usage(folders: Path, tmp_path: Path) -> None:
    base = ("ingest", folders, "--units", "display", "--out", tmp_path / "work")
    assert "write NAME=NUMBER" in fails(medres(*base, "--limit", "seconds"))
    assert "Choose one of seconds, memory, file, inflated, depth" in fails(
        medres(*base, "--limit", "cpu=1")
    )
    for options in (
        ("--fractions", "x"),
        ("--external-site", "north"),
        ("--units", "raw"),
        ("--leaks", "keep"),
    ):
        fails(medres(*base, *options), code=2)
    assert not (tmp_path / "work").exists()


def test_inspect_and_doctor_from_the_command_line(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    medres("ingest", folders, "--units", "display", "--class-folders", "--out", tmp_path / "work")
    done = medres("inspect", tmp_path / "work", "--out", tmp_path / "page.html", "--json")
    assert json.loads(done.stdout) == {"page": str(tmp_path / "page.html")}
    assert "cat" in (tmp_path / "page.html").read_text()
    assert "has no manifest" in fails(medres("inspect", tmp_path))
    monkeypatch.setattr(
        "medres.inspection.environment.ask_tensorflow",
        lambda: {"error": "TensorFlow cannot be imported: x"},
    )
    done = medres("doctor")
    assert done.exit_code == 0
    assert "JPEG 2000" in done.stdout
    assert "problem: TensorFlow cannot be imported" in done.stdout


def test_cache_tells_its_size_and_is_verified(folders: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert (
        medres("ingest", folders, "--units", "display", "--class-folders", "--out", work).exit_code
        == 0
    )
    assert medres("cache", work, "--verify").stdout.startswith("no cache in")
    done = medres("cache", work, "--preset", "xray-16")
    assert done.exit_code == 0, done.stderr
    assert "24 samples of xray-16, 0.0 MiB" in done.stderr
    assert "24 images in" in done.stdout
    assert medres("cache", work, "--verify").stdout.strip().endswith(": intact")
    shard = next(work.glob("cache/*/train-*.tfrecord"))
    data = bytearray(shard.read_bytes())
    data[50] ^= 4
    shard.write_bytes(data)
    done = medres("cache", work, "--verify", "--json")
    assert done.exit_code == 1
    assert "damaged" in next(iter(json.loads(done.stdout).values()))[0]
    for wrong in (
        (),
        ("--verify", "--preset", "xray-16"),
        ("--preset", "xray-16", "--spec", "x.json"),
    ):
        fails(medres("cache", work, *wrong), code=2)
    assert "ct25d-SIZE" in fails(medres("cache", work, "--preset", "mri-16"))
