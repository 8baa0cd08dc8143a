from __future__ import annotations

import csv
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pydicom
import pytest
from canaries import CANARIES, encodings, radiograph, with_canaries
from helpers import raises_code

from data_pipelines.dicom.writer import derived_uid, save
from data_pipelines.errors import DicomError, InputError, LabelError, ManifestError, SplitError
from data_pipelines.ingestion.file_inspection import inspect_file
from data_pipelines.ingestion.index import FileIndex, index_sources
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.ingestion.pipeline import build, ingest
from data_pipelines.labels.table import read_labels
from data_pipelines.pseudonyms import PseudonymKey
from data_pipelines.splits.assignment import SplitOptions
from data_pipelines.synthetic.cohort import make_cohort

KEY = PseudonymKey(b"k" * 64, "file")

PARTS = {".part", ".key"}  # of an ingest that goes on: what was read, and its key


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("cohort") / "dicom", patients=12, seed=5)


@pytest.fixture(scope="module")
def index(cohort: Path) -> FileIndex:
    return index_sources([cohort], exclude=[cohort / "labels.csv"], workers=2)


@pytest.fixture(scope="module")
def work(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("work") / "work"
    patch = pytest.MonkeyPatch()
    patch.delenv("MEDRES_KEY", raising=False)
    ingest(cohort, cohort / "labels.csv", out, seed=1, workers=2)
    patch.undo()
    return out


def build_with_labels(index: FileIndex, tmp_path: Path, text: str, **options: object) -> Manifest:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return build(index, read_labels(path), KEY, **options)


def rows_of(cohort: Path) -> list[dict[str, str]]:
    with (cohort / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def table_of(rows: list[dict]) -> str:
    return (
        "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n"
    )


# ---- what a sound cohort becomes


def test_every_file_is_counted_once(work: Path, cohort: Path) -> None:
    summary = json.loads((work / "ingest.json").read_text())
    files = [p for p in cohort.rglob("*") if p.is_file() and p.name != "labels.csv"]
    assert summary["given"] == len(files)
    assert summary["given"] == sum(summary[k] for k in ("ok", "repaired", "quarantined", "skipped"))
    assert summary["reasons"] == {
        "duplicate": 1,
        "localizer": 1,
        "not_dicom": 1,
        "truncated_pixels": 1,
    }
    assert (summary["quarantined"], summary["skipped"]) == (3, 1)
    listed = pd.read_csv(work / "quarantine.csv")
    table = Manifest.load(work).table
    assert sorted([*listed["path"], *table["path"]]) == sorted(
        p.relative_to(cohort).as_posix() for p in files
    )


def test_the_folder_holds_its_own_secret_key(work: Path) -> None:
    assert sorted(p.name for p in work.iterdir()) == [
        "audit.csv",
        "ingest.json",
        "manifest.parquet",
        "pseudonym.key",
        "quarantine.csv",
    ]
    assert stat.S_IMODE((work / "pseudonym.key").stat().st_mode) == 0o600
    assert json.loads((work / "ingest.json").read_text())["pseudonym_key"] == "made"


def test_labels_and_headers_arrive(work: Path, cohort: Path) -> None:
    table = Manifest.load(work).table.set_index("path")
    for row in rows_of(cohort):
        if row["path"] in table.index:
            image = table.loc[row["path"]]
            assert image["label:nodule"] == float(row["nodule"])
            assert (image["sex"], image["site"], image["age"]) == (
                row["sex"],
                row["site"],
                min(90, float(row["age"])),
            )
            dataset = pydicom.dcmread(cohort / row["path"], stop_before_pixels=True)
            assert image["manufacturer"] == dataset.Manufacturer
            assert image["kind"] == ("ct" if dataset.Modality == "CT" else "radiograph")


def test_slices_are_in_order_of_position(work: Path, cohort: Path) -> None:
    table = Manifest.load(work).table
    slices = table[table["kind"] == "ct"].sort_values(["series", "order"])
    assert slices["series"].nunique() == 2
    for _, series in slices.groupby("series"):
        heights = [
            pydicom.dcmread(cohort / path).ImagePositionPatient[2] for path in series["path"]
        ]
        assert heights == sorted(heights)
        assert series["order"].tolist() == list(range(10))
        assert set(series["verdict"]) == {"REGULAR"}
    assert set(table.loc[table["kind"] == "radiograph", "verdict"]) == {"SINGLE"}


def test_splits_hold_whole_patients_and_every_class(work: Path) -> None:
    manifest = Manifest.load(work)
    assert manifest.table.groupby("patient")["split"].nunique().max() == 1
    for name, counts in manifest.summary["splits"].items():
        part = manifest.table[manifest.table["split"] == name]
        assert (counts["patients"], counts["studies"], counts["images"]) == (
            part["patient"].nunique(),
            part["study"].nunique(),
            len(part),
        )
        assert counts["classes"]["nodule"]["1"] == (part["label:nodule"] == 1).sum() > 0
        assert counts["classes"]["nodule"]["0"] == (part["label:nodule"] == 0).sum() > 0


def test_ids_are_pseudonyms(work: Path, cohort: Path) -> None:
    table = Manifest.load(work).table
    raw = pydicom.dcmread(cohort / table["path"].iloc[0])
    secret = (work / "pseudonym.key").read_bytes()
    assert table["patient"].iloc[0] == PseudonymKey(secret, "made").pseudonym(
        "patient", "medresphantom", raw.PatientID.lower()
    )
    assert table["study"].iloc[0] == PseudonymKey(secret, "made").pseudonym(
        "study", raw.StudyInstanceUID
    )
    for name in ("image", "series", "study", "patient"):
        assert table[name].str.fullmatch("[0-9a-f]{32}").all()


def test_the_split_follows_from_the_seed_and_not_from_the_key(
    index: FileIndex, cohort: Path
) -> None:
    labels = read_labels(cohort / "labels.csv")
    first, other_key = (
        build(index, labels, PseudonymKey(k * 64, "made"), split_options=SplitOptions(seed=1)).table
        for k in (b"a", b"b")
    )
    assert (first["split"] == other_key["split"]).all()
    assert not set(first["patient"]) & set(other_key["patient"])
    drawn = {
        tuple(build(index, labels, KEY, split_options=SplitOptions(seed=seed)).table["split"])
        for seed in range(4)
    }
    assert len(drawn) == 4


def test_in_memory_nothing_is_written(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrote(**_: object) -> None:
        pytest.fail("wrote")

    # not tempfile itself: the shared memory of the workers is made with it
    files = SimpleNamespace(mkstemp=wrote, mkdtemp=wrote)
    monkeypatch.setattr("data_pipelines.runtime.atomic_files.tempfile", files)
    monkeypatch.setenv("MEDRES_KEY", "e" * 64)
    manifest = ingest(
        [cohort / "PHANTOM-0001", cohort / "PHANTOM-0002", cohort / "PHANTOM-0003"], workers=1
    )
    assert manifest.work is None
    assert (manifest.summary["task"], manifest.summary["pseudonym_key"]) == ("none", "environment")
    assert manifest.summary["splits"]["train"]["patients"] == 1
    assert manifest.table["source"].nunique() == 3


def test_patient_labels(index: FileIndex, tmp_path: Path) -> None:
    lines = "".join(f"phantom-{n:04d},{n % 2}\n" for n in range(1, 13))
    manifest = build_with_labels(index, tmp_path, "patient_id,x\n" + lines)
    assert manifest.summary["label_level"] == "patient"
    assert manifest.table.groupby("patient")["label:x"].nunique().max() == 1
    assert set(manifest.table["label:x"]) == {0, 1}


def test_classes(index: FileIndex, tmp_path: Path) -> None:
    lines = (
        "".join(f"PHANTOM-{n:04d},{'abz'[n % 3]}\n" for n in range(1, 13)) + "PHANTOM-9999,unseen\n"
    )
    manifest = build_with_labels(index, tmp_path, "patient_id,class\n" + lines)
    assert (manifest.summary["task"], manifest.summary["classes"]) == (
        "multiclass",
        ["a", "b", "z"],
    )
    assert (
        sum(manifest.summary["splits"]["train"]["classes"].values())
        == manifest.summary["splits"]["train"]["images"]
    )
    assert (
        "1 label row unmatched (no accepted file has this patient_id): rows 14"
        in manifest.summary["warnings"]
    )


def test_unmatched_label_rows_are_quarantined_or_not_found(
    index: FileIndex, cohort: Path, tmp_path: Path
) -> None:
    rows = rows_of(cohort)  # one of them is about the truncated file
    rows += [{**rows[0], "path": f"absent{n}.dcm"} for n in (1, 2)]
    summary = build_with_labels(index, tmp_path, table_of(rows)).summary
    assert summary["label_rows_unmatched"] == 3
    (warning,) = (text for text in summary["warnings"] if "unmatched" in text)
    assert warning.startswith("3 label rows unmatched (1 quarantined, 2 not found): rows ")
    assert warning.endswith(f", {len(rows)}, {len(rows) + 1}")


def test_given_splits_and_a_drawn_tune(index: FileIndex, cohort: Path, tmp_path: Path) -> None:
    rows = [
        {**row, "split": "test" if "0012" in row["path"] or "0001" in row["path"] else "train"}
        for row in rows_of(cohort)
    ]
    table = build_with_labels(index, tmp_path, table_of(rows)).table
    held_out = table["path"].str.contains("0012|0001")
    assert set(table.loc[held_out, "split"]) == {"test"}
    assert set(table.loc[~held_out, "split"]) == {"train", "tune"}
    assert table.groupby("patient")["split"].nunique().max() == 1


def test_images_outside_of_the_given_splits_are_quarantined(
    index: FileIndex, cohort: Path, tmp_path: Path
) -> None:
    rows = [
        {**row, "split": "test" if int(row["path"][8:12]) % 2 else "train"}
        for row in rows_of(cohort)
    ]
    manifest = build_with_labels(
        index, tmp_path, table_of([row for row in rows if "0007" not in row["path"]])
    )
    assert manifest.summary["reasons"]["no_split"] == 6
    assert not manifest.table["path"].str.contains("0007").any()


def test_warnings_name_what_is_left(index: FileIndex, cohort: Path, tmp_path: Path) -> None:
    rows = [
        {**row, "comment": "x", "Split": "train", "File": "x"}
        for row in rows_of(cohort)
        if "0001" not in row["path"]
    ]
    warnings = " | ".join(build_with_labels(index, tmp_path, table_of(rows)).summary["warnings"])
    assert "not used: comment, Split, File |" in warnings
    assert "column 'Split' is not used. If it is the split, rename it to split" in warnings
    assert "column 'comment'" not in warnings
    assert "column 'File'" not in warnings  # there is a path
    assert "6 images without a row" in warnings


# ---- bad input: one clear line each


def one_line(error: BaseException) -> str:
    text = str(error)
    assert text
    assert "\n" not in text
    return text


def test_a_folder_without_dicom(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("x")
    with raises_code(ManifestError, "no_dicom", "among 1 files") as caught:
        ingest(tmp_path / "in", out=tmp_path / "out")
    one_line(caught.value)
    (tmp_path / "empty").mkdir()
    with raises_code(ManifestError, "no_dicom", "among 0 files"):
        ingest(tmp_path / "empty", out=tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "in"]


def test_only_bad_dicom(cohort: Path, tmp_path: Path) -> None:
    with raises_code(ManifestError, "no_image_left", "1 DICOM files", "localizer 1"):
        ingest(cohort / "PHANTOM-0006" / "localizer.dcm", out=tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["ingest.json", "quarantine.csv"]


def test_an_output_folder_in_use_is_refused_before_any_work(
    cohort: Path, work: Path, tmp_path: Path
) -> None:
    before = {p.name: p.read_bytes() for p in work.iterdir()}
    with raises_code(InputError, "output_exists"):
        ingest(tmp_path / "absent", out=work)
    assert {p.name: p.read_bytes() for p in work.iterdir()} == before


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("path,x\nCANARY.dcm,1\n", "labels_unmatched"),
        (
            "patient_id,x\n" + "".join(f"PHANTOM-{n:04d},1\n" for n in range(1, 13)),
            "one_class",
        ),
        (
            "patient_id,x,y\n" + "".join(f"PHANTOM-{n:04d},1,0\n" for n in range(1, 13)),
            "one_class",
        ),
        ("patient_id,class\nPHANTOM-0001,CANARY\n", "one_class"),
    ],
)
def test_labels_of_no_use(index: FileIndex, tmp_path: Path, text: str, code: str) -> None:
    with raises_code(LabelError, code) as caught:
        build_with_labels(index, tmp_path, text)
    assert "CANARY" not in one_line(caught.value)


def test_labels_are_read_before_any_image(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,x\na,CANARY\n")
    with pytest.raises(LabelError):
        ingest(tmp_path / "absent", tmp_path / "labels.csv")


def test_one_of_several_findings_may_be_constant(index: FileIndex, tmp_path: Path) -> None:
    lines = "".join(f"PHANTOM-{n:04d},{n % 2},0\n" for n in range(1, 13))
    path = tmp_path / "labels.csv"
    path.write_text("patient_id,x,y\n" + lines)
    assert build(index, read_labels(path), KEY).summary["findings"] == ["x"]
    manifest = build(index, read_labels(path, findings=("x", "y")), KEY)
    assert (
        "split test of radiograph images lacks a positive image of y"
        in manifest.summary["warnings"]
    )


def test_a_patient_in_two_given_splits_is_refused_and_listed(
    index: FileIndex, cohort: Path, tmp_path: Path
) -> None:
    rows = [
        {**row, "split": "test" if "visit3" in row["path"] else "train"} for row in rows_of(cohort)
    ]
    with raises_code(SplitError, "split_leak", "10 patients and 0 images", "leaks.csv") as caught:
        build_with_labels(index, tmp_path, table_of(rows), leaks=tmp_path / "leaks.csv")
    one_line(caught.value)
    leaks = pd.read_csv(tmp_path / "leaks.csv")
    radiographs = [row["path"] for row in rows if "visit" in row["path"] or "copy" in row["path"]]
    assert sorted(leaks["path"]) == sorted(radiographs)
    assert leaks["number"].nunique() == 10


def test_identical_pixels_in_two_given_splits_are_refused(
    index: FileIndex, cohort: Path, tmp_path: Path
) -> None:
    rows = [
        {**row, "patient": row["path"], "split": "test" if "copy" in row["path"] else "train"}
        for row in rows_of(cohort)
    ]
    with raises_code(SplitError, "split_leak", "0 patients and 1 images"):
        build_with_labels(index, tmp_path, table_of(rows), leaks=tmp_path / "leaks.csv")
    assert sorted(pd.read_csv(tmp_path / "leaks.csv")["path"]) == [
        "PHANTOM-0001/copy.dcm",
        "PHANTOM-0001/visit1_AP.dcm",
    ]


def test_patients_with_identical_pixels_stay_together(
    index: FileIndex, cohort: Path, tmp_path: Path
) -> None:
    rows = [
        {**row, "patient": "twin" if "copy" in row["path"] else row["path"][:12]}
        for row in rows_of(cohort)
    ]
    rows += [
        {**row, "path": row["path"], "patient": "twin"}
        for row in rows
        if "PHANTOM-0012" in row["path"]
    ]
    rows = [row for row in rows if not ("PHANTOM-0012" in row["path"] and row["patient"] != "twin")]
    for seed in range(6):
        manifest = build_with_labels(
            index, tmp_path, table_of(rows), split_options=SplitOptions(seed=seed)
        )
        assert manifest.summary["reasons"]["duplicate_pixels"] == 1
        linked = manifest.table[manifest.table["path"].str.contains("PHANTOM-0001|PHANTOM-0012")]
        assert linked["patient"].nunique() == 2
        assert linked["split"].nunique() == 1


def test_copies_with_different_labels_are_all_quarantined(
    index: FileIndex, cohort: Path, tmp_path: Path
) -> None:
    rows = [
        {**row, "nodule": 1 - int(row["nodule"]) if "copy" in row["path"] else row["nodule"]}
        for row in rows_of(cohort)
    ]
    manifest = build_with_labels(index, tmp_path, table_of(rows))
    assert manifest.summary["reasons"]["duplicate_conflict"] == 2


def test_too_few_patients(index: FileIndex, tmp_path: Path) -> None:
    rows = index.rows[index.rows["path"].str.contains("0001|0002")]
    with raises_code(SplitError, "too_few_patients", "2 patients", "3 splits"):
        build(FileIndex(rows, ()), None, KEY)


def test_too_many_bad_files(index: FileIndex, cohort: Path, tmp_path: Path) -> None:
    share = 3 / (len(index.rows) + 2)
    assert build(index, None, KEY, max_bad=share).summary["quarantined"] == 3
    with raises_code(InputError, "max_bad", "3 of ", "--max-bad"):
        build(index, None, KEY, max_bad=share * 0.99)
    for value in (-0.1, 1.1, float("nan")):
        with raises_code(InputError, "max_bad", str(value)):
            ingest(cohort, max_bad=value)


def test_only_finished_parts_are_left_when_the_disk_fills(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def full(handle: int) -> None:
        is_of_manifest = ".partial/" in str(Path(f"/proc/self/fd/{handle}").readlink())
        calls.extend([handle] * is_of_manifest)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    sources = [cohort / f"PHANTOM-{n:04d}" for n in (1, 2, 3)]
    with pytest.raises(OSError, match="No space left"):
        ingest(sources, out=tmp_path / "out", workers=1)
    assert [path.name for path in tmp_path.iterdir()] == [".out.parts"]
    assert {path.suffix for path in (tmp_path / ".out.parts").iterdir()} == PARTS


def test_ctrl_c_leaves_only_finished_parts(cohort: Path, tmp_path: Path) -> None:
    script = f"""
import signal, time
# a shell's background jobs ignore it, and so do their children
signal.signal(signal.SIGINT, signal.default_int_handler)
from data_pipelines.ingestion import ingest
def slow(done, total):
    print(done, flush=True)
    time.sleep(0.2)
ingest({str(cohort)!r}, out={str(tmp_path / "out")!r}, workers=2, progress=slow)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert len(children) >= 2
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in children):
            break
        time.sleep(0.05)
    else:
        pytest.fail("a worker is left")
    assert {path.name for path in tmp_path.iterdir()} <= {".out.parts"}
    assert {path.suffix for path in tmp_path.glob(".out.parts/*")} <= PARTS


# ---- patients without a name, with two issuers


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> FileIndex:
    folder = tmp_path_factory.mktemp("people")
    names = [
        ("", ""),
        ("A 1", "X"),
        ("a1", "Y"),
        ("B", ""),
        ("b ", "Z"),
        ("C", ""),
        ("D", ""),
        ("012", ""),
        ("12", ""),
    ]
    for number, (patient, issuer) in enumerate(names):
        save(radiograph(patient, number, issuer=issuer), folder / f"{number}.dcm")
    return index_sources([folder], workers=1)


def test_a_patient_without_an_id_is_the_study_or_named_by_the_table(
    people: FileIndex, tmp_path: Path
) -> None:
    manifest = build(people, None, KEY)
    assert manifest.summary["reasons"] == {}
    assert manifest.summary["leak_attestation"] == {
        "attested": False,
        "reasons": ["patient_by_study"],
    }
    assert manifest.table["patient"].nunique() == 9
    without_study = people.rows.assign(
        study_uid=people.rows["study_uid"].where(people.rows["patient_id"] != "", "")
    )
    manifest = build(FileIndex(without_study, ()), None, KEY)
    assert manifest.summary["reasons"] == {"no_patient_id": 1}
    assert manifest.summary["leak_attestation"] == {"attested": True, "reasons": []}
    named = build_with_labels(people, tmp_path, "path,x,patient\n0.dcm,1,New\n1.dcm,0,\n")
    assert named.summary["reasons"] == {}
    assert named.table["patient"].nunique() == 9


def test_the_issuer_is_part_of_the_patient(people: FileIndex) -> None:
    table = build(people, None, KEY).table.set_index("path")
    assert table.loc["1.dcm", "patient"] != table.loc["2.dcm", "patient"]
    assert table.loc["7.dcm", "patient"] != table.loc["8.dcm", "patient"]


def test_one_id_with_and_without_issuer_stays_in_one_split(people: FileIndex) -> None:
    for seed in range(8):
        table = build(people, None, KEY, split_options=SplitOptions(seed=seed)).table.set_index(
            "path"
        )
        assert table.loc["3.dcm", "patient"] != table.loc["4.dcm", "patient"]
        assert table.loc["3.dcm", "split"] == table.loc["4.dcm", "split"]


def test_frames_excluded_from_a_file_that_stays_are_reported(tmp_path: Path) -> None:
    several, single, others = (
        radiograph("A", 1),
        radiograph("A", 1),
        [radiograph(name, n) for n, name in enumerate("BCD", 2)],
    )
    frames = [
        np.random.default_rng(n).integers(0, 4096, (12, 12)).astype(np.uint16) for n in (1, 10, 11)
    ]
    several.NumberOfFrames, several.PixelData = 3, b"".join(frame.tobytes() for frame in frames)
    several.SOPInstanceUID = derived_uid("several")
    for dataset in (several, single, *others):
        dataset.Modality, dataset.RescaleSlope, dataset.RescaleIntercept = "CT", 1, -1024
    rows = []
    for name, dataset in zip("abcde", [single, several, *others], strict=True):
        save(dataset, tmp_path / name)
        rows += [
            {"source": "/s", "path": name, **row} for row in inspect_file(str(tmp_path / name))
        ]
    manifest = build(FileIndex(pd.DataFrame(rows), ()), None, KEY)
    assert manifest.table["frame"].tolist() == [0, 1, 2, 0, 0, 0]
    assert (manifest.summary["given"], manifest.summary["ok"], manifest.summary["quarantined"]) == (
        5,
        5,
        0,
    )
    several.PixelData = frames[0].tobytes() * 2 + frames[1].tobytes()
    save(several, tmp_path / "b")
    rows[1:4] = [{"source": "/s", "path": "b", **row} for row in inspect_file(str(tmp_path / "b"))]
    rows[1]["plane"] = rows[2]["plane"] = rows[0]["plane"]
    manifest = build(FileIndex(pd.DataFrame(rows), ()), None, KEY)
    assert manifest.table["path"].tolist() == ["a", "b", "c", "d", "e"]
    assert manifest.table["frame"].tolist() == [0, 2, 0, 0, 0]
    assert (
        "2 frames of multi-frame files excluded as copies of others" in manifest.summary["warnings"]
    )


# ---- privacy


def test_no_canary_in_any_output(
    tmp_path: Path, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "in"
    for number in range(6):
        save(with_canaries(number), source / f"{number}.dcm")
    data = (source / "0.dcm").read_bytes()
    (source / "cut.dcm").write_bytes(data[:-50])
    (source / "half.dcm").write_bytes(data[: len(data) // 2])
    (source / "spoilt.dcm").write_bytes(
        data.replace(b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00US\xf0\x00")
    )
    broken = with_canaries(7)
    broken.PhotometricInterpretation = "RGB"
    save(broken, source / "colour.dcm")
    labels = tmp_path / "labels.csv"
    lines = [f"2.25.73194628051{n},{n % 2},CANARY patient {n},CANARY note" for n in range(6)]
    labels.write_text(
        "sop_instance_uid,x,patient,comment\n"
        + "\n".join([*lines, "2.25.731946280519,1,CANARY,CANARY"])
        + "\n"
    )
    manifest = ingest(source, labels, tmp_path / "out", workers=2)
    assert manifest.summary["ok"] == 6
    assert manifest.summary["quarantined"] >= 3
    written = b"".join(p.read_bytes() for p in (tmp_path / "out").iterdir())
    displayed = (
        "".join(capfd.readouterr())
        + caplog.text
        + manifest._repr_html_()
        + json.dumps(manifest.summary)
    )
    everything = written + manifest.table.to_csv().encode() + displayed.encode()
    found = [c for c in CANARIES if any(text in everything for text in encodings(c))]
    assert found == []


@pytest.mark.parametrize(
    "table",
    [
        "path,x\nCANARY,1\n",
        "sop_instance_uid,x\n2.25.731946280510,1\n2.25.731946280510,0\n",
        "sop_instance_uid,x,age\n2.25.731946280510,1,CANARY\n",
        "sop_instance_uid,x,split\n2.25.731946280510,1,CANARY\n",
        "sop_instance_uid,class\n2.25.731946280510,CANARY\n",
        "patient_id,x,split\nCANARY-ID-0,1,train\nCANARY-ID-1,0,test\n",
        "sop_instance_uid,x,patient,split\n2.25.731946280510,1,CANARY,train\n2.25.731946280511,0,CANARY,test\n",
    ],
)
def test_no_canary_in_any_error(tmp_path: Path, table: str) -> None:
    source = tmp_path / "in"
    for number in range(2):
        save(with_canaries(number), source / f"{number}.dcm")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(DicomError) as caught:
        ingest(source, tmp_path / "labels.csv", tmp_path / "out", workers=1)
    text = one_line(caught.value)
    assert not [canary for canary in CANARIES if canary in text]
    written = {path.name: path.read_text() for path in (tmp_path / "out").glob("*")}
    assert set(written) <= {"ingest.json", "quarantine.csv"}
    if "class" not in table:  # the names of classes are in every ingest.json
        assert not [canary for canary in CANARIES if canary in "".join(written.values())]


# ---- real files


def test_real_ct_slices(medres_data: Path, tmp_path: Path) -> None:
    overview = pd.read_csv(medres_data / "ct-contrast" / "overview.csv")
    labels = pd.DataFrame(
        {"path": overview["dicom_name"], "contrast": overview["Contrast"].astype(int)}
    )
    labels.to_csv(tmp_path / "labels.csv", index=False)
    manifest = ingest(medres_data / "ct-contrast", tmp_path / "labels.csv", workers=2)
    assert manifest.summary["given"] == 101
    assert manifest.summary["reasons"] == {"duplicate": 6, "not_dicom": 1}
    assert manifest.summary["patients"] == 54
    assert (manifest.table["label:contrast"] == 1).sum() == 47
    assert set(manifest.table["kind"]) == {"ct"}


def test_every_conformance_file_has_an_end(medres_data: Path) -> None:
    manifest = ingest(medres_data / "dicom-conformance", workers=2)
    files = [p for p in (medres_data / "dicom-conformance").rglob("*") if p.is_file()]
    listed = {*manifest.quarantine["path"], *manifest.table["path"]}
    assert listed == {p.relative_to(medres_data / "dicom-conformance").as_posix() for p in files}
    reason = manifest.quarantine.set_index("path")["reason"]
    assert reason["codecs/no-pixel-data.dcm"] == "no_image"
    assert "xray/CR-MONO1-10-chest" not in reason  # an empty PatientID: its study is the patient
    assert manifest.summary["leak_attestation"]["reasons"] == ["patient_by_study"]
    assert reason["geometry/philips-localizer/I10"] == "localizer"
    assert reason["geometry/philips-tilt-summary/I40"] == "colour"
    verdicts = (
        manifest.table.assign(folder=manifest.table["path"].str.split("/").str[1])
        .groupby("folder")["verdict"]
        .first()
    )
    assert verdicts[["gantrytilting", "notavolume", "sliceincrement"]].tolist() == [
        "TILTED",
        "NOT_A_VOLUME",
        "MISSING",
    ]


# ---- what is written where no manifest can be made


@pytest.fixture
def two_people(tmp_path: Path) -> Path:
    for number in range(5):
        save(radiograph("AB"[number % 2], number), tmp_path / "dicom" / f"{number}.dcm")
    (tmp_path / "dicom" / "text.txt").write_text("no DICOM")
    (tmp_path / "dicom" / "cut.dcm").write_bytes((tmp_path / "dicom" / "0.dcm").read_bytes()[:-100])
    return tmp_path


@pytest.mark.parametrize("code", ["too_few_patients", "one_class"])
def test_too_few_patients_or_classes_leave_the_list_of_files(two_people: Path, code: str) -> None:
    labels, out = two_people / "labels.csv", two_people / "work"
    values = (0, 1) if code == "too_few_patients" else (1, 1)
    labels.write_text(f"patient_id,f\nA,{values[0]}\nB,{values[1]}\n")
    for _ in range(2):  # the folder is no obstacle for the next attempt
        with raises_code(InputError, code, str(out), "--no-split"):
            ingest(two_people / "dicom", labels, out, workers=1)
    assert sorted(path.name for path in out.iterdir()) == ["ingest.json", "quarantine.csv"]
    summary = json.loads((out / "ingest.json").read_text())
    assert summary["refused"]["code"] == code
    assert (summary["given"], summary["ok"]) == (7, 5)
    assert summary["reasons"] == {"not_dicom": 1, "truncated_pixels": 1}
    assert summary["patients"] == 2
    listed = pd.read_csv(out / "quarantine.csv").set_index("path")["reason"].to_dict()
    assert listed == {"cut.dcm": "truncated_pixels", "text.txt": "not_dicom"}
    with raises_code(ManifestError, "no_manifest"):
        Manifest.load(out)


def test_without_splits_all_images_are_in_test(two_people: Path) -> None:
    manifest = ingest(two_people / "dicom", None, two_people / "work", no_split=True, workers=1)
    assert set(manifest.table["split"]) == {"test"}
    assert len(manifest.table) == 5
    assert manifest.summary["split_origin"] == "none"
    assert not any("has no image" in warning for warning in manifest.summary["warnings"])
    labels = two_people / "labels.csv"
    labels.write_text("path,f\n0.dcm,1\n1.dcm,1\n")
    assert ingest(two_people / "dicom", labels, no_split=True, workers=1).summary["findings"]
    labels.write_text("path,f,split\n0.dcm,1,test\n1.dcm,0,train\n")
    with raises_code(SplitError, "split_options", "no_split"):
        ingest(two_people / "dicom", labels, no_split=True, workers=1)


def test_where_no_image_is_left_the_list_of_files_is_written(tmp_path: Path) -> None:
    dataset = radiograph("P1", 1)
    dataset.Modality = "US"
    save(dataset, tmp_path / "in" / "a.dcm")
    (tmp_path / "in" / "note.txt").write_text("x")
    with raises_code(ManifestError, "no_image_left", "quarantine.csv"):
        ingest(tmp_path / "in", out=tmp_path / "work", workers=1)
    summary = json.loads((tmp_path / "work" / "ingest.json").read_text())
    assert (summary["given"], summary["quarantined"], summary["skipped"]) == (2, 1, 1)
    assert summary["refused"]["code"] == "no_image_left"
    listed = pd.read_csv(tmp_path / "work" / "quarantine.csv")
    assert listed["path"].tolist() == ["a.dcm", "note.txt"]
    save(radiograph("P2", 2), tmp_path / "in" / "b.dcm")
    again = ingest(tmp_path / "in", out=tmp_path / "work", workers=1, no_split=True)
    assert again.summary["ok"] == 1
