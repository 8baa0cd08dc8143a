from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code
from PIL import Image
from pydicom.uid import JPEG2000Lossless, RLELossless

from data_pipelines.dicom.writer import derived_uid, new_dataset, save, set_pixels
from data_pipelines.errors import SplitError
from data_pipelines.ingestion.file_inspection import inspect_file
from data_pipelines.ingestion.index import FileIndex
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.ingestion.patient_identity import canonical_spelling, similar_ids
from data_pipelines.ingestion.pipeline import build, ingest
from data_pipelines.labels.table import read_labels
from data_pipelines.pseudonyms import PseudonymKey, normalise_patient_id
from data_pipelines.runtime.atomic_files import csv_bytes

KEY = PseudonymKey(b"k" * 64, "file")
pytestmark = pytest.mark.usefixtures("in_process")


@pytest.mark.parametrize(
    "group", [("P-001", "p001 ", "P1", "P_01", "p 1"), ("12-3", "012-03", "12_3"), ("0", "000")]
)
def test_spellings_that_may_be_one_person(group: tuple[str, ...]) -> None:
    assert len({canonical_spelling(normalise_patient_id(text)) for text in group}) == 1


def test_spellings_that_are_two_persons() -> None:
    different = ["P-001", "P-100", "Q-001", "12-3", "1-23", "123", "P10", "P1-0"]
    assert len({canonical_spelling(normalise_patient_id(text)) for text in different}) == len(
        different
    )


def test_similar_ids_need_one_issuer_and_two_identifiers() -> None:
    people = [
        ("p-001", ""),
        ("p1", ""),
        ("p1", "x"),
        ("p001", "x"),
        ("p2", ""),
        ("p2", ""),
        ("", ""),
        ("", ""),
    ]
    rows = pd.DataFrame(people, columns=["person", "issuer"])
    assert similar_ids(rows).tolist() == ["\np1", "\np1", "x\np1", "x\np1", "", "", "", ""]


def smooth(number: int) -> np.ndarray:
    """A smooth image of 12 bits, 48 x 48."""
    small = np.random.default_rng(number).integers(0, 256, (7, 7)).astype(np.uint8)
    large = np.asarray(Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC))
    return large.astype(np.uint16) * 16


def write(
    path: Path, pixels: np.ndarray, patient: str, *, inverted: bool = False, syntax: str = ""
) -> None:
    uids = {name: derived_uid(name, str(path)) for name in ("study", "series", "sop")}
    dataset = new_dataset("CR", "1.2.840.10008.1.2.1", patient_id=patient, patient="", **uids)
    set_pixels(dataset, (4095 - pixels if inverted else pixels).astype(np.uint16), bits=12)
    if inverted:
        dataset.PhotometricInterpretation = "MONOCHROME1"
    if syntax:
        dataset.compress(syntax)
    save(dataset, path)


@pytest.fixture
def seeded(tmp_path: Path) -> Path:
    """Twenty patients, and twenty leaks: 5 spelling variants, 9 copies in other encodings, 6
    similar images.
    """
    folder = tmp_path / "in"
    for n in range(20):
        write(folder / f"{n:02d}.dcm", smooth(n), f"P-{n + 1:03d}")
    for n in range(5):
        write(folder / f"spelt{n}.dcm", smooth(100 + n), f"p{n + 1}")
    for n, kind in enumerate(
        ({"inverted": True}, {"syntax": RLELossless}, {"syntax": JPEG2000Lossless}) * 3
    ):
        write(folder / f"copy{n}.dcm", smooth(n), f"COPY{n}", **kind)
    for n in range(6):
        noise = np.random.default_rng(n).normal(0, 20, (48, 48))
        write(
            folder / f"near{n}.dcm", np.clip(smooth(10 + n) * 0.8 + noise + 50, 0, 4095), f"NEAR{n}"
        )
    return folder


def test_every_seeded_leak_is_found(seeded: Path, tmp_path: Path) -> None:
    manifest = ingest(seeded, out=tmp_path / "work", seed=2)
    entries = Manifest.load(tmp_path / "work").audit
    pairs = entries.groupby(["what", "number"])["path"].agg(lambda paths: tuple(sorted(paths)))
    assert sorted(pairs["patient_spelling"]) == [
        (f"{n:02d}.dcm", f"spelt{n}.dcm") for n in range(5)
    ]
    assert sorted(pairs["identical_pixels"]) == [(f"{n:02d}.dcm", f"copy{n}.dcm") for n in range(9)]
    assert sorted(pairs["near_duplicate"]) == [
        (f"{n:02d}.dcm", f"near{n - 10}.dcm") for n in range(10, 16)
    ]
    counts = manifest.summary["audit"]
    assert [
        counts[k]["groups"] for k in ("patient_spelling", "identical_pixels", "near_duplicate")
    ] == [5, 9, 6]
    assert counts["identical_pixels"]["across_patients"] == 9
    assert (
        counts["patient_spelling"]["across_splits"] == 0
    )  # what may be one patient shares a split
    near = entries[entries["what"] == "near_duplicate"]
    crossing = (near.groupby("number")["split"].nunique() > 1).sum()
    assert counts["near_duplicate"]["across_splits"] == crossing > 0
    assert near["distance"].astype(float).between(0.001, 0.16).all()
    text = " ".join(manifest.summary["warnings"])
    assert "9 duplicate images across patients" in text
    assert "6 pairs of similar images" in text
    assert "5 patient identifiers with several spellings" in text
    assert not any(word in text + entries.to_csv() for word in ("P-001", "p1,", "COPY1", "NEAR1"))


def test_copies_in_other_encodings_across_given_splits_are_refused(
    seeded: Path, tmp_path: Path
) -> None:
    rows = [
        {"path": p.name, "x": n % 2, "split": "test" if p.name.startswith("copy") else "train"}
        for n, p in enumerate(sorted(seeded.glob("*.dcm")))
    ]
    (tmp_path / "labels.csv").write_bytes(csv_bytes(rows, ["path", "x", "split"]))
    with raises_code(SplitError, "split_leak", "0 patients and 9 images", "--leaks drop"):
        ingest(seeded, tmp_path / "labels.csv", tmp_path / "work")
    listed = pd.read_csv(tmp_path / "work.leaks.csv")
    assert sorted(listed["path"]) == sorted(
        [f"{n:02d}.dcm" for n in range(9)] + [f"copy{n}.dcm" for n in range(9)]
    )


def test_dropping_leaks_leaves_test_whole(seeded: Path, tmp_path: Path) -> None:
    rows = [
        {
            "path": p.name,
            "x": 0 if p.name.startswith("0") or "copy" in p.name else 1,
            "split": "train",
        }
        for p in sorted(seeded.glob("*.dcm"))
    ]
    for row in rows:
        number = int("".join(c for c in str(row["path"]) if c.isdigit()))
        row["split"] = "test" if "copy" in str(row["path"]) or number >= 10 else "train"
    (tmp_path / "labels.csv").write_bytes(csv_bytes(rows, ["path", "x", "split"]))
    manifest = ingest(seeded, tmp_path / "labels.csv", on_leak="drop")
    test = {str(row["path"]) for row in rows if row["split"] == "test"}
    assert set(manifest.table["path"][manifest.table["split"] == "test"]) == test
    assert manifest.summary["reasons"] == {
        "split_leak": 14
    }  # nine originals and the five under another spelling of theirs


def test_two_empty_slices_of_one_patient_are_no_finding(tmp_path: Path) -> None:
    rows = []
    for n in range(4):
        write(tmp_path / f"{n}.dcm", smooth(n // 2), f"P{n // 2}")
        rows += [
            {"source": "/s", "path": f"{n}", **row}
            for row in inspect_file(str(tmp_path / f"{n}.dcm"))
        ]
        rows[-1]["plane"] = replace(rows[0]["plane"], position=(0.0, 0.0, float(n)))
    extra = [
        {**row, "path": f"more{k}", "pixel_sha256": f"{k}", "sop_uid": f"1.{k}"}
        for k, row in enumerate(rows)
    ]
    more = pd.DataFrame(
        [
            *rows,
            *[
                {**row, "patient_id": f"Q{k}", "study_uid": f"1.2.5{k}", "series_uid": f"1.2.6{k}"}
                for k, row in enumerate(extra)
            ],
        ]
    )
    manifest = build(FileIndex(more, ()), None, KEY)
    assert manifest.summary["audit"]["identical_pixels"]["groups"] == 0
    assert manifest.summary["reasons"] == {}


def test_real_split_that_leaks(medres_data: Path, tmp_path: Path) -> None:
    folder = medres_data / "cxr-nih1000"
    table = pd.read_csv(folder / "labels.csv")
    shared = (table.groupby("patient_id")["split"].nunique() > 1).sum()
    with raises_code(SplitError, "split_leak", f"{shared} patients and 0 images"):
        ingest(folder, folder / "labels.csv", tmp_path / "work", units="display")
    assert shared == 30
    assert read_labels(folder / "labels.csv").ignored == ("finding_labels",)
